"""What a source holds: how often each class comes, how long captions are, what its images are."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from classact.data.samples import evenly
from classact.data.shown import shown
from classact.data.source import Source

# Of longer ones, so many captions say how long they are.
_CAPTIONS = 10_000
# Of what is read shard by shard, images are decoded of so many, unless these have too few.
_SHARDS = 4


@dataclasses.dataclass(frozen=True)
class Spread:
    """How some counts are spread.

    Attributes:
        least: the smallest.
        median: half of them are at most this.
        most: the greatest.
    """

    least: int
    median: int
    most: int

    @classmethod
    def of(cls, counts: Sequence[int] | np.ndarray) -> "Spread":
        """The spread of counts, at least one."""
        ordered = np.sort(np.asarray(counts))
        return cls(int(ordered[0]), int(ordered[(len(ordered) - 1) // 2]), int(ordered[-1]))

    def __str__(self) -> str:
        if self.least == self.most:
            return f"{self.most:,}"
        return f"{self.least:,} to {self.most:,}, median {self.median:,}"


@dataclasses.dataclass(frozen=True)
class Captions:
    """How long captions are.

    Attributes:
        read: how many were read to see it.
        different: how many texts there are among these.
        words: of these, between white space.
        characters: of these.
    """

    read: int
    different: int
    words: Spread
    characters: Spread


@dataclasses.dataclass(frozen=True)
class Inspected:
    """What a source holds.

    Attributes:
        name: its spec.
        split: the part that was opened, "train" or "eval".
        has_splits: whether the other part holds other examples.
        examples: how many there are.
        images: of how many images; for labelled ones as many.
        image_shape: (H, W, C) in pixels, as models take them.
        sizes: of the files that were opened, how many have a size, by "W×H" in pixels.
        classes: how many examples a class has, by name, the most frequent first; None: not known.
        counted: how many examples these counts are of; fewer than all where labels must be read.
        captions: how long they are; None without captions.
        left_out: (reason, how many, the first names) of what was left out when it was opened.
        remarks: what else was found.
        read: how many images were decoded to see whether they are damaged.
        shards: of what is read shard by shard, how many shards with examples there are; otherwise 0.
        read_shards: of how many of these the decoded images are.
        damaged: how many of all that were opened or decoded are damaged, by what they are instead.
        accepted_damage: the share that may be.
        digest: what changes when the data do; empty: not known.
    """

    name: str
    split: str
    has_splits: bool
    examples: int
    images: int
    image_shape: tuple[int, int, int]
    sizes: Mapping[str, int]
    classes: Optional[Mapping[str, int]]
    counted: int
    captions: Optional[Captions]
    left_out: Sequence[tuple[str, int, Sequence[str]]]
    remarks: Sequence[str]
    read: int
    shards: int
    read_shards: int
    damaged: Mapping[str, int]
    accepted_damage: float
    digest: str

    def as_json(self) -> dict[str, Any]:
        """As a JSON object has it."""
        return {**dataclasses.asdict(self), "image_shape": list(self.image_shape)}


@dataclasses.dataclass(frozen=True)
class Picture:
    """An example as a gallery shows it.

    Attributes:
        image: uint8[H, W, C].
        text: its caption, or the name of its class.
        number: its id.
    """

    image: np.ndarray
    text: str
    number: int


def inspect(source: Source, split: str, read: int, shown_pictures: int) -> tuple[Inspected, list[Picture]]:
    """Looks at a source, and decodes some of its images: evenly over all, or the first ones of a few shards.

    Each shard of what is far away would have to be fetched; those of a few are evenly over all shards.

    Args:
        source: the source, as it was opened.
        split: the part that was opened, for the account.
        read: how many examples to read.
        shown_pictures: how many of these to return.

    Returns:
        The account, and pictures evenly over those that were read.

    Raises:
        DataError: if too many images are damaged, or one has another shape than the others.
    """
    starts = source.fetched_whole if source.in_shards is None else source.in_shards.starts
    numbers = evenly(source.num_examples, read) if starts is None else _of_a_few(starts, read)
    shards = np.empty(0) if starts is None else np.searchsorted(starts, numbers, side="right")
    wanted = set(numbers[evenly(len(numbers), shown_pictures)].tolist())
    labels, pictures = Counter[int](), list[Picture]()
    for start in range(0, len(numbers), 64):
        rows = numbers[start : start + 64]
        batch = source.batch(rows)
        if "label" in batch:
            labels.update(batch["label"].tolist())
        # A source may leave out rows.
        kept = rows[np.isin(source.ids(rows), batch["id"])]
        for row, number in enumerate(kept.tolist()):
            if number in wanted:
                pictures.append(
                    Picture(batch["image"][row], _text(source, batch, row), int(batch["id"][row]))
                )
    if source.label_of is not None:
        labels = Counter(np.asarray(source.label_of).tolist())
    images = source.num_examples if source.image_of is None else len(np.unique(source.image_of))
    found = Inspected(
        name=source.name,
        split=split,
        has_splits=source.has_splits,
        examples=source.num_examples,
        images=images,
        image_shape=tuple(map(int, source.image_shape)),  # type: ignore[arg-type]
        sizes={f"{width}×{height}": count for (width, height), count in source.sizes.most_common()},
        classes=_classes(source, labels) if source.num_classes else None,
        counted=sum(labels.values()),
        captions=caption_lengths(source) if source.captioned else None,
        left_out=list(source.left_out),
        remarks=list(source.left_out.remarks),
        read=len(numbers),
        shards=0 if starts is None else int(np.count_nonzero(np.diff(starts))),
        read_shards=len(np.unique(shards)),
        damaged=dict(source.damage.most_common()),
        accepted_damage=source.accepted_damage,
        digest=source.digest,
    )
    return found, pictures


def caption_lengths(source: Source) -> Captions:
    """How long captions are, by 10,000 of them evenly over all; reads no image where captions are known."""
    texts = source.caption_at(evenly(source.num_examples, _CAPTIONS))
    words = Spread.of([len(text.split()) for text in texts])
    return Captions(len(texts), len(set(texts)), words, Spread.of([len(text) for text in texts]))


def in_short(source: Source) -> list[str]:
    """What a run says of its images and classes before it starts, as far as it is known without reading."""
    lines = []
    if source.label_of is not None and source.num_classes > 1:
        counts = np.bincount(np.asarray(source.label_of), minlength=source.num_classes)
        empty = int((counts == 0).sum())
        lines.append(
            f"images a class: {Spread.of(counts)}" + (f"; {empty:,} classes have none" if empty else "")
        )
    height, width, _ = source.image_shape
    if set(source.sizes) - {(width, height)}:
        (w, h), often = source.sizes.most_common(1)[0]
        total = sum(source.sizes.values())
        several = f"{len(source.sizes):,} sizes, most often {w}×{h}" if len(source.sizes) > 1 else f"{w}×{h}"
        lines.append(f"resized from {several}: {often:,} of {total:,} files that were opened")
    return lines


def _classes(source: Source, labels: Counter[int]) -> dict[str, int]:
    numbers = range(source.num_classes)
    names = [shown(name) for name in source.class_names] if source.class_names else list(map(str, numbers))
    if len(set(names)) < len(names):
        names = [f"{name} (class {number})" for number, name in enumerate(names)]
    order = sorted(numbers, key=lambda number: (-labels[number], number))
    return {names[number]: labels[number] for number in order}


def _text(source: Source, batch: Mapping[str, np.ndarray], row: int) -> str:
    if "caption" in batch:
        return str(batch["caption"][row])
    label = int(batch["label"][row])
    return shown(str(source.class_names[label])) if source.class_names else f"class {label}"


def _of_a_few(starts: np.ndarray, most: int) -> np.ndarray:
    """int64[M], rising: at most so many examples, the first of 4 shards, or of more if these are small."""
    sizes = np.diff(starts)
    filled = np.flatnonzero(sizes)
    count = _SHARDS
    while sizes[chosen := filled[evenly(len(filled), count)]].sum() < most and count < len(filled):
        count *= 2
    numbers = list[np.ndarray]()
    # What a small one lacks, larger ones give.
    for left, shard in enumerate(chosen[np.argsort(sizes[chosen], kind="stable")]):
        own = min(int(sizes[shard]), -(-most // (len(chosen) - left)))
        most -= own
        numbers.append(starts[shard] + np.arange(own))
    return np.sort(np.concatenate(numbers))
