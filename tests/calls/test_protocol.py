"""What is sent is sent whole, or not at all."""

import contextlib

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from classact.calls import protocol

SOON_MS = 10_000


@contextlib.contextmanager
def socket(kind):
    with zmq.Context.instance().socket(kind) as made:
        made.linger = 0
        yield made


@contextlib.contextmanager
def served(endpoint):
    with socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        yield router


def await_event(monitor, event):
    while True:
        assert monitor.poll(SOON_MS)
        if recv_monitor_message(monitor)["event"] == event:
            return


@pytest.mark.parametrize("left", [1, 2, 3])
def test_what_breaks_off_between_two_frames_takes_nothing_else_with_it(tmp_path, left):
    endpoint = f"ipc://{tmp_path}/server"
    with socket(zmq.DEALER) as dealer:
        dealer.immediate, dealer.reconnect_ivl = True, 20
        monitor = dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED)
        dealer.connect(endpoint)

        class Breaking:
            """Loses the connection when the first frame has been sent."""

            sent = 0

            def send(self, frame, flags, copy=True):
                dealer.send(frame, flags, copy=copy)
                self.sent += 1
                if self.sent == 1:
                    router.close()
                    # ZeroMQ's thread first says that the connection is lost, then tells the
                    # socket, then plans to connect again.
                    await_event(monitor, zmq.EVENT_DISCONNECTED)
                    await_event(monitor, zmq.EVENT_CONNECT_RETRIED)
                    # A socket that is asked hears at once; one that sends, after a millisecond.
                    dealer.get(zmq.EVENTS)

        with served(endpoint) as router:
            assert dealer.poll(SOON_MS, zmq.POLLOUT)
            # It may also drop the rest in silence, if the connection's end is complete by then.
            with contextlib.suppress(zmq.Again):
                protocol.send(Breaking(), [b"lost"] * (1 + left))
        with served(endpoint) as router:
            assert dealer.poll(SOON_MS, zmq.POLLOUT)
            protocol.send(dealer, [b"comes", b"whole"])
            assert router.poll(SOON_MS)
            assert router.recv_multipart()[1:] == [b"comes", b"whole"]
        dealer.disable_monitor()
        monitor.close(linger=0)
