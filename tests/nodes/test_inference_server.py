"""Requests are scored together at one shape, and each caller gets its own answer."""

import threading
import time
from concurrent import futures

import jax
import numpy as np
import pytest

from classact.nodes import inference_node, inference_server, metrics, parameters, tally

SOON = 10.0


class Scorer:
    """Scores an example by its value, jitted; counts XLA's shapes and the calls."""

    def __init__(self):
        self.shapes = []
        self.fills = []
        self.steps = []
        self.gate = threading.Event()
        self.gate.set()
        self._jitted = jax.jit(self._score)

    def _score(self, variables, batch):
        self.shapes.append(batch["x"].shape)  # Runs when it is traced only.
        return batch["x"][:, 0] * variables.get("online", {"w": 1.0})["w"]

    def __call__(self, variables, batch, step):
        assert self.gate.wait(SOON)
        self.fills.append(len(np.unique(batch["x"][:, 0])))
        self.steps.append(int(step))
        return self._jitted(variables, batch)


def request(*values):
    return {"x": np.array(values, np.float32)[:, None]}


@pytest.fixture
def stop():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def make_server(stop):
    def make(score_batch, **options):
        options = {"fixed": {}, "follower": None, "roles": {}, "batch_size": 8, **options}
        return inference_server.InferenceServer(score_batch, stop=stop, **options)

    return make


def in_threads(server, requests):
    """Sends requests at the same time; returns futures of the answers, in order."""
    pool = futures.ThreadPoolExecutor(len(requests))
    return [pool.submit(server.score, item) for item in requests]


def wait_until(condition):
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline


def test_one_shape_for_requests_of_any_size(make_server):
    scorer = Scorer()
    server = make_server(scorer)
    for size in range(1, 9):
        values = np.arange(size) + 1.0
        scores = server.score(request(*values))
        np.testing.assert_array_equal(scores.values, values)
        assert scores.step == -1
    assert scorer.shapes == [(8, 1)]


def test_what_is_computed_is_counted_padding_beside_it(make_server, stop, tmp_path):
    counts = tally.Tally(tmp_path, "inference-a-0", kind="scoring")
    server = make_server(Scorer(), counts=counts)
    for size in (3, 8, 1):
        server.score(request(*range(size)))
    (found,) = tally.read(tmp_path)
    assert (found["examples"], found["slots"]) == (3 + 8 + 1, 3 * 8)
    assert 0 < found["busy_seconds"] < SOON


def test_each_caller_gets_what_else_its_records_carry(make_server, stop):
    scorer = Scorer()

    def score(variables, batch, step):
        return {"score": scorer(variables, batch, step), "joint_online": batch["x"].repeat(3, axis=1)}

    server = make_server(score, max_wait_seconds=1.0)
    answers = [future.result(SOON) for future in in_threads(server, [request(1, 2, 3), request(4, 5)])]
    for values, answer in zip(([1, 2, 3], [4, 5]), answers, strict=True):
        np.testing.assert_array_equal(answer.values, values)
        assert answer.carried["joint_online"].tolist() == [[value] * 3 for value in values]
    answered = inference_node.InferenceNode(server, [], stop).score_arrays(request(6))
    assert answered[0] == [6] and answered[1] == -1 and answered[2]["joint_online"].tolist() == [[6] * 3]


def test_padding_is_marked(make_server):
    found = []

    def score(variables, batch, step):
        found.append(batch["valid"].tolist())
        return batch["x"][:, 0]

    make_server(score).score(request(1, 2, 3))
    assert found == [[True] * 3 + [False] * 5]


def test_waiting_requests_are_scored_together_and_answers_go_home(make_server):
    scorer = Scorer()
    server = make_server(scorer, max_wait_seconds=1.0)
    scorer.gate.clear()
    first = in_threads(server, [request(*range(8))])
    wait_until(lambda: server._requests.empty() and first[0].running())
    several = in_threads(server, [request(10, 11, 12), request(20, 21), request(30, 31, 32)])
    wait_until(lambda: server._requests.qsize() == 3)
    scorer.gate.set()
    answers = [future.result(SOON).values.tolist() for future in several]
    assert answers == [[10, 11, 12], [20, 21], [30, 31, 32]]
    np.testing.assert_array_equal(first[0].result(SOON).values, np.arange(8))
    assert scorer.fills == [8, 8]
    assert scorer.shapes == [(8, 1)]


def test_what_does_not_fit_any_more_waits_for_the_next_batch(make_server):
    scorer = Scorer()
    server = make_server(scorer, max_wait_seconds=0.05)
    several = in_threads(server, [request(*range(10 * i, 10 * i + 5)) for i in range(6)])
    for index, future in enumerate(several):
        assert future.result(SOON).values.tolist() == [10 * index + j for j in range(5)]
    assert len(scorer.fills) == 6
    assert scorer.shapes == [(8, 1)]


def test_a_part_filled_batch_waits_only_so_long(make_server):
    server = make_server(Scorer(), max_wait_seconds=0.2)
    server.score(request(1.0))  # Compiles.
    started = time.monotonic()
    server.score(request(2.0))
    assert 0.15 < time.monotonic() - started < 3


def test_a_request_larger_than_the_batch_is_refused(make_server):
    with pytest.raises(ValueError, match=r"9 examples.*batch of 8"):
        make_server(Scorer()).score(request(*range(9)))


def test_scores_have_the_step_of_the_followed_parameters(make_server, stop):
    store = parameters.ParameterStore()

    class Source:
        def get_parameters(self, names, newer_than, timeout, follow=False):
            return store.get(names, newer_than, timeout, follow)

        def get_step(self):
            return store.step

    store.offer(0, {"learner": {"w": np.float32(2.0)}})
    follower = parameters.Follower(Source(), ("learner",), stop, poll_seconds=0.2)
    scorer = Scorer()
    server = make_server(scorer, follower=follower, roles={"learner": "online"})
    scores = server.score(request(3.0))
    assert (scores.values.tolist(), scores.step) == ([6.0], 0)
    store.offer(7, {"learner": {"w": np.float32(5.0)}}, final=True)
    wait_until(lambda: follower.latest(SOON)[0] == 7)
    scores = server.score(request(3.0))
    assert (scores.values.tolist(), scores.step) == ([15.0], 7)
    # A score may change with the step of what makes it.
    assert scorer.steps == [0, 7]
    store.close()


def test_fixed_variables_are_used(make_server):
    server = make_server(Scorer(), fixed={"online": {"w": np.float32(-1.0)}})
    assert server.score(request(4.0)).values.tolist() == [-4.0]


def broken(variables, batch, step):
    raise TypeError("a policy with a mistake")


def test_an_error_reaches_callers_and_wait(make_server):
    server = make_server(broken)
    for attempt in (lambda: server.score(request(1.0)), server.wait):
        with pytest.raises(RuntimeError, match="inference server failed") as caught:
            attempt()
        assert "with a mistake" in str(caught.value.__cause__)


def test_parameters_that_do_not_come_are_an_error(make_server, stop):
    class Silent:
        def get_parameters(self, names, newer_than, timeout, follow=False):
            stop.wait(timeout)

        def get_step(self):
            return -1

    follower = parameters.Follower(Silent(), ("online",), stop, poll_seconds=0.1)
    server = make_server(
        Scorer(), follower=follower, roles={"online": "online"}, first_parameters_seconds=0.2
    )
    with pytest.raises(RuntimeError, match="failed") as caught:
        server.score(request(1.0))
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_stop_releases_callers(make_server, stop):
    scorer = Scorer()
    server = make_server(scorer)
    scorer.gate.clear()
    waiting = in_threads(server, [request(1.0), request(*range(8))])
    wait_until(lambda: all(future.running() for future in waiting))
    stop.set()
    started = time.monotonic()
    for future in waiting:
        with pytest.raises(futures.CancelledError):
            future.result(SOON)
    assert time.monotonic() - started < 3
    scorer.gate.set()
    server.wait()
    assert not server._thread.is_alive()


def test_metrics_show_how_full_the_batches_were(make_server, tmp_path, read_metrics):
    writer = metrics.MetricsWriter(tmp_path, "inference")
    server = make_server(Scorer(), metrics=writer, log_every=2, max_wait_seconds=0.0)
    for _ in range(4):
        server.score(request(1.0, 2.0))
    wait_until(lambda: len(read_metrics(writer.path)) == 2)
    for line in read_metrics(writer.path):
        assert line["inference/batch_fill"] == 0.25
        assert line["inference/examples_per_second"] > 0
        assert line["inference/parameter_age_seconds"] == 0


class Loop:
    """A run loop that fails, or lives until the stop signal."""

    def __init__(self, stop, error=None):
        self._stop = stop
        self._error = error
        self.ended = False

    def run(self):
        if self._error is not None:
            raise self._error
        assert self._stop.wait(SOON)
        self.ended = True


def test_the_node_ends_with_its_first_failure(make_server, stop):
    other = Loop(stop)
    node = inference_node.InferenceNode(
        make_server(Scorer()), [other, Loop(stop, KeyError("a broken reader"))], stop
    )
    with pytest.raises(KeyError, match="a broken reader"):
        node.run()
    assert stop.is_set()
    assert other.ended


def test_the_node_ends_with_the_stop_signal(make_server, stop):
    loops = [Loop(stop), Loop(stop)]
    node = inference_node.InferenceNode(make_server(Scorer()), loops, stop)
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    stop.set()
    thread.join(SOON)
    assert not thread.is_alive()
    assert all(loop.ended for loop in loops)
