"""Numbered sub-batches between a selector and a trainer: who has been given which, and what is kept."""

import contextlib
import itertools
import logging
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from classact.client import protocol
from classact.client.protocol import Values
from classact.nodes import activity

# Longest single wait, between two looks at the stop signal.
_POLL_SECONDS = 0.5
# For who has been given the last sub-batch, and may be gone, to hear that it was the last.
_FAREWELL_SECONDS = 5.0
_NAME = re.compile(r"(\d{12})\.batch")
_MAGIC = b"classact sub-batch 1\n"

# The arrays of a sub-batch, by "<data set>/<field>".
SubBatch = Mapping[str, Values]


class Consumer(NamedTuple):
    """A rank of several, and a worker of several of it."""

    rank: int
    world: int
    worker: int
    workers: int


class Shelf:
    """Keeps sub-batches, in a folder, until all consumers have them and need them no more.

    Each is a file of its own from the moment on at which it is put here, so that also a process which is
    killed leaves all that its trainer may still ask for. Any number of threads may use it.

    The floor is the first sub-batch that some consumer has not been given. At most `ahead` sub-batches are
    here from it on: then whoever puts them here waits. Of those below the floor `kept` stay, for a trainer
    that goes back to a state of its own; those below what all ranks have confirmed do not.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        ahead: int,
        kept: int,
        stop: threading.Event,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Finds what an earlier process has left in the folder.

        Args:
            folder: made if it is not there.
            ahead: at least 1.
            kept: at least 0.
            stop: ends all waiting.
            changed: called, in any thread, when there is more to give.

        Raises:
            OSError: if the folder cannot be made or read.
        """
        self._folder, self._ahead, self._kept, self._stop = folder, ahead, kept, stop
        self.changed = changed
        self._condition = threading.Condition()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in folder.glob(".*.tmp"):
            unfinished.unlink(missing_ok=True)
        self._memory: dict[int, SubBatch] = {}
        self._there, self._base = _found(folder)
        self._next = max(self._there, default=-1) + 1
        self._ended = False
        # How many ranks and workers there are; None: nobody has come yet.
        self._group: tuple[int, int] | None = None
        # By rank and worker: the number that it needs next, and in which session it has said so;
        self._needs: dict[tuple[int, int], int] = {}
        self._sessions: dict[tuple[int, int], str] = {}
        # and by rank below which it needs none.
        self._confirmed: dict[int, int] = {}
        self._waited = 0.0

    def put(self, sub_batch: SubBatch) -> int:
        """Takes the next sub-batch; returns its number.

        Raises:
            OSError: if the disk refuses it.
        """
        with self._condition:
            number, floor = self._next, self._floor()
        _write(self._folder / _name(number), sub_batch, floor)
        with self._condition:
            self._memory[number] = sub_batch
            self._there.add(number)
            self._next = number + 1
            self._forget()
        self.changed()
        return number

    def wait_for_room(self) -> bool:
        """Waits until one more may be put here; False if stopped before. Blocks as long as trainers do."""
        started = time.monotonic()
        with activity.waiting("a trainer to take sub-batches"), self._condition:
            while self._next - self._floor() >= self._ahead and not self._stop.is_set():
                self._condition.wait(_POLL_SECONDS)
            self._waited += time.monotonic() - started
        return not self._stop.is_set()

    def end(self) -> bool:
        """Says that no more will come, and waits until all have been given; False if stopped before."""
        with self._condition:
            self._ended = True
        self.changed()
        with activity.waiting("a trainer to take the last sub-batches"), self._condition:
            while self._floor() < self._next and not self._stop.is_set():
                self._condition.wait(_POLL_SECONDS)
            if not self._stop.is_set():
                self._condition.wait_for(lambda: self._floor() > self._next, _FAREWELL_SECONDS)
            return self._floor() >= self._next

    def clear(self) -> None:
        """Removes all sub-batches from the disk; for a run that is completed."""
        for path in self._folder.glob("*.batch"):
            path.unlink(missing_ok=True)

    def begin(self, consumer: Consumer, wanted: int | None, session: str) -> int:
        """A consumer begins to read; returns the number that it gets next.

        Args:
            consumer: which; one of other ranks or workers than before begins a new group, which all of
                its consumers have to join.
            wanted: where it goes on; None: after what it was given.
            session: it goes on after what it was given, if this is the one in which it was; empty: it
                only asks.
        """
        with self._condition:
            key = consumer.rank, consumer.worker
            known = self._needs.get(key) if self._group == consumer[1::2] else None
            if not session:
                asked = known if wanted is None else wanted
                return self._floor() if asked is None else asked
            self._join(consumer)
            if wanted is None or (known is not None and self._sessions.get(key) == session):
                wanted = known
            found = self._base if wanted is None else wanted
            self._needs[key], self._sessions[key] = found, session
            self._condition.notify_all()
            return found

    def given(self, consumer: Consumer, number: int) -> None:
        """A consumer has been given a sub-batch, or told that there is no such any more."""
        with self._condition:
            if self._group is None:
                # Of a trainer that goes on with a selector that was started again.
                self._join(consumer)
            elif self._group != (consumer.world, consumer.workers):
                # A reader of the trainer before, whose process still ends.
                return
            key = consumer.rank, consumer.worker
            self._needs[key] = max(self._needs.get(key, 0), number + consumer.workers)
            self._forget()
            self._condition.notify_all()

    def confirm(self, rank: int, number: int) -> None:
        """A rank needs nothing below a number any more."""
        with self._condition:
            self._confirmed[rank] = max(number, self._confirmed.get(rank, 0))
            self._forget()

    @property
    def number(self) -> int:
        """Of the sub-batch that is put here next."""
        with self._condition:
            return self._next

    def has_ended_before(self, number: int) -> bool:
        """Whether there will be no sub-batch of that number."""
        with self._condition:
            return self._ended and number >= self._next

    def oldest(self) -> int:
        """The first that is kept."""
        with self._condition:
            return min(self._there, default=self._next)

    def get(self, number: int) -> SubBatch | None:
        """A sub-batch; None if it is not there yet, or any more. May read it from the disk."""
        with self._condition:
            if number not in self._there:
                return None
            found = self._memory.get(number)
        if found is not None:
            return found
        try:
            return _read(self._folder / _name(number))[0]
        except (OSError, protocol.ProtocolError) as error:
            logging.warning("sub-batch %d is lost: %s", number, error)
            with self._condition:
                self._there.discard(number)
            return None

    def counts(self) -> dict[str, float]:
        """Metrics: how many were put here and are kept, for how long who puts them here has waited since."""
        with self._condition:
            waited, self._waited = self._waited, 0.0
            return {
                "serve/handed": float(self._next),
                "serve/taken": float(min(self._floor(), self._next)),
                "serve/kept": float(len(self._there)),
                "serve/trainer_wait_seconds": waited,
                "serve/readers": float(len(self._needs)),
            }

    def _join(self, consumer: Consumer) -> None:
        group = consumer.world, consumer.workers
        if group == self._group:
            return
        if self._group is not None:
            logging.info("a trainer with %d ranks of %d readers takes over", *group)
        self._base = min(self._floor(), self._next)
        self._group = group
        self._needs, self._sessions, self._confirmed = {}, {}, {}
        self._condition.notify_all()

    def _floor(self) -> int:
        if self._group is None:
            return self._base
        world, workers = self._group
        least = min(self._needs.values(), default=self._base)
        # One that has not come yet has been given nothing since the group began.
        return min(least, self._base) if len(self._needs) < world * workers else least

    def _forget(self) -> None:
        """Removes what nobody needs; the caller holds the lock."""
        floor = min(self._floor(), self._next)
        for number in [number for number in self._memory if number < floor]:
            del self._memory[number]
        world = self._group[0] if self._group is not None else 0
        confirmed = min(self._confirmed.values()) if world and len(self._confirmed) == world else 0
        limit = min(floor, max(floor - self._kept, confirmed))
        # The newest one tells a later process where the numbers go on.
        for number in [number for number in self._there if number < limit and number != self._next - 1]:
            self._there.discard(number)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._folder / _name(number))


def rows(sub_batch: SubBatch, rank: int, world: int) -> SubBatch:
    """A rank's part of a sub-batch: of b rows those from rank · b // world on; of each data set by itself."""
    found: dict[str, Values] = {}
    for name, values in sub_batch.items():
        size = len(values)
        found[name] = values[rank * size // world : (rank + 1) * size // world]
    return found


def _name(number: int) -> str:
    return f"{number:012d}.batch"


def _found(folder: pathlib.Path) -> tuple[set[int], int]:
    """The numbers in a folder that can be read, and the floor when the last of them was written."""
    numbers = sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
    floor = numbers[0] if numbers else 0
    there = set()
    for number in numbers:
        path = folder / _name(number)
        try:
            floor = _read(path)[1]
        except (OSError, protocol.ProtocolError) as error:
            # As a machine may leave it that lost its power.
            logging.warning("%s is left out: %s", path, error)
            path.unlink(missing_ok=True)
            continue
        there.add(number)
    return there, max(floor, min(there, default=0))


def _write(path: pathlib.Path, sub_batch: SubBatch, floor: int) -> None:
    frames = protocol.pack({"kind": "kept", "floor": floor}, sub_batch)
    sizes = np.array([len(frame) for frame in frames], "<i8")
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.writelines([_MAGIC, len(frames).to_bytes(8, "little"), sizes.tobytes(), *frames])
    os.replace(temporary, path)


def _read(path: pathlib.Path) -> tuple[SubBatch, int]:
    content = path.read_bytes()
    start = len(_MAGIC) + 8
    count = int.from_bytes(content[len(_MAGIC) : start], "little")
    if not content.startswith(_MAGIC) or start + 8 * count > len(content):
        raise protocol.ProtocolError("no sub-batch, or a part of one")
    ends = start + 8 * count + np.cumsum(np.frombuffer(content, "<i8", count, start))
    limits = [start + 8 * count, *ends.tolist()]
    if limits[-1] != len(content):
        raise protocol.ProtocolError("a part of a sub-batch")
    view = memoryview(content)
    frames = [view[a:b] for a, b in itertools.pairwise(limits)]
    header, arrays = protocol.unpack(frames)
    return arrays, int(header.get("floor", 0))
