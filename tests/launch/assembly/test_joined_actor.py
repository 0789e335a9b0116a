"""An actor that joined ends with its experiment, and fails only while that goes on."""

import threading
import time

import pytest

from classact import calls
from classact.launch.assembly import joined_actor, joined_run

SOON = 20.0


@pytest.fixture
def learner(tmp_path):
    """A server that others may call."""
    server = calls.Server(f"unix:{tmp_path}/learner", {})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def stop():
    return threading.Event()


def actor(workdir, learner, stop, run):
    return joined_actor.JoinedActor(run, joined_actor.Experiment(workdir, learner.address), stop)


def timed(function):
    started = time.monotonic()
    function()
    return time.monotonic() - started


def test_it_runs_until_it_is_stopped(tmp_path, learner, stop):
    threading.Timer(0.5, stop.set).start()
    assert 0.4 < timed(actor(tmp_path, learner, stop, stop.wait).run) < SOON


def test_it_ends_when_the_run_has_a_result(tmp_path, learner, stop):
    threading.Timer(0.5, (tmp_path / "result.json").write_text, ["{}"]).start()
    assert 0.4 < timed(actor(tmp_path, learner, stop, stop.wait).run) < SOON
    assert stop.is_set()


def test_it_ends_when_the_learner_is_gone_for_long(tmp_path, learner, stop, monkeypatch):
    monkeypatch.setattr(joined_run, "SILENT_SECONDS", 2.0)
    made = actor(tmp_path, learner, stop, stop.wait)
    learner.stop()
    assert 2.0 < timed(made.run) < SOON
    assert not (tmp_path / "result.json").exists()


def test_a_learner_that_is_back_in_time_is_not_gone(tmp_path, learner, monkeypatch):
    monkeypatch.setattr(joined_run, "SILENT_SECONDS", 1.0)
    experiment = joined_actor.Experiment(tmp_path, learner.address)
    threading.Event().wait(1.2)
    assert not experiment.is_over()


def fail():
    raise ConnectionError("the replay is gone")


def test_a_failure_is_its_own_while_the_experiment_goes_on(tmp_path, learner, stop, monkeypatch):
    monkeypatch.setattr(joined_actor, "_END_SECONDS", 1.0)
    with pytest.raises(ConnectionError, match="the replay is gone"):
        actor(tmp_path, learner, stop, fail).run()


def test_a_failure_at_the_experiments_end_is_none(tmp_path, learner, stop, capsys):
    threading.Timer(1.0, (tmp_path / "result.json").write_text, ["{}"]).start()
    actor(tmp_path, learner, stop, fail).run()
    assert "the replay is gone" in capsys.readouterr().out


def test_a_failure_after_the_learners_is_none(tmp_path, learner, stop, monkeypatch):
    """As when the whole experiment was killed: nobody writes a result."""
    monkeypatch.setattr(joined_actor, "_END_SECONDS", 0.5)
    monkeypatch.setattr(joined_run, "SILENT_SECONDS", 3.0)
    made = actor(tmp_path, learner, stop, fail)
    learner.stop()
    assert timed(made.run) > 2.5
