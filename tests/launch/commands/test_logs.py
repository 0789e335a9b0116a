import io
import threading

import pytest
import rich.console

from classact.experiments.curves import RunError
from classact.launch.commands import logs


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path


def console():
    return rich.console.Console(file=io.StringIO(), width=200)


def test_a_finished_run_shows_each_nodes_last_lines(workdir):
    (workdir / "logs" / "learner.log").write_text("one\ntwo [bold]\nthree, cut sh")
    (workdir / "logs" / "replay-a.log").write_text("here\n")
    (workdir / "result.json").write_text("{}")
    shown = console()
    logs.follow(workdir, threading.Event(), last=2, console=shown)
    expected = ["learner | two [bold]", "learner | three, cut sh", "replay-a | here"]
    assert shown.file.getvalue().splitlines() == expected


def test_a_running_one_is_followed_to_its_end(workdir, monkeypatch):
    log = workdir / "logs" / "learner.log"
    log.write_text("old\nbegun")
    shown = console()

    class Clock(threading.Event):
        """At the first wait a line is completed and a node appears; then the run ends."""

        waits = 0

        def wait(self, timeout=None):
            Clock.waits += 1
            if Clock.waits == 1:
                log.write_text("old\nbegun and ended\n")
                (workdir / "logs" / "late.log").write_text("first\n")
            else:
                (workdir / "result.json").write_text("{}")
            return False

    logs.follow(workdir, Clock(), console=shown)
    expected = ["learner | old", "late | first", "learner | begun and ended"]
    assert shown.file.getvalue().splitlines() == expected
    assert Clock.waits == 2


def test_the_stop_signal_ends_it(workdir):
    stop = threading.Event()
    stop.set()
    logs.follow(workdir, stop, console=console())


def test_a_directory_without_logs_is_refused(tmp_path):
    with pytest.raises(RunError, match="is no run directory"):
        logs.follow(tmp_path, threading.Event())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunError, match="has no logs"):
        logs.follow(tmp_path, threading.Event())
