"""Records come back as they were, whoever compressed them, and only what becomes smaller is compressed."""

import cramjam
import numpy as np
import pytest
from hypothesis import given, strategies

from classact.replay import compression
from classact.replay.config import COMPRESSIONS

RANDOM = np.random.default_rng(0).integers(0, 256, (8, 3092), np.uint8)
FLAT = np.zeros_like(RANDOM)


def blocks(prefix, contents):
    return [prefix + bytes(content) for content in contents]


def read(block, size):
    row = np.empty(size, np.uint8)
    compression.read_into(block, row)
    return row


@given(strategies.binary(min_size=1, max_size=5000), strategies.sampled_from(COMPRESSIONS))
def test_a_record_comes_back_and_snappy_itself_reads_it(record, kind):
    rows = np.frombuffer(record, np.uint8)[None]
    (block,) = blocks(*compression.Compressor(kind, len(record))(rows))
    assert read(block, len(record)).tobytes() == record
    assert bytes(cramjam.snappy.decompress_raw(block)) == record
    assert read(bytes(cramjam.snappy.compress_raw(record)), len(record)).tobytes() == record


@pytest.mark.parametrize(
    ("kind", "rows", "smaller"),
    [
        ("none", FLAT, False),
        ("snappy", FLAT, True),
        ("auto", FLAT, True),
        ("auto", RANDOM, False),
    ],
)
def test_what_is_compressed(kind, rows, smaller):
    compress = compression.Compressor(kind, rows.shape[1])
    for _ in range(3):
        total = sum(map(len, blocks(*compress(rows))))
        assert (total < 0.2 * rows.nbytes) == smaller
        assert total < rows.nbytes + 12 * len(rows)


def test_a_writer_notices_that_its_records_have_changed():
    compress = compression.Compressor("auto", FLAT.shape[1])
    stored = [[bool(compress(rows)[0]) for _ in range(100)] for rows in (RANDOM, FLAT, RANDOM)]
    assert all(stored[0])
    # It looks again now and then.
    assert not stored[1][-1] and stored[2][-1]


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\xff" * 12,
        compression.stored_prefix(100) + bytes(99),
        bytes(cramjam.snappy.compress_raw(bytes(99))),
        bytes(cramjam.snappy.compress_raw(bytes(200))),
        bytes(cramjam.snappy.compress_raw(bytes(range(100))))[:-3],
    ],
)
def test_a_damaged_record_is_an_error(block):
    with pytest.raises(ValueError, match="a record of the replay"):
        read(block, 100)
