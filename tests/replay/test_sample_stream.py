"""What is found in a response is what protobuf finds, and it lies where it belongs."""

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.replay import http2, protocol, records, sample_stream
from classact.replay.compression import stored_prefix

INT64 = st.integers(-(2**63), 2**63 - 1)
KEYS = st.integers(0, 2**64 - 1)
Response = protocol._made["SampleResponse"]


class Said:
    """Stands for a connection: bytes, and then how the call ended, or that it broke."""

    def __init__(self, said, broken=False):
        self._said, self._at, self._broken = memoryview(said), 0, broken

    def peek(self, size):
        found = self._said[self._at : self._at + size]
        if len(found) < size and self._broken:
            raise ConnectionResetError("broken")
        if size and not found:
            raise http2.EndedError("OK", "")
        return found

    def skip(self, size):
        self._at += size

    def read_into(self, place):
        found = self.peek(len(place))
        place[: len(found)] = found
        self.skip(len(found))


@st.composite
def entries(draw, codec):
    """An entry, its record's row and its priority."""
    entry = protocol._made["SampleEntry"](ends_item=True)
    item = entry.info.item
    item.key, item.table, item.priority = draw(KEYS), draw(st.text(max_size=30)), draw(st.floats())
    item.times_sampled = draw(st.integers(0, 3))
    column = item.trajectory.columns.add(squeeze=draw(st.booleans()))
    column.slices.add(chunk_key=draw(KEYS), length=1)
    entry.info.probability, entry.info.table_size = draw(st.floats(0, 1)), draw(st.integers(0, 2**40))
    entry.info.rate_limited = draw(st.booleans())
    chunk = entry.chunks.add(key=draw(KEYS), delta_encoded=draw(st.booleans()), tensors_len=1)
    chunk.range.episode, chunk.uncompressed_size = draw(KEYS), draw(INT64)
    row = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 3, codec.num_bytes, np.uint8)
    stored = stored_prefix(len(row)) + row.tobytes()
    content = bytes(cramjam.snappy.compress_raw(row)) if draw(st.booleans()) else stored
    tensor = chunk.data.tensors.add(dtype=protocol.UINT8, content=content)
    tensor.shape.dim.add(size=1)
    tensor.shape.dim.add(size=len(row))
    return entry, row, item.priority


CODECS = st.sampled_from(
    [
        # Nothing before the largest field; something on both sides; nothing of any size.
        records.RecordCodec({"a": np.zeros((1, 700), np.uint8), "b": np.zeros(1, np.int64)}),
        records.RecordCodec({"id": np.zeros(1, np.int64), "image": np.zeros((1, 40, 40, 3), np.uint8)}),
        records.RecordCodec({"id": np.zeros(1, np.int32)}),
    ]
)
MESSAGES = CODECS.flatmap(
    lambda codec: st.tuples(
        st.just(codec), st.lists(st.lists(entries(codec), min_size=1, max_size=3), min_size=1, max_size=3)
    )
)


def said(*responses):
    encoded = [response.SerializeToString() for response in responses]
    return b"".join(b"\x00" + len(message).to_bytes(4) + message for message in encoded)


@settings(max_examples=80, deadline=None)
@given(MESSAGES)
def test_records_and_priorities_are_those_of_the_responses(made):
    codec, responses = made
    messages = [Response(entries=[entry for entry, _, _ in response]) for response in responses]
    expected = np.concatenate([[row for _, row, _ in response] for response in responses])
    rows, found = codec.empty(len(expected)), []
    with pytest.raises(http2.EndedError):
        for priorities in sample_stream._responses(Said(said(*messages)), rows, "it"):
            found.append(priorities)
    np.testing.assert_array_equal(rows.packed(), expected)
    for priorities, response in zip(found, responses, strict=True):
        np.testing.assert_array_equal(priorities, [priority for _, _, priority in response])


CODEC = records.RecordCodec({"id": np.zeros(1, np.int64), "image": np.zeros((1, 40, 40, 3), np.uint8)})


def response(count):
    made = Response()
    content = stored_prefix(CODEC.num_bytes) + bytes(CODEC.num_bytes)
    for index in range(count):
        entry = made.entries.add(ends_item=True)
        entry.info.item.priority = index
        entry.chunks.add(key=1).data.tensors.add(content=content)
    return made


def read(*responses, rows=4, **options):
    found = sample_stream._responses(Said(said(*responses), **options), CODEC.empty(rows), "it")
    return [len(priorities) for priorities in found]


@pytest.mark.parametrize(("missing", "broken"), [(20, True), (20, False), (2500, False)])
def test_of_a_response_that_breaks_off_the_whole_items_are_told(missing, broken):
    found, half = [], Said(said(response(3))[:-missing], broken)
    with pytest.raises((ConnectionError, http2.EndedError)):
        for priorities in sample_stream._responses(half, CODEC.empty(4), "it"):
            found += priorities.tolist()
    assert found == [0.0, 1.0]


def changed(change):
    made = response(1)
    change(made.entries[0])
    return made


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda entry: setattr(entry, "ends_item", False), "many parts"),
        (lambda entry: entry.chunks.add(key=2), "many parts"),
        (lambda entry: entry.chunks[0].data.tensors.add(content=b"more"), "many parts"),
        (lambda entry: entry.ClearField("chunks"), "many parts"),
        (lambda entry: setattr(entry.info.item, "table", "a" * 600), "many parts"),
        (
            lambda entry: setattr(entry.chunks[0].data.tensors[0], "content", b"\x05\x10short"),
            "4820 bytes|damaged",
        ),
        (lambda entry: setattr(entry.chunks[0].data.tensors[0], "content", bytes(9000)), "4820 bytes"),
    ],
)
def test_what_no_table_of_ours_holds_is_refused(change, match):
    with pytest.raises(ValueError, match=match):
        read(changed(change))


def test_more_than_was_asked_for_is_refused():
    with pytest.raises(sample_stream.ResponseError, match="it gave more than it was asked for"):
        read(response(2), response(3))


def test_compressed_messages_are_refused():
    with pytest.raises(sample_stream.ResponseError, match="compresses"):
        next(sample_stream._responses(Said(b"\x01" + said(response(1))[1:]), CODEC.empty(1), "it"))
