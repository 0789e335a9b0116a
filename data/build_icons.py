"""Builds `data/icons/`, the embedded icons, and the vocabulary of their names.

For developers; it takes the npm package `@iconify/json`, and needs the extra `icons`:

    npm pack @iconify/json@2.2.535 && tar xzf iconify-json-2.2.535.tgz
    python -m classact.data.build_icons --iconify=package

An icon's class is its name without words of style and size. Names that at least
`MIN_SETS` icon sets share, with enough icons in both splits, are classes; the
most frequent ones are taken, as many as `--classes` says. Sets under licences that
restrict use or re-use (NC, SA, GPL and the like) are left out, and so are sets of
brand logos, which are trade marks. Icons with equal pixels count once in a class.
Each icon's full name is kept as its caption.

A share of the icons is held out as whole families of sets: sets of one author, or
that share drawings, are one family, so that test drawings were not trained on.
"""

import argparse
import collections
import dataclasses
import io
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from classact.data.captions import class_text
from classact.data.embedded_icons import (
    COLUMNS,
    FOLDER,
    GROUPS,
    LEVELS,
    SIZE,
    TILES_PER_SHEET,
    sheet_paths,
    write_names,
)  # fmt: skip
from classact.data.tokenizer import FOLDER as VOCABULARIES
from classact.data.tokenizer import train_tokenizer

LICENCES = (
    "MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "OFL-1.1", "Unlicense",
)  # fmt: skip
_STYLE = """
    outline outlined outlines filled fill line linear lines bold bolder light lighter thin regular solid
    semi semibold extra extralight medium heavy duotone duo twotone mono color colored colour black white dark
    rounded round sharp thick bulk stroke stroked flat variant alt alternate alternative baseline minimalistic
    style small large big mini micro xs sm md lg xl xxl px o ios rtl ltr logo
"""
STYLE_WORDS = frozenset(_STYLE.split())
MIN_SETS = 10
MIN_TRAIN, MIN_EVAL = 20, 2
EVAL_SHARE = 0.14
VOCABULARY = 2048
MAX_BYTES = 8_000_000
# Two icons of a class at half resolution, values in 0 to 1, are the same drawing
# below this mean squared difference; and two sets share drawings above this share.
_SAME_DRAWING = 0.004
_SHARED_DRAWINGS = 0.1
# Made from another set with other margins, which hides that the drawings are the same.
_MADE_FROM = {"zmdi": "ic"}
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Icon:
    """One rasterised icon: its class's name, its set's prefix, uint8[32, 32, 3], its name in the set."""

    name: str
    icon_set: str
    pixels: np.ndarray
    full_name: str


def normalise(icon_name: str) -> str:
    """The class of an icon: its name without words of style, sizes and numbers; may be empty."""
    words = icon_name.lower().replace("two-tone", "twotone").split("-")
    kept = [w for w in words if w and w not in STYLE_WORDS and not any(c.isdigit() for c in w)]
    return "-".join(kept)


def usable_sets(iconify: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What `collections.json` says of the sets that may be shipped, by prefix."""
    every = json.loads((iconify / "collections.json").read_text(encoding="utf-8"))
    return {
        prefix: info
        for prefix, info in every.items()
        if info["license"].get("spdx") in LICENCES
        and info.get("category") != "Logos"
        and not prefix.endswith("-brands")
    }


def shared_names(iconify: pathlib.Path, prefixes: Iterable[str]) -> list[str]:
    """The names that enough sets share and enough icons have, the most frequent first."""
    icons: collections.Counter[str] = collections.Counter()
    sets: dict[str, set[str]] = collections.defaultdict(set)
    for prefix in prefixes:
        for full_name, _ in icons_of(iconify, prefix):
            name = normalise(full_name)
            icons[name] += 1
            sets[name].add(prefix)
    shared = [name for name in icons if name and len(sets[name]) >= MIN_SETS]
    return sorted((n for n in shared if icons[n] >= MIN_TRAIN + MIN_EVAL), key=lambda n: (-icons[n], n))


def render(iconify: pathlib.Path, prefixes: Iterable[str], names: Sequence[str]) -> list[Icon]:
    """Rasterises every icon of the given names, without blank ones, in order of set and class."""
    rank = {name: i for i, name in enumerate(names)}
    icons = []
    for prefix in prefixes:
        named = [(normalise(full_name), full_name, svg) for full_name, svg in icons_of(iconify, prefix)]
        wanted = [icon for icon in named if icon[0] in rank]
        for name, full_name, svg in sorted(wanted, key=lambda icon: rank[icon[0]]):
            pixels = rasterise(svg)
            if pixels.min() < pixels.max():
                icons.append(Icon(name, prefix, pixels, full_name))
    return icons


def families(icons: Sequence[Icon], authors: dict[str, str]) -> dict[str, str]:
    """Joins sets of one author, and sets that share drawings: prefix → a prefix for the family."""
    family = {prefix: prefix for prefix in dict.fromkeys(icon.icon_set for icon in icons)}

    def join(first: str, second: str) -> None:
        new, old = sorted((family[first], family[second]))
        for prefix in family:
            if family[prefix] == old:
                family[prefix] = new

    for first, second in itertools.combinations(family, 2):
        if authors[first] == authors[second] or _MADE_FROM.get(second) == first:
            join(first, second)
    totals = collections.Counter(icon.icon_set for icon in icons)
    for (first, second), shared in _shared_drawings(icons).items():
        if shared >= _SHARED_DRAWINGS * totals[first]:
            join(first, second)
    return family


def hold_out(icons: Sequence[Icon], family: dict[str, str]) -> set[str]:
    """Draws families for the eval split, until they have `EVAL_SHARE` of the icons: their prefixes."""
    sizes = collections.Counter(family[icon.icon_set] for icon in icons)
    wanted, held_out = EVAL_SHARE * len(icons), 0
    chosen = set()
    for name in np.random.default_rng(_SEED).permutation(sorted(sizes)):
        # Large families stay in training: one of them would be most of the test.
        if sizes[name] <= wanted / 4 and held_out + sizes[name] <= wanted:
            held_out += sizes[name]
            chosen.add(name)
    return {prefix for prefix, name in family.items() if name in chosen}


def most_frequent(icons: Sequence[Icon], held_out: set[str], count: int) -> list[Icon]:
    """The icons of the `count` most frequent names that have enough icons in both splits."""
    counts = collections.Counter((icon.name, icon.icon_set in held_out) for icon in icons)
    names = {icon.name for icon in icons}
    enough = [n for n in names if counts[n, False] >= MIN_TRAIN and counts[n, True] >= MIN_EVAL]
    chosen = set(sorted(enough, key=lambda n: (-counts[n, False] - counts[n, True], n))[:count])
    return [icon for icon in icons if icon.name in chosen]


def distinct(icons: Iterable[Icon]) -> list[Icon]:
    """Keeps the first of the icons that have one class and the same pixels."""
    first: dict[tuple[str, bytes], Icon] = {}
    for icon in icons:
        first.setdefault((icon.name, icon.pixels.tobytes()), icon)
    return list(first.values())


def write(
    icons: Sequence[Icon], held_out: set[str], infos: dict[str, dict[str, Any]], out: pathlib.Path
) -> None:
    """Writes contact sheets, index, names and licences; ValueError if they are above `MAX_BYTES`."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.webp"):
        old.unlink()
    counts = collections.Counter(icon.name for icon in icons)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    sets = sorted({icon.icon_set for icon in icons})
    label, number = {n: i for i, n in enumerate(names)}, {s: i for i, s in enumerate(sets)}
    index: dict[str, np.ndarray] = {"class_names": np.array(names), "icon_sets": np.array(sets)}
    full_names: list[str] = []
    for group in GROUPS:
        members = [icon for icon in icons if _group(icon, held_out) == group]
        index[f"{group}/label"] = np.array([label[icon.name] for icon in members], np.uint16)
        index[f"{group}/icon_set"] = np.array([number[icon.icon_set] for icon in members], np.uint8)
        full_names += [icon.full_name for icon in members]
        for sheet, path in enumerate(sheet_paths(out, group, len(members))):
            _write_sheet(path, members[sheet * TILES_PER_SHEET : (sheet + 1) * TILES_PER_SHEET])
    np.savez_compressed(out / "index.npz", allow_pickle=False, **index)
    write_names(full_names, out)
    (out / "LICENSES.md").write_text(_licences(icons, held_out, infos), encoding="utf-8")
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{len(icons)} icons of {len(names)} classes from {len(sets)} sets: {size} bytes in {out}")
    for split in ("train", "eval"):
        labels = np.concatenate([index[f"{group}/label"] for group in GROUPS if group.startswith(split)])
        per_class = np.bincount(labels, minlength=len(names))
        print(f"{split}: {len(labels)} icons, {per_class.min()} to {per_class.max()} of a class")
    if size > MAX_BYTES:
        raise ValueError(
            f"{out} holds {size} bytes, at most {MAX_BYTES} may be shipped: take fewer --classes"
        )


def icons_of(iconify: pathlib.Path, prefix: str, size: int = SIZE) -> Iterator[tuple[str, str]]:
    """Yields (name, square SVG) of a set's icons; leaves out hidden ones and emoji in many skin tones."""
    data = json.loads((iconify / "json" / f"{prefix}.json").read_text(encoding="utf-8"))
    for name, icon in data["icons"].items():
        if not icon.get("hidden") and "skin-tone" not in name:
            left, top, width, height = (
                icon.get(field, data.get(field, default))
                for field, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
            )
            side = max(width, height)
            box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
            yield (
                name,
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'width="{size}" height="{size}" viewBox="{box}" color="#000">{icon["body"]}</svg>',
            )


def rasterise(svg: str, size: int = SIZE) -> np.ndarray:
    """uint8[size, size, 3] on white, quantised to `LEVELS`, with equal channels where nearly grey.

    Args:
        svg: from `icons_of`, of this size.
        size: the side in pixels.
    """
    import resvg_py  # Of the extra `icons`, no dependency of classact itself.

    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True
    )
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.float64)
    if np.ptp(pixels, axis=-1).max() <= 8:
        pixels = np.repeat(pixels.mean(-1, keepdims=True), 3, -1)
    step = 255 / (LEVELS - 1)
    return (np.rint(pixels / step) * step).astype(np.uint8)


def _shared_drawings(icons: Sequence[Icon]) -> collections.Counter[tuple[str, str]]:
    """Counts, for (set, other set), the icons of the set that the other one has almost alike."""
    shared: collections.Counter[tuple[str, str]] = collections.Counter()
    by_class: dict[str, list[Icon]] = collections.defaultdict(list)
    for icon in icons:
        by_class[icon.name].append(icon)
    for members in by_class.values():
        pixels = np.stack([icon.pixels for icon in members]).astype(np.float64).mean(-1) / 255
        small = pixels.reshape(len(pixels), SIZE // 2, 2, SIZE // 2, 2).mean((2, 4)).reshape(len(pixels), -1)
        norms = np.square(small).sum(1)
        distance = (norms[:, None] + norms[None] - 2 * small @ small.T) / small.shape[1]
        first, second = np.nonzero(distance < _SAME_DRAWING)
        alike = {(i, members[j].icon_set) for i, j in zip(first.tolist(), second.tolist(), strict=True)}
        shared.update((members[i].icon_set, other) for i, other in alike if members[i].icon_set != other)
    return shared


def _group(icon: Icon, held_out: set[str]) -> str:
    grey = (icon.pixels == icon.pixels[..., :1]).all()
    return f"{'eval' if icon.icon_set in held_out else 'train'}-{'grey' if grey else 'colour'}"


def _write_sheet(path: pathlib.Path, icons: Sequence[Icon]) -> None:
    rows = -(-len(icons) // COLUMNS)
    tiles = np.full((rows * COLUMNS, SIZE, SIZE, 3), 255, np.uint8)
    tiles[: len(icons)] = [icon.pixels for icon in icons]
    sheet = tiles.reshape(rows, COLUMNS, SIZE, SIZE, 3).swapaxes(1, 2).reshape(rows * SIZE, COLUMNS * SIZE, 3)
    Image.fromarray(sheet).save(path, "WEBP", lossless=True, method=6, quality=100)


def licence_table(infos: dict[str, dict[str, Any]], sets: dict[str, tuple[int, str]]) -> str:
    """A Markdown table of sets with author and licence.

    Args:
        infos: what `collections.json` says of the sets, by prefix.
        sets: the number of icons and the split of each set to list, by prefix.
    """
    lines = ["| prefix | set | author | licence | icons | split |", "|---|---|---|---|---|---|"]
    for prefix, (icons, split) in sorted(sets.items()):
        info = infos[prefix]
        author, licence = info["author"], info["license"]
        name = licence.get("spdx") or licence["title"]
        lines.append(
            f"| `{prefix}` | {info['name']} | {_link(author['name'], author.get('url'))} "
            f"| {_link(name, licence.get('url'))} | {icons} | {split} |"
        )
    return "\n".join(lines) + "\n"


def _licences(icons: Sequence[Icon], held_out: set[str], infos: dict[str, dict[str, Any]]) -> str:
    counts = collections.Counter(icon.icon_set for icon in icons)
    splits = {prefix: "eval" if prefix in held_out else "train" for prefix in counts}
    return f"""# Where the icons come from

The contact sheets in this folder hold icons of the sets below, taken from the npm package
`@iconify/json` 2.2.535, rasterised at 32×32 pixels on white and reduced to 16 levels per channel
by `data/build_icons.py`. Set, author, licence and addresses are as that package states them.

{licence_table(infos, {prefix: (counts[prefix], splits[prefix]) for prefix in counts})}"""


def _link(text: str, url: str | None) -> str:
    return f"[{text}]({url})" if url else text


def main() -> None:
    """Builds the icons; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Builds the embedded icons.")
    parser.add_argument(
        "--iconify", type=pathlib.Path, required=True, help="the unpacked @iconify/json package"
    )
    parser.add_argument(
        "--classes", type=int, default=1100, help="how many of the most frequent names to take"
    )
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER, help="the folder to write")
    args = parser.parse_args()
    infos = usable_sets(args.iconify)
    icons = render(args.iconify, infos, shared_names(args.iconify, infos))
    held_out = hold_out(
        icons, families(icons, {prefix: info["author"]["name"] for prefix, info in infos.items()})
    )
    # Training icons first: of two equal ones, the held-out one goes.
    kept = distinct(sorted(icons, key=lambda icon: icon.icon_set in held_out))
    chosen = most_frequent(kept, held_out, args.classes)
    write(chosen, held_out, infos, args.out)
    trained_on = [class_text(icon.full_name) for icon in chosen if icon.icon_set not in held_out]
    train_tokenizer(trained_on, VOCABULARY, context_length=16).save(VOCABULARIES / "icons.json")


if __name__ == "__main__":
    main()
