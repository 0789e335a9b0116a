"""ArrayRecord files, read by Google's library `array_record`."""

from collections.abc import Iterator, Sequence
from typing import Any, Union

from classact.data.records.shards import Record, Shards
from classact.data.shown import shown
from classact.data.source import DataError

BAD = "a record that its library calls damaged"

# As the library's documentation says for reading at random.
_AT_RANDOM = "readahead_buffer_size:0,max_parallelism:0"
_AT_ONCE = 16


class ArrayRecords(Shards):
    """ArrayRecord files; the place of a record is its number in the file.

    Files are opened when they are first read, and stay so: the library needs about 1 MiB for each
    that is, so at most `open_files` are.

    Raises:
        DataError: if the library is not installed (`pip install classact[arrayrecord]`).
    """

    kind = "arrayrecord"
    endings = (".array_record", ".arrayrecord")
    open_files = 32

    def __init__(self) -> None:
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise DataError(
                f"data source 'arrayrecord': {error}: pip install 'classact[arrayrecord]'"
            ) from None
        self._library = array_record_module
        self._open: dict[str, Any] = {}

    def scan(self, path: str) -> Iterator[Record]:
        """See `Shards.scan`; reads the whole file."""
        try:
            # The library does not say why a file cannot be opened.
            with open(path, "rb") as file:
                file.read(1)
            reader = self._reader(path)
        except OSError as error:
            raise DataError(f"{shown(path)}: {error.strerror or error}") from error
        count = reader.num_records()
        for start in range(0, count, _AT_ONCE):
            numbers = list(range(start, min(count, start + _AT_ONCE)))
            for number, content in zip(numbers, _read(reader, numbers), strict=True):
                if isinstance(content, bytes):
                    yield Record(number, len(content), content)
                else:
                    yield Record(number, 0, None, str(content))

    def name(self, path: str, place: int) -> str:
        """See `Shards.name`."""
        return f"{shown(path)}, record {place}"

    def read(self, path: str, places: Sequence[int], sizes: Sequence[int]) -> list[Union[bytes, OSError]]:
        """See `Shards.read`; `sizes` are not needed."""
        del sizes
        return _read(self._reader(path), list(places))

    def _reader(self, path: str) -> Any:
        reader = self._open.pop(path, None)
        if reader is None:
            reader = self._library.ArrayRecordReader(path, _AT_RANDOM)
            if not reader.ok():
                raise OSError("no ArrayRecord file, or one that is cut off: it lacks its index")
            while len(self._open) >= self.open_files:
                self._open.pop(next(iter(self._open))).close()
        # The one that was used last is at the end.
        self._open[path] = reader
        return reader


def _read(reader: Any, numbers: list[int]) -> list[Union[bytes, OSError]]:
    try:
        return list(reader.read(numbers))
    except (RuntimeError, IndexError, ValueError) as error:
        if len(numbers) == 1:
            damaged = OSError(BAD)
            damaged.__cause__ = error
            return [damaged]
    # It does not say which of them it was.
    return [each for number in numbers for each in _read(reader, [number])]
