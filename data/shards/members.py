"""The images in shards by number, some with their bytes, which were read ahead."""

import io
import itertools
from collections.abc import Sequence
from typing import BinaryIO, Optional, overload

import numpy as np

from classact.data.shards.index_file import Index
from classact.data.shards.storage import Shard
from classact.data.shown import shown


class ShardMember:
    """An image in a shard; `str` is its name as a person finds it."""

    def __init__(self, shard: Shard, name: str, offset: int, size: int, content: Optional[bytes]) -> None:
        self._shard, self._name, self._offset, self._size = shard, name, offset, size
        self._content = content

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The image's bytes; OSError if they are no longer all there."""
        del mode
        content = self._content
        if content is None:
            with self._shard.open() as file:
                file.seek(self._offset)
                content = file.read(self._size)
            if len(content) != self._size:
                raise OSError(f"only {len(content)} of {self._size} bytes are left")
        return io.BytesIO(content)

    def __str__(self) -> str:
        return shown(f"{self._shard}:{self._name}")


class Members(Sequence[ShardMember]):
    """The images of an index, by number; some with their bytes, which were read ahead."""

    def __init__(self, index: Index, shards: Sequence[Shard]) -> None:
        self._index = index
        self._shards = shards
        self._starts = np.array(index.summary.image_starts)
        # The shard that was loaded from last: what is open stays where it was fetched to.
        self._open: Optional[tuple[int, BinaryIO]] = None
        # By image its bytes, and how often they will be asked for.
        self._held: dict[int, tuple[bytes, int]] = {}

    def __len__(self) -> int:
        return self._index.num_images

    @overload
    def __getitem__(self, number: int) -> ShardMember: ...
    @overload
    def __getitem__(self, number: slice) -> list[ShardMember]: ...
    def __getitem__(self, number: int | slice) -> ShardMember | list[ShardMember]:
        """An image."""
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        offset, size, name = self._index.place(number)
        content = self._held.get(number, (None, 0))[0]
        return ShardMember(self.shard_of(number), name, offset, size, content)

    def shard_of(self, image: int) -> Shard:
        """The shard that an image is in."""
        return self._shards[int(np.searchsorted(self._starts, image, side="right")) - 1]

    def load(self, images: Sequence[int]) -> None:
        """Reads images one after another, as they come, and keeps their bytes until `release`.

        One that cannot be read is not kept: it is asked for again when it is decoded, and
        then is damaged, or an error of the shard.
        """
        numbers = np.searchsorted(self._starts, images, side="right") - 1
        for number, own in itertools.groupby(
            zip(numbers.tolist(), images, strict=True), lambda each: each[0]
        ):
            file = self._file(number)
            for _, image in own:
                content, count = self._held.get(image) or (self._read(file, image), 0)
                if content is not None:
                    self._held[image] = content, count + 1

    def load_far(self, images: Sequence[int]) -> None:
        """Loads those that are neither held nor on a disk, shard after shard, and blocks meanwhile.

        Were each opened where it is decoded, many shards would be fetched at once.
        """
        far = (each for each in images if each not in self._held and not self.shard_of(each).is_local)
        self.load(sorted(far))

    def _file(self, number: int) -> BinaryIO:
        """A shard, open until another one is."""
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                self._open[1].close()
                self._open = None
            self._open = number, self._shards[number].open()
        return self._open[1]

    def _read(self, file: BinaryIO, image: int) -> Optional[bytes]:
        """An image's bytes; None if they are not all there."""
        offset, size, _ = self._index.place(image)
        file.seek(offset)
        content = file.read(size)
        return content if len(content) == size else None

    def release(self, images: Sequence[int]) -> None:
        """Forgets bytes as often as they were loaded."""
        for image in images:
            content, count = self._held.pop(image, (b"", 0))
            if count > 1:
                self._held[image] = content, count - 1
