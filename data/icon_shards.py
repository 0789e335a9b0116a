"""Builds the large image–text set of icons as tar shards, for `tar:PATTERN?captions=lines`.

`build` writes, from the npm packages `@iconify/json` and `emojibase-data`:

- `noisy/train-*.tar`: every icon that is no emoji; the caption is its full name, as words;
- `clean/train-*.tar`: icons with a name that at least `CLEAN_SETS` sets share, which
  is the caption, without words of style; and emoji with two captions, label and tags;
- `noisy/eval-*.tar` and `clean/eval-*.tar`: the same, of sets that are held out whole.

`sets.json` and `LICENSES.md` name each set's author, licence and split, and count its
pairs. No set is left out for its licence: what is built is for training here, and
not to be given away without a look at that list.

Held out are the sets that `icons` holds out, so that its eval split remains unseen,
and with them all sets of the same authors or with many of the same drawings. No
drawing of theirs is in the training shards. The clean training icons are a part of
the noisy ones, drawn from them by consensus.

It needs the extra `icons`, and `npm` unless both packages are given.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import tarfile
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
from PIL import Image
from rich.progress import Progress

from classact.data.build_icons import icons_of, licence_table, normalise, rasterise
from classact.data.captions import class_text
from classact.data.embedded_icons import GROUPS, SIZE, read_index
from classact.data.icon_packages import emoji_captions, fetch_package, read_json
from classact.data.source import DataError
from classact.data.tar_members import members_of

ICONIFY = "@iconify/json@2.2.535"
EMOJIBASE = "emojibase-data@17.0.0"
CLEAN_SETS = 10
SHARD_ICONS = 8192
# Those of the emoji sets whose drawings are in colour and complete.
EMOJI_SETS = {"twemoji": "train", "noto": "train", "fluent-emoji-flat": "train", "openmoji": "eval"}
# Two sets are one family if one has above this share of its drawings from the other.
_SHARED_DRAWINGS = 0.1


@dataclasses.dataclass(frozen=True)
class IconPair:
    """One icon to draw: its set, its name there, and its captions in the two sets (none: not in it)."""

    icon_set: str
    name: str
    noisy: tuple[str, ...]
    clean: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Drawing:
    name: str
    digest: bytes


def build(
    out: pathlib.Path,
    iconify: Optional[pathlib.Path] = None,
    emojibase: Optional[pathlib.Path] = None,
    size: int = SIZE,
) -> dict[str, int]:
    """Builds the shards; it takes minutes, and shows how far it is.

    It can be interrupted and called again: finished shards stay, and a file under
    its name is always whole.

    Args:
        out: the folder to write; below 1 GB at 32 pixels.
        iconify: the unpacked package `@iconify/json`; fetched by `npm` if not given.
        emojibase: the unpacked package `emojibase-data`; fetched likewise.
        size: the side of the images in pixels.

    Returns:
        The images of each kind of shards: `noisy/train`, `noisy/eval`, `clean/train`, `clean/eval`.

    Raises:
        DataError: if a package is missing or cannot be fetched, or `out` holds
            shards of another size or version.
        ImportError: without the extra `icons`.
    """
    import resvg_py  # noqa: F401, before any work is done in vain.

    # A package that is given and is none leaves no folder behind.
    for package in (iconify, emojibase):
        if package is not None:
            _version(package)
    iconify = iconify or fetch_package(ICONIFY, out / "packages")
    emojibase = emojibase or fetch_package(EMOJIBASE, out / "packages")
    infos = read_json(iconify / "collections.json")
    emoji = emoji_captions(iconify, emojibase, EMOJI_SETS)
    for kind in ("noisy", "clean"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    _check_same_build(out, iconify, emojibase, size)
    drawings = {
        prefix: _drawings(iconify, prefix) for prefix in infos if infos[prefix].get("category") != "Emoji"
    }
    splits = split_sets(drawings, {prefix: info["author"]["name"] for prefix, info in infos.items()})
    pairs = {split: icon_pairs(drawings, splits, split) for split in ("train", "eval")}
    for prefix, captions in emoji.items():
        pairs[EMOJI_SETS[prefix]] += [IconPair(prefix, name, (), texts) for name, texts in captions.items()]
    with Progress() as progress:
        task = progress.add_task("icons", total=sum(map(len, pairs.values())))
        for split in pairs:
            for number, start in enumerate(range(0, len(pairs[split]), SHARD_ICONS)):
                chunk = pairs[split][start : start + SHARD_ICONS]
                _write_shards(chunk, iconify, size, out, f"{split}-{number:05d}.tar")
                progress.advance(task, len(chunk))
    return _write_sets(out, infos, {**splits, **EMOJI_SETS})


def split_sets(drawings: dict[str, list[_Drawing]], authors: dict[str, str]) -> dict[str, str]:
    """Each set's split, "train" or "eval"; see the module's docstring."""
    index = read_index()
    embedded = set(index["icon_sets"].tolist())
    held_out = {
        str(index["icon_sets"][number])
        for group in GROUPS
        if group.startswith("eval")
        for number in np.unique(index[f"{group}/icon_set"])
    } & set(drawings)
    digests = {prefix: {drawing.digest for drawing in drawings[prefix]} for prefix in drawings}
    others = [prefix for prefix in drawings if prefix not in embedded]
    while True:
        related = {
            other
            for other in others
            if other not in held_out
            and any(
                authors[other] == authors[prefix]
                or len(digests[other] & digests[prefix]) > _SHARED_DRAWINGS * len(digests[other])
                for prefix in held_out
            )
        }
        if not related:
            return {prefix: "eval" if prefix in held_out else "train" for prefix in drawings}
        held_out |= related


def icon_pairs(drawings: dict[str, list[_Drawing]], splits: dict[str, str], split: str) -> list[IconPair]:
    """The pairs of one split that are no emoji, in order of set and name; equal ones once."""
    sets_of_name: dict[str, set[str]] = collections.defaultdict(set)
    held_out = set()
    for prefix, members in drawings.items():
        for drawing in members:
            sets_of_name[normalise(drawing.name)].add(prefix)
            if splits[prefix] == "eval":
                held_out.add(drawing.digest)
    seen: set[tuple[bytes, str, str]] = set()

    def first(digest: bytes, kind: str, caption: str) -> tuple[str, ...]:
        """The caption, unless the drawing has had it before."""
        new = bool(caption) and (digest, kind, caption) not in seen
        seen.add((digest, kind, caption))
        return (caption,) if new else ()

    pairs = []
    for prefix in (prefix for prefix in drawings if splits[prefix] == split):
        for drawing in drawings[prefix]:
            if split == "train" and drawing.digest in held_out:
                continue
            name = normalise(drawing.name)
            shared = bool(name) and len(sets_of_name[name]) >= CLEAN_SETS
            noisy = first(drawing.digest, "noisy", class_text(drawing.name))
            clean = first(drawing.digest, "clean", class_text(name) if shared else "")
            if noisy or clean:
                pairs.append(IconPair(prefix, drawing.name, noisy, clean))
    return pairs


def _check_same_build(out: pathlib.Path, iconify: pathlib.Path, emojibase: pathlib.Path, size: int) -> None:
    """Writes down what the shards are made of; DataError if those of `out` are made of something else."""
    made_of = {
        "iconify": _version(iconify),
        "emojibase": _version(emojibase),
        "size": size,
        "clean_sets": CLEAN_SETS,
        "shard_icons": SHARD_ICONS,
    }
    path = out / "build.json"
    if path.exists() and (before := read_json(path)) != made_of:
        raise DataError(f"{path}: its shards are made of {before}, not of {made_of}: build in another folder")
    _write_whole(path, json.dumps(made_of).encode())


def _version(package: pathlib.Path) -> str:
    """The version of an unpacked npm package; DataError if the folder holds none."""
    path = package / "package.json"
    if not path.is_file():
        raise DataError(f"{package} is no unpacked npm package: it has no package.json")
    described = read_json(path)
    if not isinstance(described, dict) or "version" not in described:
        raise DataError(f"{path}: names no version, expected that of an unpacked npm package")
    return str(described["version"])


def _drawings(iconify: pathlib.Path, prefix: str) -> list[_Drawing]:
    return [
        _Drawing(name, hashlib.blake2b(svg.encode(), digest_size=16).digest())
        for name, svg in icons_of(iconify, prefix)
    ]


@functools.lru_cache(maxsize=2)
def _svgs(iconify: pathlib.Path, prefix: str, size: int) -> dict[str, str]:
    return dict(icons_of(iconify, prefix, size))


def _write_shards(
    chunk: Sequence[IconPair], iconify: pathlib.Path, size: int, out: pathlib.Path, name: str
) -> None:
    """Draws icons into one shard of each kind, unless both are there; blank icons are left out."""
    if (out / "noisy" / name).exists() and (out / "clean" / name).exists():
        return
    members: dict[str, list[tuple[str, bytes]]] = {"noisy": [], "clean": []}
    for pair in chunk:
        png = _png(_svgs(iconify, pair.icon_set, size).get(pair.name), size)
        for kind, captions in (("noisy", pair.noisy), ("clean", pair.clean)):
            if png is not None and captions:
                stem = f"{pair.icon_set}/{pair.name}"
                members[kind] += [(f"{stem}.png", png), (f"{stem}.txt", "\n".join(captions).encode())]
    for kind, files in members.items():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as shard:
            for member, content in files:
                header = tarfile.TarInfo(member)
                header.size = len(content)
                shard.addfile(header, io.BytesIO(content))
        _write_whole(out / kind / name, buffer.getvalue())


def _png(svg: Optional[str], size: int) -> Optional[bytes]:
    """An icon as a PNG file; None for one that is hidden, blank or no SVG."""
    if svg is None:
        return None
    try:
        pixels = rasterise(svg, size)
    except ValueError:
        return None
    if pixels.min() == pixels.max():
        return None
    grey = (pixels == pixels[..., :1]).all()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _write_sets(out: pathlib.Path, infos: dict[str, Any], splits: dict[str, str]) -> dict[str, int]:
    """Counts the images in the shards, and writes `sets.json` and `LICENSES.md`."""
    counts: dict[str, collections.Counter[str]] = {
        "noisy": collections.Counter(),
        "clean": collections.Counter(),
    }
    for kind, counter in counts.items():
        for path in sorted((out / kind).glob("*.tar")):
            counter.update(m.name.partition("/")[0] for m in members_of(path) if m.name.endswith(".png"))
    sets = {
        prefix: {
            "name": infos[prefix]["name"],
            "author": infos[prefix]["author"],
            "license": infos[prefix]["license"],
            "split": split,
            **{kind: counter[prefix] for kind, counter in counts.items()},
        }
        for prefix, split in sorted(splits.items())
    }
    _write_whole(out / "sets.json", json.dumps(sets, indent=1).encode())
    table = licence_table(infos, {p: (max(s["noisy"], s["clean"]), s["split"]) for p, s in sets.items()})
    text = "# Where the icons come from\n\nThe package `@iconify/json` says so.\n\n" + table
    _write_whole(out / "LICENSES.md", text.encode())
    return {
        f"{kind}/{split}": sum(entry[kind] for entry in sets.values() if entry["split"] == split)
        for kind in counts
        for split in ("train", "eval")
    }


def _write_whole(path: pathlib.Path, content: bytes) -> None:
    """Writes a file under another name first, so that it is never there in part."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
