import os
import queue
import signal

import pytest

from classact.launch.engines.interrupts import Interrupt, interrupts_to


@pytest.fixture
def not_ignored():
    """What started the tests, `nohup` for instance, may have left SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("not_ignored")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_becomes_an_event(number):
    events = queue.SimpleQueue()
    before = signal.getsignal(number)

    with interrupts_to(events):
        os.kill(os.getpid(), number)
        interrupt = events.get(timeout=5)

    assert interrupt == Interrupt(number)
    assert interrupt.name == number.name
    assert signal.getsignal(number) == before


def test_handlers_that_were_taken_over_are_retaken_and_put_back():
    events = queue.SimpleQueue()
    before = signal.getsignal(signal.SIGTERM)

    with interrupts_to(events) as interrupts:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupts.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert events.get(timeout=5) == Interrupt(signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) == before


def test_under_nohup_a_hangup_stays_ignored():
    events = queue.SimpleQueue()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts_to(events):
            os.kill(os.getpid(), signal.SIGHUP)
        assert events.empty()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
