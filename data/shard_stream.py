"""An endless, resumable stream that reads shards in sequence, and mixes what it reads."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from classact.data.shard_order import Epoch, Piece, ShardRemainder
from classact.data.source import InShards, Source
from classact.data.stream import IIDStream, Stream

# Of so many examples at least the order is found at once.
_BLOCK = 4096


class ShardStream(Stream[ShardRemainder]):
    """Draws each example once an epoch, for ever: shards in a random order, mixed through a buffer.

    `shard_order` says what is drawn when. An epoch's sequence, the shards by a permutation of the
    seed and the epoch, is cut into pieces of equal length, one a reader; so two readers share a
    shard only where a piece ends, and readers never meet in an epoch. A reader reads its piece in
    sequence (`Source.load`) and gives out, of the W = `buffer` examples that it has
    reached, those whose random time has come. It holds W of them at most and W/2 on average, as
    the files have them; a source that does not keep what it loads is read at random instead.

    **Resume.** As `IIDStream`: as many readers as before go on with the same examples in the same
    order; another number is dealt what the earlier ones left, and each example still comes
    once an epoch. The buffer is not saved: what was in it follows from the cursor, and is read again,
    which reaches back W examples at most. An example that was read after the last cursor comes again,
    and nothing else does.

    **How close to IID.** An example leaves at most W places after where it lies, equally often after each.
    So a batch is spread over the shards that are in the buffers, 1 + W / (examples of a shard) of each
    reader or a little more, and not over all. Within these there is no order to be seen: after an
    example, the one that lies behind it comes next in about one of W cases (IID: of all examples).
    Where the classes of examples are spread over the shards, as shuffled shards have them, a batch is
    as good as IID. Where a shard is sorted by class, W must reach over several shards (with four,
    neighbours are of one class as often as IID ones, within 3 points of 100); where shards have
    classes of their own, the class of a shard comes in a burst whatever W is: shuffle before the
    shards are written. Between epochs all is drawn anew.

    Raises:
        ValueError: also if the source is in no shards, or cursors are of another buffer.
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
        if source.in_shards is None:
            raise ValueError(f"{source.name} is in no shards")
        self._shards: InShards = source.in_shards
        super().__init__(source, batch_size, seed, reader, num_readers, cursors)

    def _settings(self) -> dict[str, Any]:
        return {"buffer": self._shards.buffer}

    def _whole(self) -> ShardRemainder:
        return ShardRemainder(self._shards.starts, self._shards.buffer, self._seed)

    def _left(self, value: Any) -> ShardRemainder:
        return self._whole().from_json(value)

    def _share(self, epoch: int, position: int) -> "_InSequence":
        piece = self._remainder.piece(self._reader, self._num_readers, epoch)
        return _InSequence(self._source, Epoch(self._shards.starts, self._seed, epoch), piece, position)


class _InSequence:
    """What a reader reads of an epoch: finds the order in blocks, and loads in sequence what it needs."""

    def __init__(self, source: Source, epoch: Epoch, piece: Piece, position: int) -> None:
        self._source, self._epoch, self._piece = source, epoch, piece
        self._block, self._first = np.empty(0, np.int64), position
        # Of the places around where it begins, those that have not left; from then on, none has.
        self._unread, self._behind = piece.unread(position)
        self._loaded = int(self._unread[0]) if len(self._unread) else self._behind
        # Where in the sequence the shard ends that is being loaded.
        self._shard_end = 0

    def __len__(self) -> int:
        return len(self._piece)

    def __getitem__(self, part: slice) -> np.ndarray:
        """The next ones, which are loaded with all that come before them in the shards."""
        start, stop = part.start, min(part.stop, len(self))
        if not self._first <= start <= stop <= self._first + len(self._block):
            self._first = start
            self._block = self._piece.order(start, min(max(stop, start + _BLOCK), len(self)))
        own = self._block[start - self._first : stop - self._first]
        self._load(int(own.max()) + 1)
        return self._indices(own)

    def _load(self, until: int) -> None:
        """Loads what lies before a place and is not loaded."""
        if until <= self._loaded:
            return
        places = np.arange(self._loaded, until)
        if self._loaded < self._behind:
            places = places[np.isin(places, self._unread) | (places >= self._behind)]
        self._loaded = until
        self._source.load(self._indices(places))
        last = int(self._piece.places(np.array([until - 1]))[0])
        if last >= self._shard_end:
            self._shard_end = self._epoch.shard_end(last)
            following = self._piece.next_from(self._shard_end)
            if following < len(self):
                self._source.expect(int(self._indices(np.array([following]))[0]))

    def _indices(self, own: np.ndarray) -> np.ndarray:
        return self._epoch.indices(self._piece.places(own))


def make_stream(
    source: Source,
    batch_size: int,
    seed: int,
    reader: int = 0,
    num_readers: int = 1,
    cursors: Optional[Sequence[Mapping[str, Any]]] = None,
) -> Stream[Any]:
    """A stream as the source wants to be read: shard by shard, or at random; see `Stream`."""
    kind = IIDStream if source.in_shards is None else ShardStream
    return kind(source, batch_size, seed, reader, num_readers, cursors)
