"""How often examples are really drawn: the Reverb table and Gumbel-top-k against one exact oracle.

Reverb's random numbers cannot be seeded, so every test here is a chi-square test
at a level that chance does not reach (1e-6), with enough draws that a temperature
30 % off is certain to be noticed, which each test asserts of its own sample.
"""

import contextlib
import itertools
import threading

import numpy as np
import pytest
import replay_servers
from scipy import stats

from classact.nodes import clocks as clocks_lib
from classact.replay import config, dataset, records, sample_stream, server_calls, writer
from classact.selection import race

SCORES = np.array([-1.0, -0.2, 0.3, 0.9, 1.4])
TEMPERATURE = 0.7
DRAWS = 2
TRIALS = 2000
LEVEL = 1e-6


def sequences(scores, temperature, draws):
    """The exact probability of each ordered outcome of drawing without replacement."""
    weights = np.exp(np.asarray(scores) / temperature)
    result = {}
    for outcome in itertools.permutations(range(len(weights)), draws):
        probability, left = 1.0, weights.sum()
        for index in outcome:
            probability *= weights[index] / left
            left -= weights[index]
        result[outcome] = probability
    return result


def p_value(drawn, temperature):
    """The chi-square test of ordered outcomes against the oracle."""
    oracle = sequences(SCORES, temperature, len(drawn[0]))
    counts = [sum(1 for outcome in drawn if tuple(outcome) == cell) for cell in oracle]
    assert sum(counts) == len(drawn)
    return stats.chisquare(counts, np.array(list(oracle.values())) * len(drawn)).pvalue


def assert_distribution(drawn):
    for length in range(1, len(drawn[0]) + 1):
        prefix = [outcome[:length] for outcome in drawn]
        assert p_value(prefix, TEMPERATURE) > LEVEL
        # The same sample tells a wrong temperature from the right one.
        assert p_value(prefix, 1.3 * TEMPERATURE) < LEVEL
        assert p_value(prefix, TEMPERATURE / 1.3) < LEVEL


def test_the_oracle_is_a_distribution_and_starts_with_the_softmax():
    oracle = sequences(SCORES, TEMPERATURE, 3)
    assert sum(oracle.values()) == pytest.approx(1.0)
    softmax = np.exp(SCORES / TEMPERATURE) / np.exp(SCORES / TEMPERATURE).sum()
    for index, expected in enumerate(softmax):
        assert sum(p for outcome, p in oracle.items() if outcome[0] == index) == pytest.approx(expected)


def test_gumbel_top_k_draws_from_the_softmax_without_replacement():
    rng = np.random.default_rng(0)
    drawn = [tuple(race.gumbel_top_k(SCORES, 3, TEMPERATURE, rng).tolist()) for _ in range(2 * TRIALS)]
    assert_distribution(drawn)


def test_the_table_draws_from_the_softmax_without_replacement():
    batch = {"id": np.arange(len(SCORES))}
    codec = records.RecordCodec(batch)
    table_config = config.TableConfig(batch_size=1, samples_per_insert=0.5, capacity=len(SCORES))
    weights, rng = race.log_weights(SCORES, TEMPERATURE).values, np.random.default_rng(0)
    # At any time; each trial begins with new runs.
    keys = lambda rows: race.Clock((3.0,)).keys(weights[rows], rng)  # noqa: E731
    scored = {
        **batch,
        "score": SCORES.astype(np.float32),
        "scored_step": np.zeros(len(SCORES), np.int64),
    }
    drawn = []
    with replay_servers.serving(table_config, codec.num_bytes) as server, contextlib.ExitStack() as opened:
        calls = server_calls.ServerCalls(server.address)
        reader = sample_stream.SampleStream(server.address, config.EXAMPLES_TABLE, 20.0)
        out = writer.ReplayWriter(server.address, codec, table_config.table_names, threading.Event())
        for each in (calls, reader, out):
            opened.callback(each.close)
        for _ in range(TRIALS):
            out.write(scored, keys, np.ones(len(SCORES), bool))
            out.flush()
            rows = codec.empty(DRAWS)
            assert sum(len(priorities) for priorities in reader.take(rows)) == DRAWS
            drawn.append(tuple(codec.unpack(rows)["id"].tolist()))
            calls.reset(config.EXAMPLES_TABLE)
    assert_distribution(drawn)


def test_two_shards_give_equal_parts_each_by_its_own_softmax():
    """Each example drawn is written again, so that every draw is from the same items."""
    spread = (SCORES, 2.0 - 0.5 * SCORES)
    codec = records.RecordCodec({"id": np.arange(1)})
    # Only a table that holds all five may be sampled, as often as is written.
    table_config = config.TableConfig(batch_size=1, samples_per_insert=0.9999, capacity=2 * len(SCORES))
    stop = threading.Event()
    opened = contextlib.ExitStack()
    addresses = [
        opened.enter_context(replay_servers.serving(table_config, codec.num_bytes)).address for _ in spread
    ]
    writers = [writer.ReplayWriter(address, codec, table_config.table_names, stop) for address in addresses]

    clocks, rng = clocks_lib.Clocks(len(spread)), np.random.default_rng(0)

    def write(shard, ids):
        scores = spread[shard][ids]
        weights = race.log_weights(scores, TEMPERATURE)
        steps = np.zeros(len(ids), np.int64)
        batch = {"id": ids, "score": scores.astype(np.float32), "scored_step": steps}
        keys = lambda rows: clocks.all()[shard].keys(weights.values[rows], rng)  # noqa: E731
        writers[shard].write(batch, keys, weights.keep)
        writers[shard].flush()

    counts = np.zeros((len(spread), len(SCORES)))
    reader = dataset.ReplayDataset(
        addresses, config.EXAMPLES_TABLE, codec, len(spread), stop, drawn=clocks.drawn
    )
    try:
        for shard in range(len(spread)):
            write(shard, np.arange(len(SCORES)))
        for _ in range(TRIALS):
            for shard, drawn in enumerate(reader.next(timeout=20)["id"]):
                counts[shard, drawn] += 1
                write(shard, np.array([drawn]))
    finally:
        stop.set()
        reader.close()
        for out in writers:
            out.close()
        opened.close()

    def p_value(law):
        return stats.chisquare(counts.ravel(), counts.sum() * law.ravel() / law.sum()).pvalue

    weights = np.exp(np.stack(spread) / TEMPERATURE)
    stratified = weights / weights.sum(axis=1, keepdims=True)
    assert p_value(stratified) > LEVEL
    # One table of all ten would have preferred the second shard's, which weigh more.
    assert p_value(weights) < LEVEL
    for factor in (1.3, 1 / 1.3):
        other = weights**factor
        assert p_value(other / other.sum(axis=1, keepdims=True)) < LEVEL
