"""Calls of nodes that answer, that fail, and that are gone."""

import threading
from concurrent import futures

import numpy as np
import pytest

from classact import calls
from classact.launch.assembly import rpc
from classact.nodes import inference_server

# Longer than any test takes: an answer is not what ends it.
NEVER = 600.0
BATCH = {"image": np.zeros((2, 1, 1, 1), np.uint8)}


class Learner:
    def get_parameters(self, names, newer_than, timeout, follow):
        return (newer_than + 1, False, {name: b"data" for name in names})

    def get_step(self):
        raise LookupError("no step yet")


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/learner"


@pytest.fixture
def serve(address):
    servers = []

    def start(**methods):
        servers.append(calls.Server(address, methods))
        servers[-1].start()
        return address

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def served(serve):
    learner = Learner()
    return serve(get_parameters=learner.get_parameters, get_step=learner.get_step)


@pytest.fixture
def stop():
    return threading.Event()


@pytest.fixture
def gone(address, stop):
    """A client of a learner that is gone, in a node that is soon asked to stop."""
    threading.Timer(0.3, stop.set).start()
    return rpc.LearnerClient(calls.Client(address, timeout=NEVER), stop)


def in_thread(call):
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@pytest.mark.parametrize("run", [lambda call: call(), in_thread], ids=["main thread", "another thread"])
def test_answers_and_errors_pass(served, run):
    learner = rpc.LearnerClient(calls.Client(served, timeout=30))
    assert run(lambda: learner.get_parameters(("online",), 6, 1.0)) == (7, False, {"online": b"data"})
    with pytest.raises(rpc.RpcError, match="no step yet"):
        run(learner.get_step)


def test_a_node_that_is_stopped_waits_for_no_answer(gone):
    assert gone.get_parameters(("online",), 6, 1.0) is None
    assert gone.get_step() == -1
    gone.report_evaluation("test", 7)
    with pytest.raises(rpc.StoppedError, match="get_cursors"):
        gone.get_cursors("digits")


def test_a_server_that_comes_back_answers(address, serve, stop):
    learner = rpc.LearnerClient(calls.Client(address, timeout=NEVER), stop)
    timer = threading.Timer(0.3, lambda: serve(get_parameters=Learner().get_parameters))
    timer.start()
    assert learner.get_parameters(("online",), 6, 1.0)[0] == 7
    timer.join()


def test_calls_time_out(address, stop):
    learner = rpc.LearnerClient(calls.Client(address, timeout=0.3), stop)
    with pytest.raises(rpc.RpcError, match=r"(?i)deadline"):
        learner.get_step()


class TestInferenceClient:
    def test_scores(self, serve):
        def score(batch):
            assert batch["image"].shape == (2, 1, 1, 1)
            return np.array([1.0, 2.0], np.float32), 5

        client = rpc.InferenceClient(calls.Client(serve(score_arrays=score), timeout=30))
        found = client(BATCH)
        assert isinstance(found, inference_server.Scores)
        assert found.values.dtype == np.float32
        assert (found.values.tolist(), found.step) == ([1.0, 2.0], 5)

    def test_a_server_that_is_stopped_cancels(self, serve):
        def score(batch):
            raise futures.CancelledError("stopped")

        client = rpc.InferenceClient(calls.Client(serve(score_arrays=score), timeout=30))
        with pytest.raises(futures.CancelledError):
            client(BATCH)

    def test_another_error_that_names_one_cancels_nothing(self, serve):
        def score(batch):
            raise RuntimeError("no CancelledError")

        client = rpc.InferenceClient(calls.Client(serve(score_arrays=score), timeout=30))
        with pytest.raises(rpc.RpcError, match="no CancelledError"):
            client(BATCH)

    def test_who_finds_it_full_asks_again(self, address):
        inside, leave = threading.Event(), threading.Event()

        def score(batch):
            inside.set()
            assert leave.wait(30)
            return np.zeros(2, np.float32), 5

        server = calls.Server(address, {"score_arrays": score}, threads=1, max_waiting=0)
        server.start()
        try:
            with futures.ThreadPoolExecutor(2) as pool:
                clients = [rpc.InferenceClient(calls.Client(address, timeout=30)) for _ in range(2)]
                first = pool.submit(clients[0], BATCH)
                assert inside.wait(30)
                second = pool.submit(clients[1], BATCH)
                with pytest.raises(TimeoutError):
                    second.result(0.3)
                leave.set()
                assert [first.result(30).step, second.result(30).step] == [5, 5]
        finally:
            server.stop()

    def test_a_server_that_is_gone_does_not_keep_a_node_that_is_stopped(self, address, stop):
        threading.Timer(0.3, stop.set).start()
        client = rpc.InferenceClient(calls.Client(address, timeout=NEVER), stop)
        with pytest.raises(futures.CancelledError):
            client(BATCH)


def test_a_node_uses_its_own_stop_event(monkeypatch, address):
    own = threading.Event()
    own.set()
    monkeypatch.setattr(rpc.lp, "stop_event", lambda: own)
    assert rpc.LearnerClient(calls.Client(address, timeout=NEVER)).get_step() == -1
