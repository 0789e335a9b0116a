"""No table stops its writers while the learner waits for another: by a model of Reverb's limiters."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.replay import tables
from classact.replay.config import TableConfig


class Counted:
    """What a table counts, and what its limiter allows: as `rate_limiter.cc` of Reverb 0.14 has it."""

    def __init__(self, table):
        asked = table.for_server()
        self.ratio, self.least = asked["samples_per_insert"], asked["min_size_to_sample"]
        self.min_diff, self.max_diff, self.max_size = asked["min_diff"], asked["max_diff"], asked["max_size"]
        self.inserts = self.samples = self.size = self.evicted = 0

    def can_insert(self):
        ahead = (self.inserts + 1) * self.ratio - self.samples
        return self.size + 1 <= self.least or ahead <= self.max_diff

    def insert(self):
        self.inserts, self.size = self.inserts + 1, self.size + 1
        if self.size > self.max_size:
            self.size, self.evicted = self.size - 1, self.evicted + 1

    def can_sample(self):
        return self.size >= self.least and self.inserts * self.ratio - self.samples - 1 >= self.min_diff

    def sample(self):
        self.samples, self.size = self.samples + 1, self.size - 1


class Run:
    """Writers, two tables and a learner; each does one thing at a time, in any order."""

    def __init__(self, made, config, in_flight=1):
        self.examples, self.stream = map(Counted, made)
        self.config, self._in_flight = config, in_flight
        self.updates = 0
        # Of the stream's batches so many are drawn and not used; or so many updates make do without, each
        # that many updates after the last one.
        self.left_out = self.comes_again = self.rest = self._since = 0
        self._batch = {self.examples: config.batch_size, self.stream: config.inserts_per_update}
        # What its readers have drawn and nobody has taken, and what it has taken for the next update.
        self._drawn, self._taken = dict.fromkeys(self._batch, 0), dict.fromkeys(self._batch, 0)
        self.actions = [
            *((self._may_insert, self._insert, table) for table in self._batch),
            *((self._may_draw, self._draw, table) for table in self._batch),
            (self._may_take, self._take, None),
        ]

    def _may_insert(self, table):
        other = self.stream if table is self.examples else self.examples
        return table.can_insert() and table.inserts - other.inserts < self._in_flight

    def _insert(self, table):
        table.insert()

    def _may_draw(self, table):
        return self._drawn[table] < self.config.read_ahead * self._batch[table] and table.can_sample()

    def _draw(self, table):
        table.sample()
        self._drawn[table] += 1

    def _wanted(self):
        """The table of which a batch is taken next."""
        return self.stream if self._taken[self.examples] else self.examples

    def _may_take(self, _):
        return self._drawn[self._wanted()] >= self._batch[self._wanted()]

    def _take(self, _):
        table = self._wanted()
        self._drawn[table] -= self._batch[table]
        self._taken[table] += self._batch[table]
        if table is self.stream and self.left_out and self.updates:
            self.left_out -= 1
            self._taken[table] -= self._batch[table]
        if table is self.examples and self.comes_again and self._since >= self.rest:
            self.comes_again, self._since = self.comes_again - 1, -1
            self._taken[self.stream] = self._batch[self.stream]
        window = self.config.super_batch - self._batch[self.stream] if self.updates else 0
        if self._taken[self.stream] + window >= self.config.super_batch:
            self.updates, self._since = self.updates + 1, self._since + 1
            self._taken = dict.fromkeys(self._taken, 0)

    def resume(self):
        """Is saved and resumed between two updates; what is drawn ahead comes first, as much of each."""
        if self.updates and not any(self._taken.values()) and any(self._drawn.values()):
            self._drawn = dict.fromkeys(self._drawn, 0)
            self.updates += self.config.read_ahead
            return True
        return False

    def until(self, updates, speeds, rng, resumes=0):
        """Goes on until so many updates are made; False if nobody can do anything before."""
        while self.updates < updates:
            able = [number for number, (may, _, of) in enumerate(self.actions) if may(of)]
            if not able:
                return False
            weights = np.array([speeds[number] for number in able], float)
            number = able[rng.choice(len(able), p=weights / weights.sum())]
            may, act, of = self.actions[number]
            # Who is quick does much before another one does something.
            for _ in range(speeds[number]):
                act(of)
                if not may(of):
                    break
            if resumes and rng.random() < 0.3:
                resumes -= self.resume()
        return True


@st.composite
def configs(draw, read_ahead=(1,)):
    """Of all ratios, from what fits barely to much."""
    batch = draw(st.integers(1, 6))
    inserts = draw(st.integers(batch, 6 * batch))
    capacity = draw(st.integers(2 * inserts, 9 * inserts))
    windows = draw(st.integers(1, 3))
    # Rounded to what it was made from.
    return TableConfig(batch, batch / inserts, capacity, windows * inserts, draw(st.sampled_from(read_ahead)))


speeds = st.lists(st.sampled_from([1, 3, 1000]), min_size=5, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    config=configs(read_ahead=(1, 1, 4)),
    speeds=speeds,
    seed=st.integers(0, 999),
    in_flight=st.sampled_from([1, 24]),
    resumes=st.sampled_from([0, tables.DRIFT]),
)
def test_neither_table_starves_the_learner_of_the_other(config, speeds, seed, in_flight, resumes):
    made = tables.make_tables(config, record_bytes=8)
    run = Run(made, config, in_flight)
    # Each resumption may add what is read ahead.
    assert run.until(16, speeds, np.random.default_rng(seed), resumes // config.read_ahead)
    # The stream is read whole.
    assert run.stream.evicted == 0


@settings(max_examples=12, deadline=None)
@given(
    config=configs(read_ahead=(1, 8)),
    speeds=speeds,
    seed=st.integers(0, 999),
    in_flight=st.sampled_from([1, 24]),
)
def test_a_stream_that_is_ahead_is_brought_back(config, speeds, seed, in_flight):
    """As far as nobody corrects it, and what reading ahead hides, and what a resumption adds; see `nodes`."""
    run, rng = Run(tables.make_tables(config, record_bytes=8), config, in_flight), np.random.default_rng(seed)
    ahead = 1 + 3 * config.read_ahead
    run.left_out = ahead
    assert run.until(ahead + 2, speeds, rng)
    run.comes_again, run.rest = ahead, tables.updates_between(config)
    assert run.until(run.updates + ahead * (1 + run.rest) + 4, speeds, rng)
    assert not run.comes_again
    assert run.stream.evicted == 0


@settings(max_examples=20, deadline=None)
@given(config=configs(), speeds=speeds, seed=st.integers(0, 999))
def test_with_less_it_would(config, speeds, seed):
    """The least is what `make_tables` gives, without what is for drift and what is read ahead."""
    examples, stream = tables.make_tables(config, record_bytes=8)
    # The stream takes one more than that, and another one is on its way to it when it is among the examples
    # already; the last of a sub-batch needs no other one to be there.
    least = examples.min_size_to_sample + config.batch_size - config.inserts_per_update - 3
    if least < 2 or not config.filters:
        return
    short = dataclasses.replace(stream, error_buffer=least - 1.0)
    assert not Run([examples, short], config).until(1, speeds, np.random.default_rng(seed))
    enough = dataclasses.replace(stream, error_buffer=float(least))
    assert Run([examples, enough], config).until(12, speeds, np.random.default_rng(seed))


def test_the_stream_holds_what_the_examples_need_to_begin():
    paper = TableConfig(batch_size=100, samples_per_insert=0.1, capacity=4000, super_batch=1000)
    examples, stream = tables.make_tables(paper, record_bytes=8)
    assert examples.min_size_to_sample == 2000
    assert stream.error_buffer == 2000 + 9 * 100
    assert examples.error_buffer == 200 + 8 * 100


def test_a_table_that_could_block_for_ever_is_refused():
    with pytest.raises(ValueError, match=r"error_buffer=0\.5: must be at least 1"):
        tables.Table("t", 8, True, 10, 0.5, 1, 0.5)
