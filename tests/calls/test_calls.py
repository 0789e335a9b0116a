"""A server and its clients in one process, over a Unix socket."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent import futures

import numpy as np
import pytest

from classact import calls
from classact.calls import protocol, wire

# Longer than any test takes: an answer is not what ends it.
NEVER = 600.0
SOON = 10.0


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/server"


@pytest.fixture
def serve(address):
    servers = []

    def start(methods, **options):
        servers.append(calls.Server(address, methods, **options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop(grace=0.0)


@pytest.fixture
def client(address):
    client = calls.Client(address, timeout=SOON)
    yield client
    client.close()


class Gate:
    """A method that waits until it is let go, and says how many wait in it."""

    def __init__(self):
        self.open = threading.Event()
        self.inside = threading.Semaphore(0)

    def __call__(self, *arguments):
        self.inside.release()
        assert self.open.wait(SOON)
        return "through"

    def wait_for(self, count):
        for _ in range(count):
            assert self.inside.acquire(timeout=SOON)


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def pool():
    with futures.ThreadPoolExecutor(16) as pool:
        yield pool


def test_values_and_names_pass(serve, client):
    serve({"echo": lambda *arguments, **named: [arguments, named]})
    array = np.arange(100_000, dtype=np.float32).reshape(100, -1)
    (one, two), named = client.call("echo", [{"a": (1, b"x")}, array], {"more": None})
    assert one == {"a": (1, b"x")}
    np.testing.assert_array_equal(two, array)
    assert named == {"more": None}


def test_a_failure_comes_with_its_traceback(serve, client):
    def fail():
        raise LookupError("no step yet, \ud800")

    serve({"fail": fail})
    with pytest.raises(calls.RemoteError, match="no step yet") as raised:
        client.call("fail")
    assert raised.value.kind == "LookupError"
    assert "in fail" in raised.value.traceback


def test_what_cannot_be_sent_back_is_a_failure(serve, client):
    serve({"get": object})
    with pytest.raises(calls.RemoteError, match="object is not a type"):
        client.call("get")


def test_only_what_is_named_for_others_can_be_called(serve, client):
    class Node:
        @calls.exposed
        def step(self):
            return 7

        def run(self):
            raise AssertionError("called from outside")

        @property
        def broken(self):
            raise AssertionError("looked at")

    serve(calls.exposed_methods(Node()))
    assert client.call("step") == 7
    for method in ("run", "__init__", "__class__", "step.__globals__"):
        with pytest.raises(calls.CallError, match="cannot be called here; there is step"):
            client.call(method)


def test_a_call_times_out_where_nobody_listens(client):
    with pytest.raises(calls.NoAnswerError, match=r"get of unix:.*deadline exceeded: nobody listens"):
        client.call("get", timeout=0.1)


def test_a_call_times_out_where_nobody_gets_as_far_as_a_greeting(address):
    tries = 0
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address.removeprefix("unix:"))
        listening.listen()

        def hang_up():
            nonlocal tries
            with contextlib.suppress(OSError):
                while True:
                    listening.accept()[0].close()
                    tries += 1

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(calls.NoAnswerError, match="went away before it had greeted"):
            calls.Client(address, timeout=4.0).call("add", [1, 2])
    assert tries > 5


def test_a_call_times_out_where_nobody_answers(serve, client, gate):
    serve({"wait": gate})
    with pytest.raises(calls.NoAnswerError, match="deadline exceeded: no answer came in time"):
        client.call("wait", timeout=0.2)


def test_what_its_caller_has_given_up_is_not_begun(serve, client, gate, pool):
    begun = []
    serve({"wait": gate, "note": begun.append}, threads=1)
    waiting = pool.submit(client.call, "wait")
    gate.wait_for(1)
    for number in (1, 2):
        # The server's clock begins when a call has come: by the second one's end the first is over there.
        with pytest.raises(calls.NoAnswerError):
            client.call("note", [number], timeout=0.1)
    gate.open.set()
    assert waiting.result(SOON) == "through"
    client.call("note", [3])
    assert 1 not in begun and 3 in begun


def test_a_late_answer_is_not_taken_for_another_ones(serve, client, gate):
    serve({"wait": gate, "echo": lambda value: value})
    with pytest.raises(calls.NoAnswerError):
        client.call("wait", timeout=0.1)
    gate.open.set()
    assert [client.call("echo", [number]) for number in range(20)] == list(range(20))


@pytest.mark.parametrize("listens", [False, True])
def test_the_stop_event_ends_a_call(serve, client, gate, listens):
    if listens:
        serve({"wait": gate})
    stop = threading.Event()
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    with pytest.raises(calls.StoppedError, match="asked to stop before wait of"):
        client.call("wait", timeout=NEVER, stop=stop)
    timer.join()


def test_who_is_asked_to_stop_still_gets_a_quick_answer(serve, client):
    serve({"get": lambda: 7})
    stop = threading.Event()
    stop.set()
    assert client.call("get", stop=stop) == 7


def test_signals_are_handled_during_a_call(client):
    class Told(Exception):
        pass

    def tell(number, frame):
        raise Told

    before = signal.signal(signal.SIGUSR1, tell)
    try:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(Told):
            client.call("get", timeout=NEVER)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_server_that_comes_later_answers(serve, client):
    timer = threading.Timer(0.2, lambda: serve({"get": lambda: 7}))
    timer.start()
    assert client.call("get") == 7
    timer.join()


def test_a_call_under_way_is_made_again_when_the_server_is_back(serve, client, gate, pool):
    first = serve({"get": gate})
    answer = pool.submit(client.call, "get", timeout=NEVER)
    gate.wait_for(1)
    first.stop(grace=0.0)
    serve({"get": lambda: "again"})
    assert answer.result(SOON) == "again"


def test_an_idle_client_finds_a_server_that_came_back(serve, client):
    first = serve({"get": lambda: 1})
    assert client.call("get") == 1
    first.stop()
    serve({"get": lambda: 2})
    assert client.call("get") == 2


def test_long_polls_wait_beside_other_calls(serve, client, gate, pool):
    serve({"wait": gate, "get": lambda: 7}, threads=9)
    waiting = [pool.submit(client.call, "wait") for _ in range(8)]
    gate.wait_for(8)
    assert client.call("get") == 7
    gate.open.set()
    assert [answer.result(SOON) for answer in waiting] == ["through"] * 8


def test_a_server_greets_while_it_is_there(serve, client):
    assert not client.greets(0.1)
    server = serve({})
    assert client.greets(SOON)
    server.stop()
    assert not client.greets(0.1)


def test_more_calls_than_may_wait_are_told_so(serve, client, gate, pool):
    serve({"wait": gate}, threads=2, max_waiting=3)
    asked = [pool.submit(client.call, "wait") for _ in range(6)]
    (refused,), waiting = futures.wait(asked, SOON, futures.FIRST_COMPLETED)
    with pytest.raises(calls.BusyError, match="5 calls wait or run already"):
        refused.result()
    gate.open.set()
    assert [answer.result(SOON) for answer in waiting] == ["through"] * 5
    assert client.call("wait") == "through"


def test_more_bytes_than_may_wait_are_told_so(serve, client, gate, pool):
    serve({"wait": gate}, max_bytes=100_000)
    waiting = pool.submit(client.call, "wait", [bytes(60_000)])
    gate.wait_for(1)
    with pytest.raises(calls.BusyError, match=r"60\d\d\d bytes.*with 60\d\d\d more they pass 100000"):
        client.call("wait", [bytes(60_000)])
    with pytest.raises(calls.BusyError, match="pass 100000"):
        calls.Client(client.address).call("wait", [bytes(200_000)])
    gate.open.set()
    assert waiting.result(SOON) == "through"
    assert client.call("wait", [bytes(60_000)]) == "through"


def test_a_call_that_is_too_large_is_not_sent(client, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_CALL_BYTES", 10_000)
    with pytest.raises(calls.WireError, match=r"10\d+ bytes are more than a call carries, 10000"):
        client.call("put", [bytes(10_000)])


def test_a_server_hangs_up_on_what_is_too_large(serve, client, address, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_CALL_BYTES", 10_000)
    serve({"put": len})
    monkeypatch.undo()
    with pytest.raises(calls.NoAnswerError):
        client.call("put", [bytes(10_001)], timeout=0.3)
    assert client.call("put", [bytes(5_000)]) == 5_000


def test_all_followers_share_one_buffer(serve, client, pool):
    parameters = bytes(range(256)) * 100_000
    sent = []

    def get():
        sent.append(wire.encode(memoryview(parameters)))
        return memoryview(parameters)

    serve({"get": get})
    found = list(pool.map(lambda _: client.call("get"), range(4)))
    assert all(view == parameters for view in found)
    assert all(isinstance(view, memoryview) and view.readonly for view in found)
    assert all(parts[1].obj is parameters for parts in sent)


def test_two_servers_do_not_share_an_address(serve, address, client):
    serve({"get": lambda: 1})
    with pytest.raises(OSError, match="already listens"):
        calls.Server(address, {}).start()
    assert client.call("get") == 1


def test_a_server_takes_the_place_of_one_that_was_killed(serve, address, client):
    dead = f"from classact import calls; import os; calls.Server({address!r}, {{}}).start(); os._exit(1)"
    subprocess.run([sys.executable, "-c", dead], check=False)
    assert os.path.exists(address.removeprefix("unix:"))
    serve({"get": lambda: 1})
    assert client.call("get") == 1


def test_nobody_else_may_use_the_socket(serve, address):
    serve({})
    assert os.stat(address.removeprefix("unix:")).st_mode & 0o777 == 0o600


def test_a_server_that_stops_lets_what_is_under_way_end(serve, client, gate, pool):
    last = Gate()
    server = serve({"wait": gate, "last": last})
    waiting = pool.submit(client.call, "wait")
    # Its answer may be lost with the connection, as it ends the server.
    pool.submit(client.call, "last", timeout=2)
    gate.wait_for(1)
    last.wait_for(1)
    stopping = pool.submit(server.stop, grace=SOON)
    gate.open.set()
    assert waiting.result(SOON) == "through"
    assert not stopping.done()
    last.open.set()
    stopping.result(SOON)
    assert not os.path.exists(client.address.removeprefix("unix:"))


def test_a_server_that_has_stopped_leaves_no_thread(serve, client, gate, pool):
    server = serve({"wait": gate})
    waiting = [pool.submit(client.call, "wait") for _ in range(3)]
    gate.wait_for(3)
    gate.open.set()
    assert [call.result(SOON) for call in waiting] == 3 * ["through"]
    mine = [thread for thread in threading.enumerate() if thread.name.endswith(server.address)]
    assert len(mine) == 4
    server.stop()
    for thread in mine:
        thread.join(SOON)
    assert not any(thread.is_alive() for thread in mine)


def test_a_method_that_hangs_does_not_keep_a_server_from_stopping(serve, client, gate, pool):
    server = serve({"wait": gate})
    waiting = pool.submit(client.call, "wait", timeout=NEVER)
    gate.wait_for(1)
    server.stop(grace=0.1)
    # Nothing of it is left: another one serves in its place.
    serve({"wait": lambda: "another"})
    assert waiting.result(SOON) == "another"


HANGS = """
import sys, threading
from classact import calls
inside = threading.Event()
server = calls.Server(sys.argv[1], {"hang": lambda: (inside.set(), threading.Event().wait())})
server.start()
client = calls.Client(sys.argv[1])
threading.Thread(target=client.call, args=["hang"], daemon=True).start()
assert inside.wait(10)
print("the end", flush=True)
"""


def test_a_call_that_hangs_keeps_no_process_alive(address):
    ended = subprocess.run(
        [sys.executable, "-c", HANGS, address], timeout=60, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "the end\n", "")


FORKS = """
import os, sys
from classact import calls
server = calls.Server(sys.argv[1], {"pid": os.getpid})
server.start()
client = calls.Client(sys.argv[1], timeout=10)
first = client.call("pid")
child = os.fork()
if not child:
    os._exit(0 if client.call("pid") == first else 1)
assert os.waitpid(child, 0)[1] == 0
assert client.call("pid") == first
"""


def test_a_client_works_in_both_processes_after_a_fork(address):
    subprocess.run([sys.executable, "-c", FORKS, address], timeout=60, check=True)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere", "host:port"),
        ("unix:relative", "absolute"),
        (f"unix:/{'x' * 107}", "107 bytes"),
        ("h:", "host:port"),
    ],
)
def test_bad_addresses_are_refused(address, said):
    with pytest.raises(ValueError, match=said):
        calls.Server(address, {})
    with pytest.raises(ValueError, match=said):
        calls.Client(address)
