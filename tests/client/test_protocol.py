"""Messages between a selector and its trainer: what goes in comes out, and nothing else gets through."""

import json

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import strategies as st

from classact.client import protocol

ARRAYS = hnp.arrays(
    st.sampled_from([np.uint8, np.int32, np.int64, np.float32, np.float64, np.bool_]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
)
VALUES = st.one_of(ARRAYS, st.lists(st.binary(max_size=9)), st.lists(st.text(max_size=9), min_size=1))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), st.integers(0, 2**40))
def test_what_is_packed_is_unpacked(arrays, number):
    # As they come from a socket.
    frames = [bytes(frame) for frame in protocol.pack({"kind": "batch", "id": number}, arrays)]
    header, found = protocol.unpack(frames)
    assert header == {"v": 1, "kind": "batch", "id": number}
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        if isinstance(values, np.ndarray):
            assert found[name].dtype == values.dtype and found[name].shape == values.shape
            np.testing.assert_array_equal(found[name], values)
        else:
            assert found[name] == values


def test_contiguous_bytes_are_not_copied():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    _, frame = protocol.pack({}, {"image": images})
    assert np.shares_memory(np.asarray(frame), images)
    _, found = protocol.unpack(protocol.pack({}, {"image": images}))
    assert np.shares_memory(found["image"], images)


@pytest.mark.parametrize("cut", [np.zeros((4, 3), np.uint8)[:, ::2], np.zeros((3, 4), "<f4").T])
def test_what_is_not_contiguous_goes_as_well(cut):
    _, found = protocol.unpack(protocol.pack({}, {"x": cut}))
    assert found["x"].shape == cut.shape


def with_arrays(arrays, *frames):
    return [json.dumps({"v": 1, "arrays": arrays}).encode(), *frames]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "no header"),
        ([b"\x80\x04"], "no JSON"),
        ([b"[" * 10**5], "no JSON"),
        ([b"[1]"], "no version"),
        ([b'{"v": 2, "arrays": []}'], "version 2 and this one 1"),
        ([b'{"v": 1}'], "without a list"),
        (with_arrays([["x", "<i4", [2]]]), "arrays that are none"),
        (with_arrays([["x", "<i4", [2]]], b"1234"), "arrays that are none"),
        (with_arrays([["x", "<i4", [-1]]], b"1234"), "arrays that are none"),
        (with_arrays([["x", "|O", [1]]], b"12345678"), "arrays that are none"),
        (with_arrays([["x", "bytes", [1]]], b"abc", np.array([4], "<i8").tobytes()), "ends that are none"),
        (with_arrays([["x", "text", [1]]], b"\xff", np.array([1], "<i8").tobytes()), "arrays that are none"),
        (with_arrays([], b"more"), "1 frames more"),
    ],
)
def test_what_is_no_message_is_said(frames, said):
    with pytest.raises(protocol.ProtocolError, match=said):
        protocol.unpack(frames)
