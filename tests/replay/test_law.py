"""The law of every draw through the real table, writer and reader, while items come and go."""

import time

import numpy as np
import pytest
from race_law import LEVEL, Table, p_value

from classact.nodes.clocks import Clocks
from classact.replay.config import EXAMPLES_TABLE, TableConfig
from classact.selection import race

CONFIG = TableConfig(batch_size=32, samples_per_insert=0.5, capacity=256)
SUPER_BATCH = 64
UPDATES = 60


@pytest.fixture
def drawn_by(make_replay, batch_of):
    """Inserts super-batches and draws batches in turns, and replays what was drawn against the law."""

    def run(scores_of, temperature, known=lambda clocks: clocks.all()[0], told_temperature=None):
        """`scores_of(rng, update)` gives float64[SUPER_BATCH]; `known` is the clock that the writer has."""
        replay, clocks, rng = make_replay(CONFIG), Clocks(1), np.random.default_rng(0)
        out, drawn, events, told = replay.writer(), [], [], []

        def tell(shard, priorities):
            clocks.drawn(shard, priorities)
            told.extend(priorities.tolist())

        reader = replay.dataset(EXAMPLES_TABLE, drawn=tell)
        for update in range(UPDATES):
            ids = np.arange(update * SUPER_BATCH, (update + 1) * SUPER_BATCH)
            scores = scores_of(rng, update)
            found = race.log_weights(scores, temperature)
            clock = known(clocks)
            out.write(batch_of(ids), lambda rows, f=found, c=clock: c.keys(f.values[rows], rng), found.keep)
            out.flush()
            full = (update + 1) * SUPER_BATCH > CONFIG.capacity
            law = race.log_weights(scores, told_temperature or temperature).values
            events.append((ids, law, CONFIG.batch_size if full else 0))
            if (update + 1) * SUPER_BATCH <= CONFIG.capacity // 2:
                continue
            if full:
                drawn += reader.next(timeout=20)["id"].tolist()
            # As soon as a batch is taken, or could be, the next one is drawn.
            ahead = len(drawn) + CONFIG.batch_size
            wait_for(lambda count=ahead: len(told) == count)
        return replayed(events, np.array(drawn)), np.array(drawn)

    return run


def replayed(events, drawn):
    """The table as it was at every draw.

    The law is not asked for while there are items that came before anything was drawn,
    or while it was not known what: their keys are of a time that nobody knew.
    """
    table, place = Table(CONFIG.capacity), 0
    for ids, weights, draws in events:
        table.insert(ids, weights)
        if not place and ids[-1] >= CONFIG.capacity // 2:
            place = CONFIG.batch_size
            table.remove(drawn[:place])
        take = table.draw if ids[-1] >= 2 * CONFIG.capacity else table.remove
        take(drawn[place : place + draws])
        place += draws
    return table


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("temperature", "spread", "drift", "mean"),
    [
        (2.0, 10.0, 0.0, 0.0),
        (1.0, 5.0, 0.0, -40.0),
        (0.3, 1.5, 0.0, 12.0),
        (0.1, 3.0, 0.0, -5.0),
        (0.05, 5.0, 0.0, 5.0),
        (0.02, 6.0, 0.0, 0.0),
        (0.02, 0.1, 6.0, -3.0),
        (0.02, 0.1, -6.0, 3.0),
        (1.0, 30.0, 300.0, -150.0),
        (1.0, 30.0, -300.0, 150.0),
    ],
)
def test_every_draw_is_from_the_softmax_over_what_is_there(drawn_by, temperature, spread, drift, mean):
    """Spreads of 5 to 300 nats, drifts by 300 nats in a run, weights on both sides of 1."""

    def scores_of(rng, update):
        return rng.normal(mean + drift * update / UPDATES, spread / 4, SUPER_BATCH)

    table, drawn = drawn_by(scores_of, temperature)
    table.assert_law()
    assert len(np.unique(drawn)) == len(drawn)


def test_a_wrong_temperature_or_clock_would_be_noticed(drawn_by):
    def scores_of(rng, update):
        return rng.normal(0, 1.0, SUPER_BATCH)

    without, _ = drawn_by(scores_of, 1.0, known=lambda clocks: race.Clock())
    assert p_value(without.by_age) < LEVEL
    # The law is that of the weights as they are told; the scores are told at half the temperature.
    colder, _ = drawn_by(scores_of, 1.0, told_temperature=0.5)
    assert p_value(colder.by_weight) < LEVEL


def test_the_share_above_the_median_loss_at_low_temperature(drawn_by):
    """A tenth and less of a nat of temperature, where running sums of priorities drew at random."""
    losses = []

    def scores_of(rng, update):
        losses.append(np.clip(rng.gamma(4, 1.7, SUPER_BATCH), 0.01, 16.0))
        return -losses[-1]

    table, drawn = drawn_by(scores_of, 0.05)
    table.assert_law()
    assert np.mean(np.concatenate(losses)[drawn[CONFIG.capacity :]] > 6.24) < 0.03
