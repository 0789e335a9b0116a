import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data.decoding import pool


@pytest.fixture(autouse=True)
def as_before():
    yield
    pool.use_threads(0)


@given(items=st.lists(st.integers(), max_size=60), count=st.integers(1, 5))
def test_results_come_in_the_order_of_the_items(items, count):
    pool.use_threads(count)
    assert list(pool.in_order(lambda item: 3 * item, items)) == [3 * item for item in items]


def test_several_threads_work_at_once():
    pool.use_threads(4)
    # Passed by none before all four are there.
    meeting = threading.Barrier(4, timeout=20)

    def work(item):
        if item % 4 == 0:
            meeting.wait()
        return threading.get_ident()

    found = list(pool.in_order(work, range(16)))
    assert len({*found[::4]}) == 4


def test_one_thread_is_the_callers_own():
    pool.use_threads(1)
    assert set(pool.in_order(lambda _: threading.get_ident(), range(20))) == {threading.get_ident()}


def test_an_error_comes_in_the_place_of_its_result():
    pool.use_threads(3)

    def work(item):
        if item == 17:
            raise KeyError(item)
        return item

    results = pool.in_order(work, range(30))
    # The parts before the one that has failed.
    before = [next(results) for _ in range(15)]
    assert before == list(range(15))
    with pytest.raises(KeyError, match="17"):
        list(results)
    # It is none of the pool's own affairs.
    assert list(pool.in_order(abs, range(30))) == list(range(30))


def test_the_number_of_threads_is_the_processors_unless_it_is_said():
    assert pool.threads() == pool.cpus() >= 1
    pool.use_threads(7)
    assert pool.threads() == 7
