"""Whatever is sent to a server, it answers the others, and nothing of it is run."""

import socket
import threading

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classact import calls
from classact.calls import wire

SOON = 10.0
BYTES = st.binary(max_size=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = calls.Server(f"unix:{tmp_path_factory.mktemp('calls')}/server", {"echo": lambda value: value})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def raw(server):
    dealer = zmq.Context.instance().socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(server.address.replace("unix:", "ipc://"))
    yield dealer
    dealer.close()


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(
        st.binary(max_size=30) | st.binary(max_size=30).map(lambda data: b"12345678" + data),
        min_size=1,
        max_size=5,
    )
)
def test_a_server_outlives_any_frames(server, raw, frames):
    raw.send_multipart(frames)


def test_and_answers_after_them(server):
    assert calls.Client(server.address, timeout=SOON).call("echo", [7]) == 7


def test_what_is_no_call_is_answered_with_an_error(server, raw):
    while raw.poll(100):  # What the frames before were answered with.
        raw.recv_multipart()
    raw.send(b"12345678" + b"\xc1")
    answer = raw.recv()
    assert answer.startswith(b"12345678")
    kind, said = wire.decode([answer[8:]])
    assert "no value" in said
    assert kind == 4


def test_what_does_not_fit_into_memory_costs_no_worker(server, monkeypatch):
    unpackb = wire.msgpack.unpackb

    def full(*arguments, **named):
        if threading.current_thread().name.startswith("worker"):
            raise MemoryError
        return unpackb(*arguments, **named)

    client = calls.Client(server.address, timeout=SOON)
    with monkeypatch.context() as patched:
        patched.setattr(wire.msgpack, "unpackb", full)
        for _ in range(20):  # More than it has workers.
            with pytest.raises(calls.CallError, match="MemoryError"):
                client.call("echo", [7])
    assert client.call("echo", [7]) == 7


def test_an_answer_that_is_none_is_an_error(tmp_path):
    router = zmq.Context.instance().socket(zmq.ROUTER)
    router.linger = 0
    router.bind(f"ipc://{tmp_path}/server")

    def answer():
        for said in ([b"\xc1"], [b"\x07"], [b"\x90"], [b"\x91\x00"], wire.encode([9, "what"])):
            caller, head = router.recv_multipart()
            router.send_multipart([caller, head[:8] + said[0]])

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    client = calls.Client(f"unix:{tmp_path}/server", timeout=SOON)
    for _ in range(5):
        with pytest.raises(calls.CallError, match="get"):
            client.call("get")
    thread.join(SOON)
    router.close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\xff" + bytes(63)])
def test_other_protocols_are_hung_up_on_or_ignored(server, said):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.connect(server.address.removeprefix("unix:"))
        other.sendall(said)
    assert calls.Client(server.address, timeout=SOON).call("echo", [1]) == 1


def test_a_caller_that_reads_no_answers_is_no_burden(server):
    deaf = zmq.Context.instance().socket(zmq.DEALER)
    deaf.linger, deaf.rcvhwm = 0, 1
    deaf.connect(server.address.replace("unix:", "ipc://"))
    head, large = wire.encode(["echo", [bytes(1_000_000)], {}, 60.0])
    for _ in range(100):
        deaf.send_multipart([b"12345678" + head, large])
    assert calls.Client(server.address, timeout=SOON).call("echo", [1]) == 1
    deaf.close()
