"""Requests are what protocol buffers would make of the same messages."""

import numpy as np
from hypothesis import given, strategies
from hypothesis.extra import numpy as arrays

from classact.replay import protocol, varints
from classact.replay.encoding import InsertEncoder, Keys

NAMES = strategies.lists(strategies.text(min_size=1, max_size=12), min_size=1, max_size=3, unique=True)
UINT64 = strategies.integers(0, 2**64 - 1)


def keys_of(draw, tables, examples):
    numbers = strategies.lists(UINT64, min_size=(1 + tables) * examples, max_size=(1 + tables) * examples)
    found = np.array(draw(numbers), np.uint64).reshape(1 + tables, examples)
    return Keys(found[0], found[1:])


def expected(record_bytes, tables, episode, contents, priorities, keys, wanted):
    """The request as protocol buffers' own classes hold it."""
    request = protocol.InsertRequest()
    for index, content in enumerate(contents):
        chunk = request.chunks.add(key=int(keys.chunks[index]), tensors_len=1)
        chunk.range.episode = episode
        tensor = chunk.data.tensors.add(dtype=protocol.UINT8, content=content)
        tensor.shape.dim.add(size=1)
        tensor.shape.dim.add(size=record_bytes)
    for number, table in enumerate(tables):
        for index in np.flatnonzero(wanted[number]):
            item = request.items.add(
                key=int(keys.items[number, index]), table=table, priority=priorities[number, index]
            )
            column = item.trajectory.columns.add(squeeze=True)
            column.slices.add(chunk_key=int(keys.chunks[index]), length=1)
    return request


@given(strategies.data(), NAMES, strategies.integers(1, 2**31), UINT64, strategies.binary(max_size=8))
def test_a_request_holds_what_it_should(data, tables, record_bytes, episode, prefix):
    contents = data.draw(strategies.lists(strategies.binary(max_size=300), min_size=1, max_size=5))
    shape = (len(tables), len(contents))
    finite = strategies.floats(allow_nan=False, allow_infinity=False)
    priorities = data.draw(arrays.arrays(np.float64, shape, elements=finite))
    keys = keys_of(data.draw, *shape)
    wanted = data.draw(strategies.one_of(strategies.none(), arrays.arrays(bool, shape)))

    encode = InsertEncoder(record_bytes, tables, episode)
    request = protocol.InsertRequest.FromString(encode(contents, priorities, keys, prefix, wanted))

    whole = [prefix + content for content in contents]
    all_of_them = np.ones(shape, bool) if wanted is None else wanted
    assert request == expected(record_bytes, tables, episode, whole, priorities, keys, all_of_them)


@given(strategies.lists(UINT64, min_size=1, max_size=5))
def test_numbers_of_a_fixed_width_are_read_as_they_are(values):
    encoded = varints.fixed_width(np.array(values, np.uint64), varints.KEY_BYTES)
    assert encoded.shape == (len(values), varints.KEY_BYTES)
    read = [list(protocol.InsertResponse.FromString(b"\x08" + row.tobytes()).keys) for row in encoded]
    assert read == [[value] for value in values]


@given(UINT64)
def test_the_shortest_encoding_is_that_of_protocol_buffers(value):
    message = protocol.InsertResponse(keys=[value])
    encoded = varints.varint(value)
    assert message.SerializeToString() == b"\x0a" + bytes([len(encoded)]) + encoded
