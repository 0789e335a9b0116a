"""Endless, resumable streams of batches over a source: what all have in common, and that of IID batches."""

import abc
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from classact.data import epoch_order, seeds
from classact.data.damage import most_damaged_of_share
from classact.data.shares import Remainder, Share, Unread
from classact.data.source import Batch, DataError, Source
from classact.data.views import begin_epoch

# A stream of which so many whole shares in a row are left out is of no use.
_MAX_FRUITLESS_EPOCHS = 100


class Stream[Left: Unread](Iterator[Batch], abc.ABC):
    """Draws batches for ever from a source that several readers share, and knows where it is.

    In what order is the business of `IIDStream` and of `shard_stream.ShardStream`. A batch may
    straddle two epochs. Damaged examples that the source leaves out are made up for by the
    following ones.

    A stream goes on from the last cursors of its readers. As many readers as
    before continue each from its own. Another number of readers is a new
    generation: what all the earlier ones left unread of the epochs they had begun
    is dealt out among the new ones, epoch by epoch in the order in which it would have
    come, and then whole epochs follow. Each reader finds this from the cursors alone. An
    example that was read after the last cursor is read again.

    `next` reads in the calling thread and blocks as long as the source does. A stream isn't safe to
    share between threads.

    Args:
        source: what to read.
        batch_size: rows per batch.
        seed: of the order.
        reader: which reader this is, 0 to num_readers − 1.
        num_readers: how many split the stream.
        cursors: where to go on: the last of every reader of the newest generation
            that has given one (`newest_cursors` finds them), from streams of the
            same source and seed; the batch size may differ. A reader without one
            has read nothing in its generation. None or empty: at the start.

    Raises:
        ValueError: for a bad argument, or cursors of another stream, or of readers
            that don't belong together.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        reader: int = 0,
        num_readers: int = 1,
        cursors: Optional[Sequence[Mapping[str, Any]]] = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: expected at least 1")
        if not 1 <= num_readers <= source.num_examples:
            raise ValueError(
                f"num_readers={num_readers}: "
                f"expected 1 to {source.num_examples}, the examples of {source.name}"
            )
        if not 0 <= reader < num_readers:
            raise ValueError(
                f"reader={reader}: expected 0 to {num_readers - 1}, as num_readers={num_readers}"
            )
        self._source = source
        self._batch_size = batch_size
        self._seed = seeds.checked(seed)
        self._reader = reader
        self._num_readers = num_readers
        self._generation = 0
        self._remainder = self._whole()
        own = self._continue(cursors) if cursors else None
        if own is None:
            own = {"epoch": self._remainder.epoch, "position": 0, "skipped": 0}
        self._epoch, self._position, self._skipped = own["epoch"], own["position"], own["skipped"]
        self._order = self._share(self._epoch, self._position)
        self._most_skipped = most_damaged_of_share(
            self._whole_share, source.num_examples, source.most_of_an_image, source.accepted_damage
        )
        self._skipped_in_a_row = 0

    def __next__(self) -> Batch:
        """Returns the next batch: every field of the source with exactly `batch_size` rows.

        Raises:
            DataError: if the source raises it, or if it left out more of an epoch's
                share than `damage` accepts.
        """
        parts: list[Batch] = []
        missing = self._batch_size
        while missing:
            part = self._read(missing)
            rows = len(part["id"])
            if rows:
                parts.append(part)
                missing -= rows
        if len(parts) == 1:
            return parts[0]
        return {field: np.concatenate([part[field] for part in parts]) for field in parts[0]}

    @property
    def epoch(self) -> float:
        """How many times the stream has been through its share; fractional.

        What earlier generations read of an epoch counts as read.
        """
        unread = len(self._order) - self._position
        return self._epoch + (self._whole_share - unread) / self._whole_share

    @property
    def cursor(self) -> dict[str, Any]:
        """Where the stream is, JSON-able; valid between two calls of `next`.

        "remainder" is what its generation began with, the same for all readers of it
        and from beginning to end; `shares.Remainder` and `shard_order.ShardRemainder` say
        how long it can be.
        """
        return {
            **self._settings(),
            "seed": self._seed,
            "reader": self._reader,
            "num_readers": self._num_readers,
            "num_examples": self._source.num_examples,
            "generation": self._generation,
            "remainder": self._remainder.as_json(),
            "epoch": self._epoch,
            "position": self._position,
            "skipped": self._skipped,
        }

    @property
    def _whole_share(self) -> int:
        """How many examples of an epoch this reader reads if nobody has before."""
        return self._whole().share(self._reader, self._num_readers, 0)

    def _read(self, rows: int) -> Batch:
        """Reads up to `rows` examples of the current epoch."""
        # Of an epoch begun by others, nothing may be left for this reader.
        while self._position == len(self._order):
            self._epoch, self._position, self._skipped = self._epoch + 1, 0, 0
            self._order = self._share(self._epoch, 0)
        indices = self._order[self._position : self._position + rows]
        begin_epoch(self._source, self._epoch)
        part = self._source.batch(indices)
        self._position += len(indices)
        skipped = len(indices) - len(part["id"])
        self._skipped += skipped
        self._skipped_in_a_row = 0 if len(part["id"]) else self._skipped_in_a_row + skipped
        # What is left of a share that was begun by others may have as many as a whole one.
        if self._skipped > self._most_skipped:
            raise DataError(
                f"{self._source.name}: {self._skipped} of {self._position} examples of epoch "
                f"{self._epoch} are damaged, expected at most {int(self._most_skipped)} of an epoch"
            )
        # A share can be so small that all of it is accepted.
        if self._skipped_in_a_row > _MAX_FRUITLESS_EPOCHS * self._whole_share:
            raise DataError(f"{self._source.name}: all examples of reader {self._reader} are damaged")
        return part

    @abc.abstractmethod
    def _share(self, epoch: int, position: int) -> Share:
        """What this reader reads of an epoch, of which it has read the first `position`."""

    @abc.abstractmethod
    def _whole(self) -> Left:
        """What is left where nobody has read anything."""

    @abc.abstractmethod
    def _left(self, value: Any) -> Left:
        """What is left, from a cursor's "remainder"; ValueError if that is none."""

    def _settings(self) -> dict[str, Any]:
        """What cursors have besides, of which the order follows."""
        return {}

    def _adopt(self, cursor: Mapping[str, Any]) -> None:
        """Takes over what a cursor, on which this stream goes on, says of the order."""

    def _continue(self, cursors: Sequence[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
        """Takes over, or begins, the generation; returns this reader's own cursor if it has one."""
        own = {"seed": self._seed, "num_examples": self._source.num_examples, **self._settings()}
        for field in ("seed", "num_examples", "buffer"):
            value = own.get(field)
            for cursor in cursors:
                if cursor.get(field) != value:
                    raise ValueError(
                        f"cursor has {field}={cursor.get(field)}, but the stream over {self._source.name} "
                        f"has {value}: a stream can only be continued with the same source, order and seed"
                    )
        _check_together(cursors)
        of_reader = {cursor["reader"]: cursor for cursor in cursors}
        if len(of_reader) < len(cursors):
            raise ValueError(
                f"cursors have reader={[cursor['reader'] for cursor in cursors]}: expected one a reader"
            )
        self._adopt(cursors[0])
        generation, num_readers = cursors[0]["generation"], cursors[0]["num_readers"]
        remainder = self._left(cursors[0].get("remainder"))
        for cursor in cursors:
            _check_place(cursor, remainder)
        if num_readers == self._num_readers:
            self._generation, self._remainder = generation, remainder
            return of_reader.get(self._reader)
        start = {"epoch": remainder.epoch, "position": 0}
        ends = (of_reader.get(reader, start) for reader in range(num_readers))
        self._generation = generation + 1
        self._remainder = remainder.after([(end["epoch"], end["position"]) for end in ends])
        return None


class IIDStream(Stream[Remainder]):
    """Draws batches without replacement within an epoch, reshuffled each epoch, for ever.

    Every reader of a seed knows each epoch's permutation, and takes every
    `num_readers`-th example of it: readers never meet in an epoch, and together
    they read all of it. Another number of readers deals out what is left in the order of
    the permutation; see `shares`.

    Of a source of up to `epoch_order.MOST_IN_MEMORY` examples the stream holds 8 bytes per
    example of its share (`epoch_order.ShuffledOrder` says what it takes to shuffle); of a
    larger one it computes the permutation as it goes and holds nothing, unless it goes on from
    cursors of a version that did not.
    """

    @functools.cached_property
    def _order_name(self) -> str | None:
        large = self._source.num_examples > epoch_order.MOST_IN_MEMORY
        return epoch_order.COMPUTED if large else epoch_order.SHUFFLED

    def _adopt(self, cursor: Mapping[str, Any]) -> None:
        self._order_name = cursor.get("order", epoch_order.SHUFFLED)

    def _settings(self) -> dict[str, Any]:
        return {"order": self._order_name} if self._order_name else {}

    def _whole(self) -> Remainder:
        return Remainder(self._source.num_examples)

    def _left(self, value: Any) -> Remainder:
        return Remainder.from_json(self._source.num_examples, value)

    def _share(self, epoch: int, position: int) -> Share:
        """What this reader reads of an epoch, in order."""
        del position
        computed = self._order_name == epoch_order.COMPUTED
        order = epoch_order.ComputedOrder if computed else epoch_order.ShuffledOrder
        return order(self._seed, epoch, self._remainder, self._reader, self._num_readers)


def newest_cursors(cursors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Picks, from cursors of one stream, those from which it goes on.

    These are the ones of the newest generation: it began with all that the older ones
    left, so theirs are stale, even those of readers that it doesn't have. A reader of it
    without a cursor has read nothing yet, and what its generation began with is in the
    others' cursors.

    Args:
        cursors: of any readers and generations, in any order.

    Returns:
        At most one for each reader, the furthest, by reader.

    Raises:
        ValueError: if they are of different streams, or those of the newest generation
            don't belong together: the stream was continued twice from the same place,
            with different numbers of readers.
    """
    found = [dict(cursor) for cursor in cursors]
    _check_equal(found, ("seed", "num_examples", "order"))
    for cursor in found:
        _check_number(cursor, "generation", 0)
    newest = max((cursor["generation"] for cursor in found), default=0)
    found = [cursor for cursor in found if cursor["generation"] == newest]
    _check_together(found)
    found.sort(key=lambda cursor: (cursor["epoch"], cursor["position"]))
    furthest = {cursor["reader"]: cursor for cursor in found}
    return [furthest[reader] for reader in sorted(furthest)]


def _check_together(cursors: Sequence[Mapping[str, Any]]) -> None:
    """Raises a ValueError unless the cursors may be of one set of readers."""
    _check_equal(cursors, ("generation", "num_readers", "remainder", "order"))
    for cursor in cursors:
        if cursor.get("order", epoch_order.SHUFFLED) not in (epoch_order.SHUFFLED, epoch_order.COMPUTED):
            raise ValueError(f"cursor has order={cursor['order']}: of a newer version")
        _check_number(cursor, "generation", 0)
        _check_number(cursor, "num_examples", 1)
        _check_number(cursor, "num_readers", 1, cursor["num_examples"])
        _check_number(cursor, "reader", 0, cursor["num_readers"] - 1)
        _check_number(cursor, "epoch", 0)
        _check_number(cursor, "position", 0)


def _check_place(cursor: Mapping[str, Any], remainder: Unread) -> None:
    """Raises a ValueError unless the cursor's reader can be where it says."""
    _check_number(cursor, "epoch", remainder.epoch)
    share = remainder.share(cursor["reader"], cursor["num_readers"], cursor["epoch"])
    _check_number(cursor, "position", 0, share)
    _check_number(cursor, "skipped", 0, cursor["position"])


def _check_equal(cursors: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> None:
    for field in fields:
        for cursor in cursors:
            if cursor.get(field) != cursors[0].get(field):
                raise ValueError(
                    f"cursors have {field}={cursors[0].get(field)} and {field}={cursor.get(field)}: "
                    "expected those of one set of readers"
                )


def _check_number(cursor: Mapping[str, Any], field: str, least: int, most: Optional[int] = None) -> None:
    value = cursor.get(field)
    if not isinstance(value, int) or value < least or (most is not None and value > most):
        raise ValueError(f"cursor has {field}={value}: not what a stream's cursor gives")
