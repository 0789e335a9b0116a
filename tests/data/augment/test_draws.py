import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from classact.data.augment.draws import uniform

words = st.integers(0, 2**32 - 1)
LIMIT = 2**64


def splitmix(state, count):
    """As its authors wrote it, with Python's integers."""
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % LIMIT
        yield mixed(state)


def mixed(value):
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % LIMIT
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % LIMIT
    return value ^ (value >> 31)


@given(seed=words, epoch=words, ids=st.lists(st.integers(0, 2**62), max_size=5), count=st.integers(1, 5))
def test_they_are_splitmix_of_a_hash(seed, epoch, ids, count):
    found = uniform(seed, epoch, np.array(ids, np.int64), count)
    assert found.shape == (len(ids), count)
    for row, example in zip(found, ids, strict=True):
        (state,) = splitmix(seed, 1)
        (state,) = splitmix(state ^ epoch, 1)
        (state,) = splitmix(state ^ example, 1)
        assert row.tolist() == [(number >> 11) / 2**53 for number in splitmix(state, count)]


def test_splitmix_is_the_published_one():
    # From the reference implementation, for the state 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert list(splitmix(1234567, 3)) == expected


def test_numbers_are_even_and_do_not_go_together():
    found = uniform(7, 3, np.arange(40_000), 3)
    assert np.all((found >= 0) & (found < 1))
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    # Chi-squared of 19 degrees of freedom: below 44 in all but one of a thousand seeds.
    assert np.sum((counts - found.size / 20) ** 2 / (found.size / 20)) < 44
    others = [uniform(8, 3, np.arange(40_000), 1), uniform(7, 4, np.arange(40_000), 1)]
    columns = np.column_stack([found, np.roll(found[:, 0], 1), *others])
    apart = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(apart).max() < 4.5 / np.sqrt(40_000)


def test_an_example_has_its_numbers_in_any_batch():
    whole = uniform(1, 2, np.arange(10), 4)
    assert np.array_equal(uniform(1, 2, np.array([7, 3]), 4), whole[[7, 3]])
    assert np.array_equal(uniform(1, 2, np.arange(10), 2), whole[:, :2])
