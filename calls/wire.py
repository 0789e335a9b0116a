"""Values as frames: what a call may carry.

None, booleans, integers of 64 bits, floats, text, bytes, and lists, tuples and dicts of these
are msgpack in the first frame. Arrays of numpy and large bytes are a frame each, which is not
copied here. Nothing that is read can name a class, a function or a module.

What comes out: lists as tuples; arrays and `memoryview`s read-only and over the frame that came.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
import numpy as np

Buffer = bytes | memoryview

# Bytes of at least this size are a frame of their own.
_LARGE = 2**12
_ARRAY, _BYTES, _VIEW = 1, 2, 3
_DTYPES = {
    np.dtype(name).name: np.dtype(name).newbyteorder("<")
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
_PLAIN = (type(None), bool, int, float, str)


class WireError(ValueError):
    """A value that cannot be sent, or frames that hold none."""


def encode(value: Any) -> list[Buffer]:
    """Turns a value into frames; large parts are used as they are, so they must not change.

    Raises:
        WireError: naming the type of what cannot be sent.
    """
    parts: list[Buffer] = []
    try:
        head = msgpack.packb(_prepared(value, parts), use_bin_type=True)
    except (OverflowError, ValueError, TypeError, RecursionError) as error:
        raise WireError(f"cannot be sent: {error}") from None
    return [head, *parts]


def decode(frames: Sequence[Any]) -> Any:
    """Reads a value from frames (bytes, or what has a `buffer`).

    Every frame is used once, in order: a value is never larger than what was sent.

    Raises:
        WireError: if the frames hold no value.
    """
    buffers = iter([getattr(frame, "buffer", frame) for frame in frames])
    try:
        value = msgpack.unpackb(
            next(buffers),
            raw=False,
            use_list=False,
            strict_map_key=False,
            ext_hook=lambda code, data: _part(code, data, buffers),
        )
    # What msgpack makes of hostile bytes is of many kinds, `TypeError` for a key that has no hash among them.
    except (
        ValueError,
        TypeError,
        StopIteration,
        OverflowError,
        RecursionError,
        MemoryError,
        msgpack.UnpackException,
    ) as error:
        raise WireError(f"no value: {error!r}") from None
    if next(buffers, None) is not None:
        raise WireError("more frames than the value has")
    return value


def size(frames: Sequence[Any]) -> int:
    """How many bytes frames have together."""
    return sum(len(getattr(frame, "buffer", frame)) for frame in frames)


def _prepared(value: Any, parts: list[Buffer]) -> Any:
    """The value with its arrays and large bytes taken out into `parts`."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, bytes):
        if len(value) < _LARGE:
            return value
        parts.append(value)
        return msgpack.ExtType(_BYTES, b"")
    if isinstance(value, (list, tuple)):
        return [_prepared(item, parts) for item in value]
    if isinstance(value, dict):
        return {_key(key): _prepared(item, parts) for key, item in value.items()}
    if isinstance(value, memoryview):
        parts.append(value.cast("B") if value.nbytes else b"")
        return msgpack.ExtType(_VIEW, b"")
    if isinstance(value, np.ndarray):
        return _taken_out(value, parts)
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    raise WireError(f"{type(value).__module__}.{type(value).__qualname__} is not a type that calls carry")


def _key(key: Any) -> Any:
    if not isinstance(key, (str, int)):
        raise WireError(f"a dict's key of type {type(key).__qualname__}: must be text or an integer")
    return key


def _taken_out(array: np.ndarray, parts: list[Buffer]) -> msgpack.ExtType:
    dtype = _DTYPES.get(array.dtype.name)
    if dtype is None:
        raise WireError(f"an array of {array.dtype} is not a type that calls carry")
    plain = np.asarray(array, dtype, order="C")
    parts.append(memoryview(plain.reshape(-1).view(np.uint8)) if plain.size else b"")
    return msgpack.ExtType(_ARRAY, msgpack.packb([dtype.name, *plain.shape]))


def _part(code: int, data: bytes, buffers: Iterator[Any]) -> Any:
    if code not in (_ARRAY, _BYTES, _VIEW):
        raise WireError(f"unknown part {code}")
    buffer = memoryview(next(buffers)).toreadonly()
    if code == _VIEW:
        return buffer
    if code == _BYTES:
        return bytes(buffer)
    name, *shape = msgpack.unpackb(data)
    if not isinstance(name, str) or name not in _DTYPES:
        raise WireError(f"unknown dtype {name!r}")
    if any(type(length) is not int or length < 0 for length in shape):
        raise WireError(f"no shape: {shape}")
    return np.frombuffer(buffer, _DTYPES[name]).reshape(shape)
