"""Which image and which text (a caption, a label) belong together: by name and order, as in WebDataset."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence

from classact.data.decode import SUFFIXES
from classact.data.left_out import LeftOut
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.walk import is_junk, reason_of_ending

CAPTION_SUFFIX = ".txt"
# Of several images of one name, the first of these is taken, as open_clip does.
_PREFERRED = (".jpg", ".png", ".jpeg", ".webp")
_RANKS = {
    suffix: rank for rank, suffix in enumerate(dict.fromkeys((*_PREFERRED, *SUFFIXES))) if suffix in SUFFIXES
}
# How many are named.
_KINDS = 5
_NO_NAMES = (".", "..")


def pair_up(
    names: Sequence[str],
    where: str,
    left_out: LeftOut,
    named: Callable[[int], object],
    suffix: str = CAPTION_SUFFIX,
    text: str = "caption",
) -> tuple[list[tuple[int, int]], Counter[str]]:
    """Finds the image and the caption of each example among the files of a folder or a shard.

    An image belongs to the `suffix` file whose name is otherwise the same, at any place,
    as long as no name is there twice. A key (what a name has before its file's first
    dot) with a name that is there twice names several examples, each a run of
    members of this key that follow each other; a run that is a repetition (an image,
    its caption, an image, its caption) is as many examples. Of several images of one
    name one is taken, of the first kind of `.jpg`, `.png`, `.jpeg`, `.webp`, as
    open_clip does.

    Hidden files and what file managers leave behind are passed over in silence.

    Args:
        names: paths with `/`, in order.
        where: of the folder or shard, for errors.
        left_out: counts images without a caption, captions without an image, further
            images of one name and files with other endings.
        named: what is counted for a number, as `LeftOut.add` takes it.
        suffix: the ending of the texts, in small letters.
        text: what a text is, for messages.

    Returns:
        pairs: the numbers of (image, text) of each example, in the images' order.
        beside: how many files of other endings have the key of an image, by `reason_of_ending`.

    Raises:
        DataError: if a key is there twice, and which of its images has which of its captions
            cannot be told; it names `where` and the key.
    """
    usable = [number for number, name in enumerate(names) if not _is_no_data(name)]
    matched = _by_name(names, usable, suffix)
    if matched.doubled:
        runs = _runs(names, usable, matched.doubled)
        matched = _by_name(names, [number for number in usable if _key(names[number]) not in runs], suffix)
        for key, own in runs.items():
            matched.take(_in_order(names, own, f"{where}: key '{shown(key)}'", suffix, text))
    for reason, numbers in (
        (f"without a {text}", matched.images),
        ("without an image", matched.texts),
        ("beside another image of the same name", matched.further),
    ):
        for number in sorted(numbers):
            left_out.add(reason, named(number))
    seen = (*matched.images, *(image for image, _ in matched.pairs)) if matched.others else ()
    keys = {_key(names[image]) for image in seen}
    beside: Counter[str] = Counter()
    for number in sorted(matched.others):
        reason = reason_of_ending(names[number])
        if _key(names[number]) in keys:
            beside[reason] += 1
        else:
            left_out.add(reason, named(number))
    return sorted(matched.pairs), beside


def remarks_on(beside: Counter[str]) -> list[str]:
    """What is said of files beside images that are not read, as `LeftOut.remarks`."""
    kinds = ", ".join(f"{count:,} {reason}" for reason, count in beside.most_common(_KINDS))
    return [f"not read, beside their images: {kinds}"] if beside else []


@dataclasses.dataclass
class _Matched:
    """Numbers of names: of pairs, of what has no partner, of other files; and keys that need their order."""

    pairs: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    images: list[int] = dataclasses.field(default_factory=list)
    texts: list[int] = dataclasses.field(default_factory=list)
    further: list[int] = dataclasses.field(default_factory=list)
    others: list[int] = dataclasses.field(default_factory=list)
    doubled: set[str] = dataclasses.field(default_factory=set)

    def take(self, other: "_Matched") -> None:
        """Adds the numbers of another."""
        self.pairs += other.pairs
        self.images += other.images
        self.texts += other.texts
        self.further += other.further
        self.others += other.others


def _by_name(names: Sequence[str], numbers: Iterable[int], text_suffix: str) -> _Matched:
    """Matches images and texts of the same name, whatever their order."""
    matched = _Matched()
    images: dict[str, int] = {}
    texts: dict[str, int] = {}
    for number in numbers:
        name = names[number]
        stem, suffix = _split(name)
        if suffix == text_suffix:
            if stem in texts:
                matched.doubled.add(_key(name))
            texts[stem] = number
        elif suffix in _RANKS:
            before = images.get(stem)
            images[stem] = number
            if before is not None:
                matched.doubled.add(_key(name))
                images[stem], further = sorted((before, number), key=lambda n: _RANKS[_split(names[n])[1]])
                matched.further.append(further)
        else:
            matched.others.append(number)
    for stem, image in images.items():
        text = texts.pop(stem, None)
        if text is None:
            matched.images.append(image)
        else:
            matched.pairs.append((image, text))
    matched.texts += texts.values()
    return matched


def _runs(names: Sequence[str], numbers: Iterable[int], keys: Container[str]) -> dict[str, list[list[int]]]:
    """For each of the keys its files, as runs of those that follow each other."""
    runs: dict[str, list[list[int]]] = {}
    last = None
    for number in numbers:
        key = _key(names[number])
        if key in keys:
            own = runs.setdefault(key, [])
            if key != last:
                own.append([])
            own[-1].append(number)
        last = key
    return runs


def _in_order(names: Sequence[str], runs: list[list[int]], what: str, suffix: str, text: str) -> _Matched:
    """Matches the files of one key within each of its examples; DataError if that cannot be told."""
    matched = _Matched()
    for run in runs:
        for example in _repeated(names, run, what, suffix, text):
            matched.take(_by_name(names, example, suffix))
    lone = {_split(names[number])[0] for number in matched.images}
    apart = [names[number] for number in matched.texts if _split(names[number])[0] in lone]
    if not apart:
        return matched
    numbers = [number for run in runs for number in run]
    if len({_split(names[number]) for number in numbers}) == len(numbers):
        return _by_name(names, numbers, suffix)
    raise DataError(f"{what} is there several times: which image has {shown(apart[0])} cannot be told")


def _repeated(
    names: Sequence[str], run: list[int], what: str, text_suffix: str, text: str
) -> list[list[int]]:
    """Splits a run into its examples: one, or as many as it repeats the same files in the same order."""
    told_apart = (text_suffix, *_RANKS)
    told = [number for number in run if _split(names[number])[1] in told_apart]
    files = [_split(names[number]) for number in told]
    length = len(set(files))
    if length == len(files):
        return [run]
    if files != files[:length] * (len(files) // length):
        stem, suffix = next(file for file in files if files.count(file) > 1)
        raise DataError(
            f"{what} has {shown(stem + suffix)} twice in a row of files: "
            f"which image has which {text} cannot be told"
        )
    others = [number for number in run if _split(names[number])[1] not in told_apart]
    return [others, *(told[start : start + length] for start in range(0, len(told), length))]


def _split(name: str) -> tuple[str, str]:
    """What comes before the last dot, and the suffix from there on, in small letters."""
    stem, dot, suffix = name.rpartition(".")
    return stem, dot + suffix.lower()


def _key(name: str) -> str:
    """WebDataset's: the folder, and the file's name up to its first dot."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _is_no_data(name: str) -> bool:
    """Whether it is hidden, what a file manager left behind, or one of WebDataset's notes on a shard."""
    first, *below = parts = name.split("/")
    if first.startswith("__") and first.endswith("__"):
        return True
    return any(is_junk(part) and part not in _NO_NAMES for part in parts) if below else is_junk(first)
