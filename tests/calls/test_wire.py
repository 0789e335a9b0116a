"""Values pass whole; what is no value is refused; nothing that comes in can do anything."""

import pickle

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.calls import protocol, wire
from classact.calls.wire import WireError

NUMBER = b"12345678"
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=64)
    | st.sampled_from([b"", b"x" * 4095, b"x" * 4096, b"y" * 10_000]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4)
    ),
)


def tuples(value):
    """As `decode` returns it."""
    if isinstance(value, list):
        return tuple(tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return value


@given(PLAIN)
def test_plain_values_pass(value):
    assert wire.decode(wire.encode(value)) == tuples(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.arange(12, dtype=np.float64).reshape(3, 4).T,
        np.array([1, 2], ">i4"),
        np.array(7, np.uint8),
        np.zeros((0, 3), np.int64),
        np.array([True, False]),
        np.array([1 + 2j], np.complex64),
        np.arange(20, dtype=np.float16)[::3],
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_pass_with_their_shape_and_type(array):
    found = wire.decode(wire.encode({"a": (1, array)}))["a"][1]
    assert found.dtype == array.dtype.newbyteorder("<")
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable


def test_arrays_and_large_bytes_are_frames_that_nobody_copied():
    array, large = np.zeros(10_000, np.float32), b"x" * 10_000
    head, *parts = wire.encode([array, large, memoryview(large)])
    assert len(head) < 100
    assert np.shares_memory(np.frombuffer(parts[0], np.float32), array)
    assert parts[1] is large
    assert parts[2].obj is large
    found = wire.decode([head, *parts])
    assert np.shares_memory(found[0], array)
    assert (found[1], type(found[1])) == (large, bytes)
    assert found[2].obj is large


def test_numbers_of_numpy_become_plain():
    found = wire.decode(wire.encode([np.float32(0.5), np.int64(3), np.bool_(True), np.float64(0.25)]))
    assert found == (0.5, 3, True, 0.25)
    assert [type(item) for item in found] == [float, int, bool, float]


class Anything:
    """A class that pickle would import."""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Anything(), "Anything is not a type"),
        (print, "builtin_function_or_method"),
        ({1, 2}, "set"),
        (np.array(["text"]), "<U4"),
        (np.array([Anything()], object), "object"),
        ({(1, 2): 3}, "key of type tuple"),
        (2**64, "out of range"),
        ("\ud800", "surrogates"),
    ],
    # Their text may hold an address, and workers must agree on names.
    ids=["class", "function", "set", "text", "objects", "key", "number", "surrogate"],
)
def test_what_cannot_be_sent_is_named(value, said):
    with pytest.raises(WireError, match=said):
        wire.encode([value])


def test_what_has_no_end_cannot_be_sent():
    value = []
    value.append(value)
    with pytest.raises(WireError, match="cannot be sent"):
        wire.encode(value)


def ext(code, data=b""):
    return msgpack.packb(msgpack.ExtType(code, data))


def array_of(*description):
    return ext(1, msgpack.packb(list(description)))


HOSTILE = {
    "nothing": [b""],
    "no frame": [],
    "half a value": [b"\x93\x01"],
    "two values": [b"\x01\x01"],
    "a frame too many": [b"\x01", b"more"],
    "a frame too few": [ext(2)],
    "a frame used twice": [msgpack.packb([msgpack.ExtType(2, b"")] * 2), b"x"],
    "an unknown part": [ext(9), b"x"],
    "an array of objects": [array_of("object", 1), b"\0" * 8],
    "an array of text": [array_of("<U4", 1), b"\0" * 16],
    "an array of a type that numpy would parse": [array_of("f4,(1000000000,)f4", 1), b"\0" * 8],
    "a shape that does not fit": [array_of("float32", 3), b"\0" * 8],
    "bytes that do not fit": [array_of("float32", 2), b"\0" * 7],
    "a negative length": [array_of("float32", -1), b"\0" * 8],
    "a length of a kind": [array_of("float32", True), b"\0" * 4],
    "a huge shape": [array_of("float32", 2**62, 2**62), b"\0" * 8],
    "a huge empty shape": [array_of("float32", 0, 2**63), b""],
    "many dimensions": [array_of("float32", *[1] * 100), b"\0" * 4],
    "no description": [ext(1), b"x"],
    "a description that is no list": [ext(1, msgpack.packb(7)), b"x"],
    "a key without a hash": [b"\x81\x80\x01"],
    "text that is none": [b"\xa1\xff"],
    "a pickle": [pickle.dumps(Anything)],
    "very deep": [b"\x91" * 100_000 + b"\x01"],
    "a list that claims 4 billion items": [b"\xdd\xff\xff\xff\xff"],
    "bytes that claim 4 GB": [b"\xc6\xff\xff\xff\xff"],
}


@pytest.mark.parametrize("frames", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_frames_are_refused(frames):
    with pytest.raises(WireError):
        wire.decode(frames)


ALLOWED = (type(None), bool, int, float, str, bytes, memoryview, tuple, dict, np.ndarray, msgpack.Timestamp)


def kinds(value):
    yield type(value)
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from kinds(item)


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes_are_a_plain_value_or_refused(frames):
    try:
        found = wire.decode(frames)
    except WireError:
        return
    assert set(kinds(found)) <= set(ALLOWED)


@settings(max_examples=500)
@given(PLAIN, st.integers(0, 200), st.integers(0, 255), st.booleans())
def test_a_call_with_a_wrong_byte_is_a_call_or_refused(value, place, byte, cut):
    head, *parts = protocol.numbered(NUMBER, protocol.call("method", [value], {"name": value}, 1.0))
    broken = bytearray(head)
    broken[place % len(head)] = byte
    try:
        method, arguments, named, seconds = protocol.read_call(bytes(broken), [] if cut else parts)
    except WireError:
        return
    assert isinstance(method, str)
    assert isinstance(seconds, float)
    assert set(kinds([*arguments, named])) - {list} <= set(ALLOWED)


@pytest.mark.parametrize(
    "value",
    [
        *(None, [], ["m"], ["m", [], {}], ["m", [], {}, 1], [1, [], {}, 1.0]),
        *(["m", {}, {}, 1.0], ["m", [], [], 1.0], ["m", [], {1: 2}, 1.0]),
    ],
    ids=str,
)
def test_a_value_that_is_no_call_is_refused(value):
    with pytest.raises(WireError, match="no call"):
        protocol.read_call(NUMBER + wire.encode(value)[0], [])
