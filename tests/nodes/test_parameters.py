"""Parameters reach whoever follows them, the newest first, and nobody makes the learner wait."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.nodes import parameters

SOON = 10.0


def model(value, dtype=jnp.float32):
    return {"params": {"w": jnp.full((3,), value, dtype)}, "state": {}}


def value_of(payload, name="learner"):
    return float(parameters.decode(payload[name])["params"]["w"][0])


@pytest.fixture
def store():
    made = parameters.ParameterStore()
    yield made
    made.close()


class Source:
    """A store as a learner's client sees it."""

    def __init__(self, store):
        self._store = store

    def get_parameters(self, names, newer_than, timeout, follow=False):
        return self._store.get(names, newer_than, timeout, follow)

    def get_step(self):
        return self._store.step


def in_thread(function):
    """Runs a function in a thread; `result()` waits for its answer."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function()), daemon=True)
    thread.start()

    def result(timeout=SOON):
        thread.join(timeout)
        assert answers, "no answer in time"
        return answers[0]

    return result


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_encoding_keeps_values_and_dtypes(dtype):
    tree = {"params": {"dense": {"w": jnp.arange(6, dtype=dtype).reshape(2, 3)}}, "state": {}}
    found = parameters.decode(parameters.encode(tree))
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert found["params"]["dense"]["w"].dtype == dtype
    np.testing.assert_array_equal(found["params"]["dense"]["w"], tree["params"]["dense"]["w"])


def test_the_first_version_is_published_unasked(store):
    store.offer(0, {"learner": model(7.0), "online": model(8.0)})
    deadline = time.monotonic() + SOON
    while set(store._published) != {"learner", "online"}:
        assert time.monotonic() < deadline
    found = store.get(("online", "learner"), -1, SOON)
    assert (found.step, found.finished) == (0, False)
    assert (value_of(found.payload), value_of(found.payload, "online")) == (7.0, 8.0)


def test_a_poll_without_news_ends_with_none(store):
    store.offer(3, {"learner": model(1.0)})
    assert store.get(("learner",), -1, SOON).step == 3
    started = time.monotonic()
    assert store.get(("learner",), 3, 0.2) is None
    assert 0.15 < time.monotonic() - started < 5


def test_a_poll_waits_for_the_version_that_it_asked_for(store):
    store.offer(0, {"learner": model(0.0)})
    answer = in_thread(lambda: store.get(("learner",), 4, SOON))
    step = 0
    while not store._wanted:
        assert step == 0
    for step in range(1, 7):
        store.offer(step, {"learner": model(float(step))})
    found = answer()
    assert found.step >= 5
    assert value_of(found.payload) == found.step


def test_what_nobody_asks_for_is_not_copied(store):
    store.offer(0, {"learner": model(0.0)})
    for newer_than in (100, 0):
        assert store.get(("learner",), newer_than, 0.01) is None
    store.offer(1, {"learner": model(1.0)})
    assert store.get(("learner",), 0, 0.2) is None


def test_a_late_request_costs_one_copy():
    copied = []
    store = parameters.ParameterStore(lambda models: copied.append(set(models)) or models)
    for step in range(60):
        store.offer(step, {"learner": model(float(step))})
    # An evaluator that is slower than `every`: what it asks for has passed.
    answer = in_thread(lambda: store.get(("learner",), 49, SOON))
    while not store._wanted:
        pass
    for step in range(60, 160):
        store.offer(step, {"learner": model(float(step))})
    assert answer().step == 60
    assert copied == [{"learner"}] * 2
    store.offer(160, {"learner": model(160.0)}, final=True)
    assert store.get(("learner",), 60, SOON)[:2] == (160, True)
    store.close()


def test_what_overtakes_a_copy_is_given_to_who_waited_for_it(store, monkeypatch):
    encode, gate, copying = parameters.encode, threading.Event(), threading.Event()

    def slow(variables):
        copying.set()
        assert gate.wait(SOON)
        return encode(variables)

    store.offer(0, {"learner": model(0.0), "online": model(0.0)})
    assert store.get(("online",), -1, SOON, follow=True).step == 0
    monkeypatch.setattr(parameters, "encode", slow)
    store.offer(1, {"learner": model(1.0), "online": model(1.0)})
    assert copying.wait(SOON)
    answer = in_thread(lambda: store.get(("learner",), 2, SOON))
    while not store._wanted:
        pass
    for step in (2, 3, 4):
        store.offer(step, {"learner": model(float(step)), "online": model(float(step))})
    gate.set()
    assert answer().step == 4


@pytest.mark.parametrize(("computed", "copied"), [(False, [0, 1, 2, 3]), (True, [0, 1, 3])])
def test_a_version_gives_way_only_to_one_that_is_computed(store, monkeypatch, computed, copied):
    encode, gate, copying, found = parameters.encode, threading.Event(), threading.Event(), []

    def slow(variables):
        copying.set()
        assert gate.wait(SOON)
        found.append(int(variables["params"]["w"][0]))
        return encode(variables)

    store.offer(0, {"online": model(0.0)})
    found.append(store.get(("online",), -1, SOON, follow=True).step)
    monkeypatch.setattr(parameters, "encode", slow)
    store.offer(1, {"online": model(1.0)})
    assert copying.wait(SOON)
    if not computed:
        monkeypatch.setattr(parameters._Copy, "overtakes", lambda *_: False)
    for step in (2, 3):
        store.offer(step, {"online": model(float(step))})
    gate.set()
    assert store.get(("online",), 2, SOON).step == 3
    assert found == copied


def test_who_offers_and_who_waits_hear_that_a_copy_failed(store, monkeypatch):
    def broken(_):
        raise MemoryError("no room")

    monkeypatch.setattr(parameters, "encode", broken)
    store.offer(1, {"online": model(1.0)})
    with pytest.raises(RuntimeError, match="could not be copied"):
        store.get(("online",), 0, SOON)
    with pytest.raises(RuntimeError, match="could not be copied"):
        store.offer(2, {"online": model(2.0)})


def test_the_newest_wins_over_a_slow_copy(store, monkeypatch):
    encode, gate, copying = parameters.encode, threading.Event(), threading.Event()

    def slow(variables):
        copying.set()
        assert gate.wait(SOON)
        return encode(variables)

    store.offer(0, {"learner": model(0.0)})
    assert store.get(("learner",), -1, SOON).step == 0
    assert store.get(("learner",), 0, 0.01, follow=True) is None
    monkeypatch.setattr(parameters, "encode", slow)
    store.offer(1, {"learner": model(1.0)})
    assert copying.wait(SOON)
    started = time.monotonic()
    for step in range(2, 30):
        store.offer(step, {"learner": model(float(step))})
    # The copy of step 1 is stuck, and the learner went on.
    assert time.monotonic() - started < 5
    gate.set()
    assert store.get(("learner",), 1, SOON).step == 29


def test_a_stuck_client_holds_up_nobody(store):
    store.offer(0, {"learner": model(0.0)})
    clients = [in_thread(lambda: store.get(("learner",), 10**6, 1.0)) for _ in range(8)]
    started = time.monotonic()
    for step in range(1, 50):
        store.offer(step, {"learner": model(float(step))})
    assert time.monotonic() - started < 5
    assert all(client() is None for client in clients)


def test_the_last_step_says_that_it_is_the_last(store):
    store.offer(0, {"learner": model(0.0)})
    store.offer(9, {"learner": model(9.0)}, final=True)
    assert store.get(("learner",), 0, SOON)[:2] == (9, True)
    # Nothing newer will come: an answer without a payload, at once.
    assert store.get(("learner",), 9, SOON) == (9, True, {})


def test_closing_wakes_the_clients():
    store = parameters.ParameterStore()
    answer = in_thread(lambda: store.get(("learner",), -1, 60.0))
    while not store._wanted:
        pass
    store.close()
    assert answer() == (-1, True, {})


def test_donated_buffers_do_not_break_a_published_version(store, monkeypatch):
    encode, gate = parameters.encode, threading.Event()
    monkeypatch.setattr(parameters, "encode", lambda tree: gate.wait(SOON) and encode(tree))
    variables = model(5.0)
    store.offer(0, {"learner": variables})
    step = jax.jit(lambda tree: jax.tree.map(lambda array: array + 1, tree), donate_argnums=0)
    changed = step(variables)
    assert variables["params"]["w"].is_deleted()
    gate.set()
    assert value_of(store.get(("learner",), -1, SOON).payload) == 5.0
    assert float(changed["params"]["w"][0]) == 6.0


def test_only_what_is_copied_is_brought_to_the_hosts_own_devices():
    seen = []

    def on_host(models):
        seen.append(set(models))
        return jax.tree.map(lambda array: array + 10.0, models)

    store = parameters.ParameterStore(on_host)
    store.offer(0, {"learner": model(1.0), "online": model(2.0)})
    assert value_of(store.get(("online",), -1, SOON).payload, "online") == 12.0
    # Nobody waits for this one, and the last has everything.
    store.offer(1, {"learner": model(1.0)})
    store.offer(2, {"learner": model(3.0)}, final=True)
    assert value_of(store.get(("learner",), 1, SOON).payload) == 13.0
    assert seen == [{"learner", "online"}, {"learner"}]
    store.close()


def test_a_follower_places_what_arrives(store):
    stop = threading.Event()
    store.offer(0, {"learner": model(4.0)}, final=True)
    placed = parameters.Follower(
        Source(store), ("learner",), stop, place=lambda tree: jax.tree.map(lambda array: array + 1, tree)
    )
    assert float(placed.latest(SOON)[1]["learner"]["params"]["w"][0]) == 5.0


def wait_for_step(follower, step):
    deadline = time.monotonic() + SOON
    while follower.latest(SOON)[0] < step:
        assert time.monotonic() < deadline, f"step {step} did not arrive"
    return follower.latest(SOON)


def test_a_follower_gets_each_version_and_its_step(store):
    stop = threading.Event()
    store.offer(0, {"learner": model(0.0)})
    follower = parameters.Follower(Source(store), ("learner",), stop, poll_seconds=0.2)
    for step in range(5):
        found, variables = wait_for_step(follower, step)
        assert found == step
        assert isinstance(variables["learner"]["params"]["w"], jax.Array)
        assert float(variables["learner"]["params"]["w"][0]) == step
        assert follower.age_seconds < SOON
        while not store._wanted:  # It asks for the next one by itself.
            pass
        store.offer(step + 1, {"learner": model(step + 1.0)}, final=step == 4)
    assert wait_for_step(follower, 5)[0] == 5
    follower._thread.join(SOON)
    assert not follower._thread.is_alive()
    stop.set()


def test_a_follower_without_parameters_says_so(store):
    stop = threading.Event()
    follower = parameters.Follower(Source(store), ("online",), stop, poll_seconds=0.1)
    with pytest.raises(TimeoutError, match=r"online.*0\.3 s"):
        follower.latest(0.3)
    stop.set()
    follower._thread.join(SOON)
    assert not follower._thread.is_alive()


class Failing(Source):
    """A learner that cannot be reached a few times, or never."""

    def __init__(self, store, error, times):
        super().__init__(store)
        self._error, self._times = error, times

    def get_parameters(self, names, newer_than, timeout, follow=False):
        self._times -= 1
        if self._times >= 0:
            raise self._error
        return super().get_parameters(names, newer_than, timeout, follow)


@pytest.mark.parametrize("error", [RuntimeError("gone"), ConnectionError("gone")])
def test_a_follower_waits_for_a_learner_that_is_gone(store, error):
    stop = threading.Event()
    store.offer(3, {"learner": model(3.0)})
    follower = parameters.Follower(Failing(store, error, times=2), ("learner",), stop, poll_seconds=0.1)
    assert follower.latest(SOON)[0] == 3
    stop.set()


@pytest.mark.parametrize(
    ("error", "patience"),
    [(RuntimeError("gone"), 0.0), (ConnectionError("gone"), 0.0), (ValueError("no"), 99.0)],
)
def test_a_follower_reports_that_it_has_waited_long_enough(store, error, patience):
    source = Failing(store, error, times=10**6)
    follower = parameters.Follower(source, ("learner",), threading.Event(), unreachable_seconds=patience)
    with pytest.raises(RuntimeError, match="cannot follow") as caught:
        follower.latest(SOON)
    assert caught.value.__cause__ is error


def test_a_follower_goes_back_with_the_learner(store):
    source = Source(store)
    stop = threading.Event()
    store.offer(9, {"learner": model(9.0)})
    follower = parameters.Follower(source, ("learner",), stop, poll_seconds=0.1)
    wait_for_step(follower, 9)
    # Another process, which has its checkpoint of step 4.
    source._store = restarted = parameters.ParameterStore()
    restarted.offer(4, {"learner": model(4.0)})
    deadline = time.monotonic() + SOON
    while follower.latest(SOON)[0] != 4:
        assert time.monotonic() < deadline
    assert float(follower.latest(SOON)[1]["learner"]["params"]["w"][0]) == 4.0
    stop.set()
    restarted.close()
