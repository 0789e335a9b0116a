"""The tables of a shard, from the configuration."""

import pathlib

import pytest

from classact.experiments import base, resolution
from classact.launch.assembly.run_spec import RunSpec


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_shards_share_the_batch_the_capacity_and_the_super_batch(shards):
    fields = base.get_config().to_dict()
    fields |= {"policy": "classact_online", "batch_size": 32, "filter_ratio": 0.75}
    fields["replay"] = {"capacity": 1024, "shards": shards}
    fields["inference"]["servers"] = 2
    found = RunSpec(resolution.resolve(fields), pathlib.Path(), {}).table_config("icons")
    assert (found.batch_size, found.capacity) == (32 // shards, 1024 // shards)
    assert (found.inserts_per_update, found.super_batch) == (128 // shards, 384 // shards)


def test_the_ratio_is_that_of_what_is_read_per_update():
    """The stream gives the learner whole examples: B is rounded, and both tables must agree in it."""
    fields = {**base.get_config().to_dict(), "policy": "hard_learner", "batch_size": 32, "filter_ratio": 0.3}
    found = RunSpec(resolution.resolve(fields), pathlib.Path(), {}).table_config("icons")
    assert found.samples_per_insert == 32 / 46
