"""What a learner was trained on: how much of it again, and how much of each class."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

FOLDER = "selected"
# A bit an id: above this some 128 MiB.
_LARGEST_ID = 2**30
_LABELS = ("labels", "true_labels")
_SAVED = ("examples", "seen", *_LABELS)


class Examples(Protocol):
    """What is needed of `batches.Sampled`."""

    @property
    def ids(self) -> np.ndarray:
        """int64[B], which examples."""

    @property
    def labels(self) -> np.ndarray | None:
        """int[B], their labels; None without labels."""

    @property
    def true_labels(self) -> np.ndarray | None:
        """int[B], their true labels; None if they are not known."""


class Seen:
    """A set of ids, a bit each: exact as long as all are from 0 to 2^30."""

    def __init__(self, bits: np.ndarray | None = None, complete: bool = True) -> None:
        """Begins with what an earlier `bits` gave, or with no id.

        Args:
            bits: uint8[n].
            complete: False if there were others, which are not known.
        """
        self._bits = np.zeros(1024, np.uint8) if bits is None else np.array(bits)
        self._count = int(np.bitwise_count(self._bits).sum())
        self._complete = complete

    @property
    def bits(self) -> np.ndarray:
        """A copy, uint8[n]: bit i & 7 of byte i >> 3 says whether id i is in the set."""
        return self._bits.copy()

    @property
    def count(self) -> int | None:
        """How many ids are in the set; None if it is not complete, or once an id was out of range."""
        return self._count if self._complete else None

    def add(self, ids: np.ndarray) -> float | None:
        """Adds ids, int64[B]; returns which share was there before, or earlier among them.

        None if the set is not complete, and from the first id on that is out of range.
        """
        self._complete = self._complete and bool(np.all((ids >= 0) & (ids < _LARGEST_ID)))
        if not self._complete or not len(ids):
            return None
        different = np.unique(ids)
        byte, bit = different >> 3, np.left_shift(1, different & 7).astype(np.uint8)
        if byte[-1] >= len(self._bits):
            grown = np.zeros(2 * (int(byte[-1]) + 1), np.uint8)
            grown[: len(self._bits)] = self._bits
            self._bits = grown
        new = int(np.count_nonzero(self._bits[byte] & bit == 0))
        np.bitwise_or.at(self._bits, byte, bit)
        self._count += new
        return 1.0 - new / len(ids)


class _DataSet:
    def __init__(self, saved: Mapping[str, np.ndarray], begins: bool) -> None:
        self.examples = int(saved["examples"][0]) if "examples" in saved else 0
        self.seen = Seen(saved.get("seen"), complete=begins or "seen" in saved)
        self.counts = {name: saved.get(name, np.zeros(0, np.int64)) for name in _LABELS}

    def add(self, item: Examples) -> float | None:
        self.examples += len(item.ids)
        for name in self.counts:
            labels = getattr(item, name)
            if labels is not None and len(labels):
                self._count(name, labels)
        return self.seen.add(item.ids)

    def _count(self, name: str, labels: np.ndarray) -> None:
        before = self.counts[name]
        found = np.bincount(labels, minlength=len(before))
        found[: len(before)] += before
        self.counts[name] = found


class Selected:
    """Counts what updates are made from, by data set; for the report, see `FOLDER`.

    Of a run on one host: another one would know of its own examples alone.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        class_names: Mapping[str, Sequence[str] | None],
        saved: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Begins where an earlier process was when it saved.

        Args:
            workdir: the run directory, for `write`.
            class_names: by data set, by label; None if unknown.
            saved: what `state` gave then; empty if the process was an older version's, which
                did not count; None: the run begins.
        """
        self._folder = workdir / FOLDER
        self._names = dict(class_names)
        self._data_sets = {}
        for name in class_names:
            own = {
                what: (saved or {})[f"{name}.{what}"] for what in _SAVED if f"{name}.{what}" in (saved or {})
            }
            self._data_sets[name] = _DataSet(own, begins=saved is None)

    def add(self, sub_batches: Mapping[str, Examples]) -> dict[str, float]:
        """Counts what an update was made from.

        Returns:
            By data set the share of its examples that an earlier update, or an earlier row,
            had as well; without those whose ids are out of `Seen`'s range.
        """
        shares = {name: self._data_sets[name].add(item) for name, item in sub_batches.items()}
        return {name: share for name, share in shares.items() if share is not None}

    def state(self) -> dict[str, np.ndarray]:
        """What a later process needs to go on, as arrays by "<data set>.<what>"."""
        found = {}
        for name, item in self._data_sets.items():
            found[f"{name}.examples"] = np.array([item.examples])
            if item.seen.count is not None:
                found[f"{name}.seen"] = item.seen.bits
            found |= {f"{name}.{what}": counts for what, counts in item.counts.items() if counts.size}
        return found

    def write(self, step: int) -> None:
        """Writes `selected/<data set>.json` of the run directory, whole or not at all.

        Each holds `step`, `examples` trained on until then, how many of these are `distinct`
        (null if not known), `classes` (their names, or null), and how many examples of each
        class there were by their `labels` and by their `true_labels` (null without).

        Raises:
            OSError: if the disk refuses it.
        """
        self._folder.mkdir(exist_ok=True)
        for name, item in self._data_sets.items():
            names = self._names[name]
            counts = {
                what: [int(count) for count in counts] if counts.size else None
                for what, counts in item.counts.items()
            }
            record = {
                "step": step,
                "examples": item.examples,
                "distinct": item.seen.count,
                "classes": None if names is None else list(names),
                **counts,
            }
            path = self._folder / f"{name}.json"
            unfinished = path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(record) + "\n")
            os.replace(unfinished, path)
