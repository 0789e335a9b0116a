"""Reader of IDX files, the format of the MNIST family."""

import math
import pathlib
import struct
import sys
import zlib

import numpy as np

from classact.data.source import DataError

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST_HEADER = 4 + 4 * 255


def read_idx(path: pathlib.Path) -> np.ndarray:
    """Reads one IDX file, gzipped or not; never more of it than its header describes.

    Args:
        path: the file.

    Returns:
        The array it holds, in the machine's byte order; writable.

    Raises:
        DataError: if the file is missing, unreadable, truncated, has more bytes
            than its header says, or is no IDX file. It names the file and, for a
            truncated one, the first example that is not there.
    """
    data = _read_bytes(path)
    dtype, shape, header = _parse_header(path, data)
    expected = header + math.prod(shape) * dtype.itemsize
    if len(data) < expected:
        row = math.prod(shape[1:]) * dtype.itemsize
        raise DataError(
            f"{path}: truncated inside example {(len(data) - header) // row} of {shape[0]}: "
            f"{len(data)} bytes, expected {expected}"
        )
    if len(data) > expected:
        raise DataError(f"{path}: more than the {expected} bytes that its header {shape} describes")
    return np.frombuffer(data, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))


def _parse_header(path: pathlib.Path, data: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """(dtype, shape, bytes of the header) of what begins with a header."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _DTYPES or data[3] == 0:
        raise DataError(f"{path}: not an IDX file (it starts with {data[:4].hex(' ') or 'nothing'})")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise DataError(f"{path}: truncated inside the header, {len(data)} of {header} bytes")
    return np.dtype(_DTYPES[data[2]]), struct.unpack(f">{data[3]}I", data[4:header]), header


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return _decompressed(path, data) if data.startswith(_GZIP_MAGIC) else data


def _decompressed(path: pathlib.Path, data: bytes) -> bytes:
    """What a gzip file holds, as far as it goes: `read_idx` says which example it ends in."""
    decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        first = decompressor.decompress(data, _LONGEST_HEADER)
        dtype, shape, header = _parse_header(path, first)
        # A byte more shows that there is more, which may be a thousand times what is packed.
        left = header + math.prod(shape) * dtype.itemsize + 1 - len(first)
        if left <= 0:
            return first
        return first + decompressor.decompress(decompressor.unconsumed_tail, min(left, sys.maxsize))
    except zlib.error as error:
        raise DataError(f"{path}: damaged gzip data ({error})") from error
