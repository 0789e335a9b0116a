"""Which sub-batch goes to whom, which are kept, and for how long a selector waits."""

import threading

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from classact.nodes.serving import shelf as shelf_lib

SOON = 20.0


def sub_batch(number, size=4):
    return {
        "digits/id": np.arange(size) + 100 * number,
        "digits/encoded": [b"x" * row for row in range(size)],
    }


def one(rank=0, world=1, worker=0, workers=1):
    return shelf_lib.Consumer(rank, world, worker, workers)


@pytest.fixture
def make(tmp_path):
    stop = threading.Event()
    yield lambda ahead=4, kept=64: shelf_lib.Shelf(tmp_path / "serve", ahead, kept, stop)
    stop.set()


def files(tmp_path):
    return sorted(int(path.stem) for path in (tmp_path / "serve").glob("*.batch"))


def has_room(shelf):
    """Whether `wait_for_room` returns at once."""
    waiting = threading.Thread(target=shelf.wait_for_room, daemon=True)
    waiting.start()
    waiting.join(0.2)
    return not waiting.is_alive()


def test_it_waits_while_the_slowest_rank_has_not_taken(make):
    shelf = make(ahead=2)
    for rank in (0, 1):
        assert shelf.begin(one(rank, 2), None, "a") == 0
    assert [shelf.put(sub_batch(number)) for number in range(2)] == [0, 1]
    shelf.given(one(0, 2), 0)
    shelf.given(one(0, 2), 1)
    assert not has_room(shelf)
    shelf.given(one(1, 2), 0)
    assert has_room(shelf)


def test_it_waits_for_a_rank_that_has_not_come(make):
    shelf = make(ahead=1)
    shelf.begin(one(0, 2), None, "a")
    shelf.put(sub_batch(0))
    shelf.given(one(0, 2), 0)
    assert not has_room(shelf)


def test_stop_ends_the_waiting(tmp_path):
    stop = threading.Event()
    shelf = shelf_lib.Shelf(tmp_path / "serve", 1, 4, stop)
    shelf.put(sub_batch(0))
    found = []
    waiting = threading.Thread(target=lambda: found.append(shelf.wait_for_room()), daemon=True)
    waiting.start()
    stop.set()
    waiting.join(SOON)
    assert found == [False]
    assert shelf.end() is False


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.integers(1, 5), st.integers(1, 9))
def test_parts_of_ranks_are_the_whole(world, size):
    whole = sub_batch(3, size)
    parts = [shelf_lib.rows(whole, rank, world) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate([part["digits/id"] for part in parts]), whole["digits/id"])
    files = [file for part in parts for file in part["digits/encoded"]]
    assert files == whole["digits/encoded"]
    sizes = [len(part["digits/id"]) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_so_many_are_kept_and_none_that_all_ranks_have_confirmed(make, tmp_path):
    shelf = make(kept=2)
    for number in range(6):
        shelf.put(sub_batch(number))
    for rank in (0, 1):
        for number in range(5):
            shelf.given(one(rank, 2), number)
    # Of the five that both have, two; and the one that they have not.
    assert files(tmp_path) == [3, 4, 5]
    assert (shelf.oldest(), shelf.get(2)) == (3, None)
    shelf.confirm(0, 5)
    assert files(tmp_path) == [3, 4, 5]
    shelf.confirm(1, 4)
    assert files(tmp_path) == [4, 5]
    # What is nobody's yet is not given up, whoever says that it may be.
    shelf.confirm(0, 9)
    shelf.confirm(1, 9)
    assert files(tmp_path) == [5]


def test_another_process_goes_on_with_the_numbers_and_has_what_was_not_taken(make, tmp_path):
    shelf = make()
    shelf.begin(one(), None, "a")
    for number in range(3):
        shelf.put(sub_batch(number))
        shelf.given(one(), number)
    shelf.put(sub_batch(3))
    # As a machine leaves them whose power was cut.
    (tmp_path / "serve" / "000000000004.batch").write_bytes(b"classact sub-batch 1\n\x07")
    (tmp_path / "serve" / ".000000000005.batch.tmp").write_bytes(b"")
    again = make()
    assert again.number == 4
    found = again.get(3)
    np.testing.assert_array_equal(found["digits/id"], sub_batch(3)["digits/id"])
    assert found["digits/encoded"] == sub_batch(3)["digits/encoded"]
    # Where it was when the last one was written.
    assert again.begin(one(), None, "b") == 3
    assert again.put(sub_batch(4)) == 4
    assert files(tmp_path) == [0, 1, 2, 3, 4]


def test_a_trainer_goes_back_to_a_state_of_its_own(make):
    shelf = make(ahead=4)
    shelf.begin(one(), None, "a")
    for number in range(4):
        shelf.put(sub_batch(number))
        shelf.given(one(), number)
    assert shelf.begin(one(), 1, "b") == 1
    # Three that it has not, and room for one.
    assert has_room(shelf)
    shelf.put(sub_batch(4))
    assert not has_room(shelf)
    # Without a state: after what it was given.
    shelf.given(one(), 1)
    assert shelf.begin(one(), None, "c") == 2
    # In the session in which it was given them the state that it began with is none any more.
    shelf.begin(one(), 1, "d")
    shelf.given(one(), 1)
    assert shelf.begin(one(), 1, "d") == 2


def test_workers_of_a_rank_take_turns(make):
    shelf = make(ahead=2)
    workers = [one(0, 1, worker, 2) for worker in (0, 1)]
    for worker, first in zip(workers, (0, 1), strict=True):
        assert shelf.begin(worker, first, "a") == first
    for number in range(2):
        shelf.put(sub_batch(number))
    shelf.given(workers[1], 1)
    assert not has_room(shelf)
    shelf.given(workers[0], 0)
    # The one needs 2 next and the other 3.
    assert shelf.begin(workers[0], 0, "a") == 2
    assert has_room(shelf)


def test_other_ranks_are_another_trainer(make):
    shelf = make(ahead=2)
    shelf.begin(one(), None, "a")
    for number in range(2):
        shelf.put(sub_batch(number))
        shelf.given(one(), number)
    for rank in (0, 1):
        assert shelf.begin(one(rank, 2), None, "b") == 2
    shelf.put(sub_batch(2))
    for rank in (0, 1):
        shelf.given(one(rank, 2), 2)
    # What the one before still asks for, while it ends, changes nothing.
    shelf.given(one(), 0)
    assert shelf.begin(one(0, 2), None, "b") == shelf.begin(one(1, 2), None, "b") == 3


def test_it_ends_when_all_have_the_last(make):
    shelf = make()
    shelf.begin(one(), None, "a")
    shelf.put(sub_batch(0))
    found = []
    ending = threading.Thread(target=lambda: found.append(shelf.end()), daemon=True)
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()
    assert not shelf.has_ended_before(0) and shelf.has_ended_before(1)
    shelf.given(one(), 0)
    # Told that there are no more.
    shelf.given(one(), 1)
    ending.join(SOON)
    assert found == [True]


def test_what_it_counts(make):
    shelf = make()
    shelf.begin(one(), None, "a")
    for number in range(3):
        shelf.put(sub_batch(number))
    shelf.given(one(), 0)
    found = shelf.counts()
    assert (found["serve/handed"], found["serve/taken"], found["serve/kept"]) == (3, 1, 3)
    assert (found["serve/readers"], found["serve/trainer_wait_seconds"]) == (1, 0)
