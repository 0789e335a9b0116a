import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data import epoch_order
from classact.data.epoch_order import ComputedOrder, permuted
from classact.data.shares import Remainder

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60)
@given(count=st.integers(1, 700), seed=seeds, epoch=st.integers(0, 10**6))
def test_each_place_has_another_example(count, seed, epoch):
    found = permuted(np.arange(count), count, seed, epoch)
    assert found.dtype == np.int64 and sorted(found.tolist()) == list(range(count))


def test_every_permutation_is_as_likely():
    count = 5
    found = np.array(
        [permuted(np.arange(count), count, seed, epoch) for seed in range(60) for epoch in range(60)]
    )
    every = {tuple(order): 0 for order in itertools.permutations(range(count))}
    for order in found.tolist():
        every[tuple(order)] += 1
    expected = len(found) / len(every)
    # Chi-squared of 119 degrees of freedom: above 186 in one of ten thousand seeds.
    assert sum((number - expected) ** 2 / expected for number in every.values()) < 186


def test_neighbours_in_the_source_are_no_neighbours_in_an_epoch():
    count = 50_000
    first, second = (permuted(np.arange(count), count, 3, epoch) for epoch in range(2))
    bound = 4.5 / np.sqrt(count)
    for other in (np.arange(count), np.roll(first, 1), np.roll(first, 7), second):
        assert abs(np.corrcoef(first, other)[0, 1]) < bound
    # Low bits and high bits, of which the halves of the network are made.
    for bits in (8, 64, 256):
        assert abs(np.corrcoef(first % bits, np.arange(count) % bits)[0, 1]) < bound


def test_a_huge_source_is_permuted_at_some_places_without_all_of_it():
    count = 1_800_000_000
    places = np.random.default_rng(0).choice(count, 20_000, replace=False)
    found = permuted(places, count, 0, 0)
    assert len(np.unique(found)) == 20_000 and found.min() >= 0 and found.max() < count
    assert np.histogram(found, bins=10, range=(0, count))[0].min() > 1_800
    order = ComputedOrder(0, 0, Remainder(count), 3, 64)
    assert len(order) == count // 64
    assert order[1000:1003].tolist() == permuted(3 + 64 * np.arange(1000, 1003), count, 0, 0).tolist()


places = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(count=st.integers(1, 120), sets=st.lists(places, max_size=4), epoch=st.integers(0, 3))
def test_what_is_unread_is_found_without_a_list_of_it(count, sets, epoch):
    remainder = Remainder(count)
    for ended in sets:
        ends = []
        for reader, (at, position) in enumerate(ended):
            at = max(at, remainder.epoch)
            share = len(range(reader, remainder.size(at), len(ended)))
            ends.append((at, min(position, share)))
        remainder = remainder.after(ends)
    epoch += remainder.epoch
    positions = np.arange(remainder.size(epoch))
    expected = remainder.unread(np.arange(count), epoch)
    assert remainder.places(positions, epoch).tolist() == expected.tolist()
    assert remainder.places(positions[::-2], epoch).tolist() == expected[::-2].tolist()


def test_small_sources_keep_the_order_that_they_had():
    assert epoch_order.MOST_IN_MEMORY == 1 << 24
    order = epoch_order.ShuffledOrder(5, 2, Remainder(30), 1, 4)
    assert order[2:5].tolist() == np.random.default_rng([5, 2]).permutation(30)[1::4][2:5].tolist()
