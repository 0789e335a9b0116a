import contextlib
import threading
import time

import jax
import pytest

from classact.data import announced
from classact.data.decoding import pool
from classact.nodes import activity


@pytest.fixture
def worker():
    """Runs functions in a thread, one after another, while the test looks on."""
    threads = []

    def start(function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        threads.append(thread)
        thread.start()

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert activity.report() == activity.Report(0.0, "starting or ending")


class Scene:
    """A part that does what it is told, and says when it is there."""

    def __init__(self, announce=None):
        self.there, self.go = threading.Event(), threading.Event()
        self._announce = announce

    def __call__(self):
        with activity.part("learner"):
            if self._announce is None:
                self.there.set()
                self.go.wait()
            else:
                with self._announce:
                    self.there.set()
                    self.go.wait()


def older(seconds, monkeypatch):
    """Makes everything that began before seem so much older."""
    now = time.monotonic
    monkeypatch.setattr(activity.time, "monotonic", lambda: now() + seconds)


def test_a_part_that_does_not_get_on_is_told_with_its_place(worker, monkeypatch):
    scene = Scene()
    worker(scene)
    assert scene.there.wait(10)
    older(50, monkeypatch)
    found = activity.report()
    assert 50 <= found.stuck_seconds < 60
    assert found.doing.startswith("learner: working, 0 done, the last 5")
    assert "threading.py, line" in found.doing and found.doing.endswith("(wait)")
    scene.go.set()


@pytest.mark.parametrize(
    ("announce", "said"),
    [
        (activity.busy, "learner: saving for 50 s"),
        (activity.waiting, "learner: waiting for saving for 50 s"),
    ],
)
def test_what_is_announced_is_no_hanging(worker, monkeypatch, announce, said):
    scene = Scene(announce("saving"))
    worker(scene)
    assert scene.there.wait(10)
    older(50, monkeypatch)
    assert activity.report() == activity.Report(0.0, said)
    scene.go.set()


def test_what_was_announced_does_not_count_afterwards(worker, monkeypatch):
    entered, left, again, go = (threading.Event() for _ in range(4))

    def run():
        with activity.part("learner"):
            with activity.busy("saving"):
                entered.set()
                again.wait()
            left.set()
            go.wait()

    worker(run)
    assert entered.wait(10)
    older(50, monkeypatch)
    again.set()
    assert left.wait(10)
    assert activity.report().stuck_seconds < 10
    go.set()


def test_what_is_excused_does_not_count(worker, monkeypatch):
    scene = Scene()
    worker(scene)
    assert scene.there.wait(10)
    older(50, monkeypatch)
    activity.excuse(-1.0)
    assert 50 <= activity.report().stuck_seconds < 60
    activity.excuse(30.0)
    assert 20 <= activity.report().stuck_seconds < 30
    activity.excuse(30.0)
    assert activity.report().stuck_seconds < 10
    scene.go.set()


def test_a_part_that_has_progressed_begins_anew(worker, monkeypatch):
    first, second, go = (threading.Event() for _ in range(3))

    def run():
        with activity.part("learner"):
            first.wait()
            activity.progressed()
            second.set()
            go.wait()

    worker(run)
    older(50, monkeypatch)
    first.set()
    assert second.wait(10)
    found = activity.report()
    assert found.stuck_seconds < 10 and "1 done" in found.doing
    go.set()


def test_the_part_that_has_waited_longest_counts(worker, monkeypatch):
    scenes = Scene(), Scene(activity.busy("compiling a model"))
    for scene in scenes:
        worker(scene)
        assert scene.there.wait(10)
    older(50, monkeypatch)
    found = activity.report()
    assert found.stuck_seconds >= 50
    assert "; learner: compiling a model for 50 s" in found.doing
    for scene in scenes:
        scene.go.set()


@pytest.mark.parametrize(
    ("waits_for_a_disk", "said"),
    [(False, "learner: waiting for a shard for 50 s"), (True, "learner: waiting for a disk")],
)
def test_what_decoding_threads_wait_for_the_part_waits_for(worker, monkeypatch, waits_for_a_disk, said):
    there, go = threading.Barrier(3), threading.Event()
    decoding = set()

    def decode(item):
        decoding.add(threading.get_native_id())
        with contextlib.nullcontext() if waits_for_a_disk else announced.waiting("a shard"):
            there.wait(10)
            go.wait()
        return item

    def read():
        with activity.part("learner"):
            assert list(pool.in_order(decode, range(4))) == [0, 1, 2, 3]
            # A thread that has helped does so no more.
            assert not activity._helped

    monkeypatch.setattr(pool, "threads", lambda: 2)
    monkeypatch.setattr(pool, "_LEAST", 1)
    monkeypatch.setattr(pool, "_executor", None)
    monkeypatch.setattr(
        activity, "_waits_for_a_disk", lambda native_id: waits_for_a_disk and native_id in decoding
    )
    worker(read)
    there.wait(10)
    older(50, monkeypatch)
    assert activity.report() == activity.Report(0.0, said)
    go.set()
    there.wait(10)


def test_outside_of_parts_nothing_is_announced():
    with activity.busy("reading"), activity.waiting("nobody"):
        activity.progressed()
    assert activity.report() == activity.Report(0.0, "starting or ending")


def test_compiling_is_seen(worker, monkeypatch):
    """What JAX calls its compiler's module is not promised to anybody."""
    compiling, go = threading.Event(), threading.Event()

    def compile_slowly(*arguments, **options):
        compiling.set()
        go.wait()
        return real(*arguments, **options)

    from jax._src import compiler

    real = compiler.backend_compile_and_load
    monkeypatch.setattr(compiler, "backend_compile_and_load", compile_slowly)

    def run():
        with activity.part("learner"):
            jax.jit(lambda x: x * 3 + 17)(2.0)

    worker(run)
    assert compiling.wait(10)
    older(50, monkeypatch)
    assert activity.report() == activity.Report(0.0, "learner: compiling")
    go.set()


def test_who_attends_something_gets_on_while_that_is_alive(worker, monkeypatch):
    answers, asked, stop = [True, True, False], threading.Semaphore(0), threading.Event()

    def alive():
        asked.release()
        return answers.pop(0) if len(answers) > 1 else answers[0]

    worker(activity.attend, "tables", alive, stop, 0.01)
    for _ in range(5):
        assert asked.acquire(timeout=10)
    older(50, monkeypatch)
    found = activity.report()
    assert found.stuck_seconds >= 50
    assert found.doing.startswith("tables: working, 2 done")
    stop.set()
