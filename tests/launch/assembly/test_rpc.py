"""Calls of nodes that answer, that fail, and that are gone."""

import threading
from concurrent import futures

import numpy as np
import pytest

from classact.launch.assembly import courier, rpc
from classact.launch.engines.ports import LoopbackPorts
from classact.nodes import inference_server, parameters

# Longer than any test takes: an answer is not what ends it.
NEVER = 600.0
BATCH = {"image": np.zeros((2, 1, 1, 1), np.uint8)}


class Learner:
    def get_parameters(self, names, newer_than, timeout, follow):
        return (newer_than + 1, False, {name: b"data" for name in names})

    def get_step(self):
        raise LookupError("no step yet")


@pytest.fixture
def address():
    with LoopbackPorts() as ports:
        yield f"127.0.0.1:{ports()}"


@pytest.fixture
def served(address):
    server = courier.Server("learner", port=int(address.split(":")[1]))
    learner = Learner()
    for method in ("get_parameters", "get_step"):
        server.Bind(method, getattr(learner, method))
    server.Start()
    yield address
    server.Stop()


@pytest.fixture
def stop():
    return threading.Event()


@pytest.fixture
def gone(address, stop):
    """A client of a learner that is gone, in a node that is soon asked to stop."""
    threading.Timer(0.3, stop.set).start()
    return rpc.LearnerClient(courier.Client(address, call_timeout=NEVER), stop)


def in_thread(call):
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@pytest.mark.parametrize("run", [lambda call: call(), in_thread], ids=["main thread", "another thread"])
def test_answers_and_errors_pass(served, run):
    learner = rpc.LearnerClient(courier.Client(served, call_timeout=30))
    assert run(lambda: learner.get_parameters(("online",), 6, 1.0)) == (7, False, {"online": b"data"})
    with pytest.raises(rpc.RpcError, match="no step yet"):
        run(learner.get_step)


def test_a_node_that_is_stopped_waits_for_no_answer(gone):
    assert gone.get_parameters(("online",), 6, 1.0) is None
    assert gone.get_step() == -1
    gone.report_evaluation("test", 7)
    with pytest.raises(rpc.StoppedError, match="get_cursors"):
        gone.get_cursors("digits")


def test_a_server_that_comes_back_answers(address, stop):
    learner = rpc.LearnerClient(courier.Client(address, call_timeout=NEVER), stop)
    server = courier.Server("learner", port=int(address.split(":")[1]))
    server.Bind("get_parameters", Learner().get_parameters)
    timer = threading.Timer(0.5, server.Start)
    timer.start()
    assert learner.get_parameters(("online",), 6, 1.0)[0] == 7
    timer.join()
    server.Stop()


def test_calls_time_out(address, stop):
    learner = rpc.LearnerClient(courier.Client(address, call_timeout=0.5), stop)
    with pytest.raises(rpc.RpcError, match=r"(?i)deadline"):
        learner.get_step()


class TestInferenceClient:
    def serve(self, address, score):
        server = courier.Server("inference", port=int(address.split(":")[1]))
        server.Bind("score_bytes", score)
        server.Start()
        return server, rpc.InferenceClient(courier.Client(address, call_timeout=30))

    def test_scores(self, address):
        def score(request):
            assert parameters.decode(request)["image"].shape == (2, 1, 1, 1)
            return parameters.encode(np.array([1.0, 2.0], np.float32)), 5

        server, client = self.serve(address, score)
        found = client(BATCH)
        assert isinstance(found, inference_server.Scores)
        assert (found.values.tolist(), found.step) == ([1.0, 2.0], 5)
        server.Stop()

    def test_a_server_that_is_stopped_cancels(self, address):
        def score(request):
            raise futures.CancelledError("stopped")

        server, client = self.serve(address, score)
        with pytest.raises(futures.CancelledError):
            client(BATCH)
        server.Stop()

    def test_a_server_that_is_gone_does_not_keep_a_node_that_is_stopped(self, address, stop):
        threading.Timer(0.3, stop.set).start()
        client = rpc.InferenceClient(courier.Client(address, call_timeout=NEVER), stop)
        with pytest.raises(futures.CancelledError):
            client(BATCH)


def test_a_node_uses_its_own_stop_event(monkeypatch, address):
    own = threading.Event()
    own.set()
    monkeypatch.setattr(rpc.lp, "stop_event", lambda: own)
    assert rpc.LearnerClient(courier.Client(address, call_timeout=NEVER)).get_step() == -1
