"""What the learner trains on: the next batch, and super-batch, of each data set."""

import collections
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from classact.nodes import activity, drawn_meanwhile, silence
from classact.nodes import mesh as mesh_lib
from classact.nodes.scoring import scoring_fields

# Longest single wait for a batch, between two looks at the stop signal.
_POLL_SECONDS = 1.0
# In so many next batches of a table is what has left it, if `replay.dataset.ReplayDataset` reads one ahead.
READ_AHEAD = 2


class Sampled(NamedTuple):
    """A sampled batch: what the models need on the device, the rest on the host.

    Attributes:
        batch: arrays on the devices of all hosts, `[B, ...]`.
        size: B.
        scored_step: int64[B / hosts], learner step of the parameters that scored each of this host's.
        corrupted: share of this host's labels or captions that a noise wrapper changed; None: unknown.
        ids: int64[B / hosts], which examples this host's are.
        labels: int[B / hosts], their labels; None without labels.
        true_labels: int[B / hosts], those before a noise wrapper changed some; None if not known.
        scores: float32[B / hosts], theirs; None if they have none.
        measured: of how they were chosen, by name as it comes after "selection/"; None: nothing.
        files: their image files, empty where pixels were carried instead; None if nobody wants them.
    """

    batch: dict[str, jax.Array]
    size: int
    scored_step: np.ndarray
    corrupted: float | None
    ids: np.ndarray
    labels: np.ndarray | None = None
    true_labels: np.ndarray | None = None
    scores: np.ndarray | None = None
    measured: Mapping[str, float] | None = None
    files: Sequence[bytes] | None = None


def ids_and_scores(
    sub_batches: Mapping[str, Sampled],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    """What an update was made from, by data set."""
    ids = {name: item.ids for name, item in sub_batches.items()}
    return ids, {name: item.scores for name, item in sub_batches.items()}


class Drawn(NamedTuple):
    """What one update is made from, by data set."""

    sub_batches: dict[str, Sampled]
    super_batches: dict[str, dict[str, jax.Array]]


def to_device(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh | None = None) -> Sampled:
    """Starts moving this host's share of a batch to its devices; used as the replay's `transfer`."""
    # The images are one array already, which is not copied; small fields lie among each other.
    needed = {name: np.ascontiguousarray(array) for name, array in device_fields(batch).items()}
    placed = mesh_lib.place(mesh, needed)
    size = len(next(iter(placed.values())))
    labels, true_labels, scores = (
        np.array(batch[name]) if name in batch else None for name in ("label", "clean_label", "score")
    )
    scored_step, ids = np.array(batch["scored_step"]), np.array(batch["id"])
    return Sampled(placed, size, scored_step, corrupted_share(batch), ids, labels, true_labels, scores)


def device_fields(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a batch that the models that are trained read."""
    return {
        name: array for name, array in scoring_fields(batch).items() if name not in ("score", "scored_step")
    }


def corrupted_share(batch: Mapping[str, np.ndarray]) -> float | None:
    """The share of a batch that a noise wrapper changed; None if the truth is unknown."""
    if "corrupted" in batch:
        return float(np.mean(batch["corrupted"]))
    if "clean_label" in batch:
        return float(np.mean(batch["label"] != batch["clean_label"]))
    return None


class Dataset(Protocol):
    """What the learner needs of `replay.dataset.ReplayDataset`."""

    def next(self, timeout: float) -> Sampled:
        """The next batch; raises TimeoutError after `timeout` seconds."""

    def remember(self, batches: int) -> None:
        """From now on `recent` gives so many batches more than it always does."""

    @property
    def first_left(self) -> int:
        """Batches of an earlier process that `next` gives before those that it draws."""

    def recent(self, batches: int) -> np.ndarray:
        """The records of the last batches that `next` gave."""

    def close(self) -> None:
        """Waits for its threads."""


class SuperBatches:
    """The IID super-batch of Algorithm 2: the last examples of the stream.

    Every update takes as many new examples as were scored for it and trains on
    the newest `size`. With a filter ratio of 1 − b/size that is exactly one fresh
    super-batch per update, as in the paper; with a smaller filter ratio each
    example is part of several super-batches.
    """

    def __init__(
        self, dataset: Dataset, size: int, mesh: jax.sharding.Mesh | None = None, updates_between: int = 1
    ) -> None:
        """Builds the window.

        Args:
            dataset: of the stream table, whose batches divide `size`.
            size: examples of a super-batch.
            mesh: the devices that the batches are on; None: one. On several the
                examples of a super-batch are in no order.
            updates_between: how many updates draw a batch after one that does not, at least: writers
                whom the stream holds back starve the learner of the other table.
        """
        self.dataset = dataset
        self._size = size
        self._concatenate = mesh_lib.concatenator(mesh)
        self._window: collections.deque[dict[str, jax.Array]] = collections.deque()
        self._held = 0
        # How many batches more than one an update are still to be drawn, and how many it was asked for since.
        self._owed = self._asked = 0
        self._updates_between = self._drew = updates_between

    def balance(self, batches: int) -> None:
        """Has so many more batches drawn than one an update, or fewer if it is negative; any thread may ask.

        Of those that are too many only the newest are trained on; where one is missing, a super-batch
        comes again, but not one after the other. Nothing is asked for while there is still something to do.
        """
        if not self._owed:
            self._asked = batches

    @property
    def kept(self) -> int:
        """Batches of the stream that are part of the next super-batch as well."""
        return len(self._window)

    def next(self, read: Callable[[Dataset], Sampled | None]) -> dict[str, jax.Array] | None:
        """Returns the next super-batch, or None when `read` does."""
        if not self._owed:
            self._owed, self._asked = self._asked, 0
        while self._held < self._size or self._owed > 0:
            sampled = read(self.dataset)
            if sampled is None:
                return None
            if self._held >= self._size:
                self._drop_oldest()
                self._owed -= 1
            self._window.append(sampled.batch)
            self._held += sampled.size
        chunks = list(self._window)
        # What is not dropped comes again with the next update, which draws nothing then.
        if self._owed < 0 and self._drew >= self._updates_between:
            self._owed, self._drew = self._owed + 1, 0
        else:
            self._drop_oldest()
            self._drew += 1
        return chunks[0] if len(chunks) == 1 else self._concatenate(chunks)

    def _drop_oldest(self) -> None:
        self._held -= len(jax.tree.leaves(self._window.popleft())[0])

    def close(self) -> None:
        """Waits for the data set's threads."""
        self.dataset.close()


class Batches:
    """Draws from all data sets, each at its own rate, and knows what it has read ahead."""

    def __init__(
        self,
        sub_batches: Mapping[str, Dataset],
        super_batches: Mapping[str, SuperBatches],
        stop: threading.Event,
        no_data_seconds: float = 300.0,
        stop_reading: threading.Event | None = None,
        opening_seconds: Callable[[str], float | None] = lambda _: None,
        ahead: int = READ_AHEAD,
    ) -> None:
        """Reads nothing yet.

        Args:
            sub_batches: prioritized batches by data set.
            super_batches: IID super-batches of those data sets that a model learns so from.
            stop: ends the waiting of `draw`.
            no_data_seconds: how long a data set may deliver nothing. The time that its
                run loops take to open it does not count, unless they do not get on for
                `opening.LIMIT_SECONDS`.
            stop_reading: ends the datasets' threads; set by `close`. Another event than
                `stop`, since a stopped learner still reads what has left the tables.
            opening_seconds: how long ago opening a data set got on, of `opening.Openings`; None: nobody does.
            ahead: in how many of the next batches of each table all is that has left it: one more
                than are read ahead.
        """
        self._ahead_of_tables = ahead
        self._sub_batches = dict(sub_batches)
        self._super_batches = self.super_batches = dict(super_batches)
        self._stop = stop
        self._no_data_seconds = no_data_seconds
        self._stop_reading = stop_reading or threading.Event()
        self._opening_seconds = opening_seconds
        # Each with how many batches its datasets had given when it was complete.
        self._ahead: collections.deque[tuple[Drawn, collections.Counter[Any]]] = collections.deque()
        self._given: collections.Counter[Any] = collections.Counter()
        self._taken: collections.Counter[Any] = collections.Counter()
        self._remembers = False
        self._kept: drawn_meanwhile.DrawnMeanwhile | None = None

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return tuple(self._sub_batches)

    def draw(self, waited: Callable[[str, float], None] = lambda *_: None) -> Drawn | None:
        """Returns what the next update is made from; None when stopped.

        Args:
            waited: told for each data set how many seconds it took.

        Raises:
            NoDataError: if a data set delivers nothing for `no_data_seconds`; it
                names the data set and what its replay says is missing.
        """
        if not self._ahead:
            drawn = self._draw(waited, None)
            if drawn is None:
                return None
            self._ahead.append((drawn, self._given.copy()))
        drawn, self._taken = self._ahead.popleft()
        if self._remembers and not self._ahead:
            self._remember(0)
        return drawn

    def keep_drawn(self) -> drawn_meanwhile.DrawnMeanwhile:
        """Begins to keep the records of all that is drawn, until enough of them are there.

        To begin with there are those of what was drawn and not yet trained on, and of a super-batch's
        window. Only the last one that was given out is told of what is drawn.
        """
        untrained = self._given - self._taken
        before = {
            (name, "examples"): dataset.recent(untrained[name, "examples"])
            for name, dataset in self._sub_batches.items()
        }
        for name, windows in self._super_batches.items():
            # The first of the super-batches that were drawn ahead begins so far back.
            before[name, "stream"] = windows.dataset.recent(len(self._ahead) + windows.kept)
        self._kept = drawn_meanwhile.DrawnMeanwhile(before)
        return self._kept

    def read_ahead(self) -> dict[drawn_meanwhile.Key, int]:
        """In how many of the next batches of each table all is that has left it by now."""
        found = {(name, "examples"): dataset.first_left for name, dataset in self._sub_batches.items()}
        for name, windows in self._super_batches.items():
            found[name, "stream"] = windows.dataset.first_left
        return {key: first + self._ahead_of_tables for key, first in found.items()}

    def draw_ahead(self, kept: drawn_meanwhile.DrawnMeanwhile, seconds: float | None = None) -> None:
        """Draws what the next updates are made from before they are asked for, until `kept` has enough.

        Args:
            kept: of `keep_drawn`, that knows how much is enough.
            seconds: how long to wait at most, stopped or not; None: as long as `draw`.

        Raises:
            NoDataError: as `draw`.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        # What is drawn now may be wanted again, if another state is saved just after this one.
        self._remember(len(self._ahead) + max(self.read_ahead().values(), default=0))
        while not kept.is_enough:
            drawn = self._draw(lambda *_: None, deadline)
            if drawn is None:
                break
            self._ahead.append((drawn, self._given.copy()))

    def _remember(self, batches: int) -> None:
        """Has the records of what is drawn kept, by so many batches of each table."""
        self._remembers = batches > 0
        for dataset in self._sub_batches.values():
            dataset.remember(batches)
        for windows in self._super_batches.values():
            windows.dataset.remember(batches)

    def close(self) -> None:
        """Ends the datasets' threads, and waits for them for some seconds."""
        self._stop_reading.set()
        for sub_batches in self._sub_batches.values():
            sub_batches.close()
        for super_batches in self._super_batches.values():
            super_batches.close()

    def _draw(self, waited: Callable[[str, float], None], deadline: float | None) -> Drawn | None:
        drawn = Drawn({}, {})
        for name, dataset in self._sub_batches.items():
            started = time.monotonic()
            sampled = self._next((name, "examples"), dataset, deadline)
            if sampled is None:
                return None
            drawn.sub_batches[name] = sampled
            if name in self._super_batches:
                read = functools.partial(self._next, (name, "stream"), deadline=deadline)
                super_batch = self._super_batches[name].next(read)
                if super_batch is None:
                    return None
                drawn.super_batches[name] = super_batch
            waited(name, time.monotonic() - started)
        return drawn

    def _next(self, key: tuple[str, str], dataset: Dataset, deadline: float | None) -> Sampled | None:
        """The next batch of a table; None when stopped, or after the deadline if there is one."""
        silent = silence.Silence(key[0], self._no_data_seconds, self._opening_seconds)
        while not (self._stop.is_set() if deadline is None else time.monotonic() > deadline):
            try:
                with activity.waiting(f"a batch of {key[0]}"):
                    sampled = dataset.next(
                        _POLL_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
                    )
            except TimeoutError as error:
                silent.goes_on(error)
            else:
                self._given[key] += 1
                if self._kept is not None:
                    self._kept.add(key, dataset.recent(1))
                    self._kept = None if self._kept.is_enough else self._kept
                return sampled
        return None
