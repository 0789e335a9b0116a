"""Variable-length integers of the protocol buffers' wire format."""

import numpy as np

_LOW, _MORE = 0x7F, 0x80
_SHIFTS = np.arange(0, 70, 7, dtype=np.uint64)
KEY_BYTES = 10
LENGTH_BYTES = 5


def varint(value: int) -> bytes:
    """The shortest encoding of a number of at least 0."""
    out = bytearray()
    while value > _LOW:
        out.append(value & _LOW | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The number at a place of a message, and the place behind it; raises IndexError if the message ends."""
    value = message[at]
    at += 1
    if value <= _LOW:
        return value, at
    value &= _LOW
    shift = 7
    while True:
        byte = message[at]
        at += 1
        value |= (byte & _LOW) << shift
        if byte <= _LOW:
            return value, at
        shift += 7


def fixed_width(values: np.ndarray, width: int) -> np.ndarray:
    """Encodes numbers with the same number of bytes each: the high ones may be empty.

    Parsers take these for what they are, so that a template can leave room for them.

    Args:
        values: uint64[...], below 2 ** (7 · width).
        width: bytes of each, 10 at most.

    Returns:
        uint8[..., width].
    """
    # Of the shifted numbers only the lowest byte counts.
    found = (values[..., None] >> _SHIFTS[:width]).astype(np.uint8)
    found &= _LOW
    found[..., :-1] |= _MORE
    return found
