"""Sizes of the tables are checked before a server starts."""

import pytest

from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"samples_per_insert": 0.0}, "samples_per_insert=0.0"),
        ({"samples_per_insert": 1.5}, "samples_per_insert=1.5"),
        ({"samples_per_insert": float("nan")}, "samples_per_insert=nan"),
        ({"capacity": 31}, "capacity 31.*32 examples"),
    ],
)
def test_bad_values_are_named(fields, named):
    with pytest.raises(ValueError, match=named):
        TableConfig(**{"batch_size": 8, "samples_per_insert": 0.5, "capacity": 64, **fields})


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, 16), (1.0 - 0.8, 40), (1.0, 8)])
def test_inserts_per_update(ratio, expected):
    assert TableConfig(8, ratio, 1000).inserts_per_update == expected


def test_the_stream_table_is_there_only_for_a_super_batch():
    assert TableConfig(8, 0.5, 64).table_names == (EXAMPLES_TABLE,)
    assert TableConfig(8, 0.5, 64, super_batch=80).table_names == (EXAMPLES_TABLE, STREAM_TABLE)
