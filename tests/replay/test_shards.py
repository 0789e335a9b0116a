"""Several servers of one data set: equal parts of each, nothing twice, nothing lost."""

import numpy as np
import pytest

from classact.replay import dataset, shard_reader
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig

# Ids of shard k are above k · FAR.
FAR = 10**6
QUEUE = TableConfig(batch_size=8, samples_per_insert=1.0, capacity=64)


def assert_parts(batches, shards, part):
    """Each batch has `part` ids of every shard, and each shard's come in their order, without a gap."""
    batches = np.stack(batches)
    assert batches.shape[1] == shards * part
    for shard in range(shards):
        found = batches[:, shard * part : (shard + 1) * part].ravel()
        np.testing.assert_array_equal(found, shard * FAR + np.arange(len(found)))


@pytest.mark.parametrize("ahead", [1, 3])
def test_every_batch_has_equal_parts_and_every_example_comes_once(make_replay, feed, ahead):
    shards = [make_replay(QUEUE) for _ in range(3)]
    for index, shard in enumerate(shards):
        feed(shard, first=index * FAR)
    reader = shards[0].dataset(EXAMPLES_TABLE, 24, others=shards[1:], read_ahead=ahead)
    batches = [reader.next(timeout=20) for _ in range(50 if ahead == 1 else 100)]
    assert_parts([batch["id"] for batch in batches], 3, 8)
    for batch in batches:
        np.testing.assert_array_equal(batch["image"][:, 1, 0, 0], batch["id"] % 256)


def test_a_shard_that_delivers_nothing_is_named_and_holds_the_others_up(make_replay, write_all, monkeypatch):
    monkeypatch.setattr(shard_reader, "SAMPLE_SECONDS", 0.3)
    fast, slow = make_replay(QUEUE), make_replay(QUEUE)
    reader = fast.dataset(EXAMPLES_TABLE, 16, others=[slow])
    write_all(fast, np.arange(24))
    write_all(slow, FAR + np.arange(11))
    found = [reader.next(timeout=20)["id"]]
    with pytest.raises(dataset.ReplayTimeoutError, match=rf"at shard 1 \({slow.address}\) in 1\.5 s"):
        reader.next(timeout=1.5)
    # Two parts.
    assert fast.statistics(EXAMPLES_TABLE)["samples"] <= 2 * 8
    write_all(slow, FAR + np.arange(11, 24))
    found += [reader.next(timeout=20)["id"] for _ in range(2)]
    assert_parts(found, 2, 8)


def test_a_server_that_fails_is_named(make_replay):
    good, bad = make_replay(TableConfig(8, 0.5, 64, super_batch=32)), make_replay(QUEUE)
    reader = good.dataset(STREAM_TABLE, 16, others=[bad])
    with pytest.raises(RuntimeError, match=rf"'stream' at {bad.address} failed"):
        reader.next(timeout=20)


@pytest.mark.parametrize("addresses", [["localhost:1", "localhost:2", "localhost:3"], []])
def test_a_batch_that_cannot_be_taken_in_equal_parts_is_refused(make_replay, addresses):
    replay = make_replay(QUEUE)
    with pytest.raises(ValueError, match=rf"batch_size=16.*{len(addresses)}, the number of shards"):
        dataset.ReplayDataset(addresses, EXAMPLES_TABLE, replay.codec, 16, replay.stop)


def test_stream_and_examples_of_two_shards_keep_pace(make_replay, feed):
    config = TableConfig(batch_size=8, samples_per_insert=0.25, capacity=128, super_batch=64)
    shards = [make_replay(config) for _ in range(2)]
    for index, shard in enumerate(shards):
        feed(shard, first=index * FAR)
    stream = shards[0].dataset(STREAM_TABLE, 64, others=shards[1:])
    examples = shards[0].dataset(EXAMPLES_TABLE, 16, others=shards[1:])
    streamed, sampled = [], []
    for _ in range(60):
        streamed.append(stream.next(timeout=20)["id"])
        sampled.append(examples.next(timeout=20)["id"])
    assert_parts(streamed, 2, 32)
    sampled = np.stack(sampled)
    assert np.all(sampled[:, :8] < FAR) and np.all(sampled[:, 8:] >= FAR)
    assert len(np.unique(sampled)) == sampled.size


def test_counts_are_of_all_shards_and_sizes_also_of_each(make_replay, write_all):
    shards = [make_replay(QUEUE) for _ in range(2)]
    write_all(shards[0], np.arange(3))
    write_all(shards[1], np.arange(5))
    asked = dataset.TableStatistics([shard.address for shard in shards], EXAMPLES_TABLE)
    assert asked() == {"size": 8, "inserts": 8, "samples": 0, "shard_0/size": 3, "shard_1/size": 5}
    assert shards[1].statistics(EXAMPLES_TABLE) == {"size": 5, "inserts": 5, "samples": 0}
