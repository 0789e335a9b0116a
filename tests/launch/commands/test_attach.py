"""Joining an experiment: what is refused, and what a silent learner leads to."""

import json
import os
import socket
import threading

import jax
import pytest

from classact import calls
from classact.data.source import DataError
from classact.experiments import base
from classact.experiments.config import ConfigError, EvaluatorConfig
from classact.experiments.resolution import resolve
from classact.launch.assembly import joined_learner, joined_run, rpc
from classact.launch.commands import attach
from classact.launch.engines.ports import LoopbackPorts
from classact.nodes import checkpoints, parameters

ACCURACY = EvaluatorConfig("accuracy", "")


@pytest.fixture
def workdir(tmp_path):
    """The directory of a run that has not got far."""
    fields = base.get_config()
    fields.train_data, fields.policy, fields.patch_size = "digits", "uniform", 4
    fields.learner.model = "vit_mu_1_1"
    config = {**resolve(fields.to_dict()).to_dict(), "git_commit": "x", "versions": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_the_data_are_the_experiments_own_unless_given(workdir):
    attached = attach.prepare(workdir, "again", ACCURACY, every=0)
    assert attached.every == base.get_config().evaluation.every
    assert attached.model.name == "vit_mu_1_1"


def test_a_run_of_before_the_race_is_read_without_its_shift(workdir):
    path = workdir / "config.json"
    fields = json.loads(path.read_text())
    fields["score_shift"] = fields["data_sets"]["digits"]["score_shift"] = 0.0
    path.write_text(json.dumps(fields))
    assert joined_run.read_config(workdir).data_sets["digits"].temperature == 1.0


@pytest.mark.parametrize(
    ("name", "own", "error", "message"),
    [
        ("test", ACCURACY, joined_run.AttachError, "an evaluator of that name"),
        ("No", ACCURACY, ConfigError, "named by a-z"),
        ("new", EvaluatorConfig("retrieval", ""), ConfigError, "with task='classification'"),
        ("new", EvaluatorConfig("accuracy", "digitz"), DataError, "digits"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anybody_is_asked(workdir, name, own, error, message):
    with pytest.raises(error, match=message):
        attach.prepare(workdir, name, own, every=0)
    assert not (workdir / "metrics").exists()


def isolate(workdir, **elsewhere):
    """Lets a run say that it was started with --isolate, in this process's network but for what is given."""
    here = {
        kind: os.readlink(f"/proc/self/ns/{name}") for kind, name in (("network", "net"), ("users", "user"))
    }
    fields = json.loads((workdir / "config.json").read_text())
    fields["started"] = {"host": "shed", "isolated": {**here, "pid": 7, **elsewhere}}
    (workdir / "config.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("elsewhere", "message"),
    [
        ({"network": "net:[1]"}, r"on shed, put nsenter --target 7 --net before the command"),
        (
            {"network": "net:[1]", "users": "user:[1]"},
            r"put nsenter --target 7 --net --user --preserve-credentials before",
        ),
        ({"network": "net:[1]", "pid": "7; reboot"}, "of another version"),
    ],
)
def test_an_isolated_run_is_joined_in_its_own_network_alone(workdir, elsewhere, message):
    isolate(workdir, **elsewhere)
    with pytest.raises(joined_run.AttachError, match=message):
        attach.prepare(workdir, "new", ACCURACY, every=0)
    # Its last checkpoint is a file like any other.
    (workdir / "result.json").write_text("{}")
    (workdir / "checkpoints" / "5").mkdir(parents=True)
    attach.prepare(workdir, "new", ACCURACY, every=0)


def test_a_run_that_was_isolated_together_with_this_process_is_joined(workdir):
    isolate(workdir)
    attach.prepare(workdir, "new", ACCURACY, every=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no run directory"),
        ("{", "cannot be read"),
        pytest.param("[" * 100_000, "cannot be read", id="deep"),
        ("[]", "no run's configuration"),
        ('{"policy": "uniform"}', "of another version"),
    ],
)
def test_a_directory_that_is_no_runs_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(joined_run.AttachError, match=message):
        attach.prepare(tmp_path, "new", ACCURACY, every=0)


def test_a_policy_that_is_not_here_is_not_taken_for_another_version(workdir):
    fields = json.loads((workdir / "config.json").read_text())
    fields["data_sets"]["digits"]["policy"] = "policies_not_here:mine"
    fields["started"] = {"host": "shed", "directory": "/home/ann"}
    (workdir / "config.json").write_text(json.dumps(fields))
    with pytest.raises(joined_run.AttachError, match="no module policies_not_here") as raised:
        attach.prepare(workdir, "new", ACCURACY, every=0)
    assert str(raised.value).endswith("; the experiment was started in /home/ann")
    assert "version" not in str(raised.value)


def test_a_learner_that_is_gone_without_a_result_is_an_error(workdir, monkeypatch):
    monkeypatch.setattr(joined_run, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(joined_learner, "_CALL_SECONDS", -4.5)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    (workdir / "endpoints.json").write_text(json.dumps({"learner": [f"127.0.0.1:{port}"]}))
    calls.Keys.make().save(workdir / "keys.json")
    attached = attach.prepare(workdir, "new", ACCURACY, every=0)
    with pytest.raises(joined_run.AttachError, match="did not answer"):
        attach.evaluate(attached, threading.Event(), report=lambda line: None)


def test_a_learner_on_another_host_is_asked_with_the_runs_keys(workdir):
    keys = calls.Keys.make()
    with LoopbackPorts() as ports:
        server = calls.Server(f"127.0.0.1:{ports()}", {"get_step": lambda: 7}, keys)
        server.start()
        (workdir / "endpoints.json").write_text(json.dumps({"learner": [server.address]}))
        keys.save(workdir / "keys.json")
        assert joined_learner.Learner(workdir, threading.Event()).get_step() == 7
        assert joined_learner.greets(workdir, server.address, 10.0)
        calls.Keys.make().save(workdir / "keys.json")
        assert not joined_learner.greets(workdir, server.address, 10.0)
        server.stop()
    joined_learner.check_keys(workdir, ["far:1"])
    (workdir / "keys.json").unlink()
    joined_learner.check_keys(workdir, ["unix:/here"])
    with pytest.raises(joined_run.AttachError, match=r"keys cannot be used: .*keys\.json"):
        joined_learner.check_keys(workdir, ["unix:/here", "far:1"])


def test_keys_that_others_may_read_are_refused(workdir):
    (workdir / "endpoints.json").write_text('{"learner": ["far:1"]}')
    calls.Keys.make().save(workdir / "keys.json")
    (workdir / "keys.json").chmod(0o644)
    with pytest.raises(joined_run.AttachError, match=r"keys.json is open to others: chmod 600"):
        joined_learner.Learner(workdir, threading.Event()).get_step()


def test_a_clock_is_asked_of_a_learner_that_came_back_at_another_address(workdir, monkeypatch):
    class Client:
        def __init__(self, address, stop=None):
            self._address = address

        def get_clock(self, data_set, shard):
            if self._address == "gone:1":
                raise rpc.RpcError("gone")
            return f"{data_set} {shard}"

    monkeypatch.setattr(rpc, "LearnerClient", Client)
    monkeypatch.setattr(calls, "Client", lambda address, keys, timeout: address)
    calls.Keys.make().save(workdir / "keys.json")
    learner = joined_learner.Learner(workdir, threading.Event())
    (workdir / "endpoints.json").write_text('{"learner": ["gone:1"]}')
    with pytest.raises(rpc.RpcError):
        learner.get_clock("digits", 0)
    (workdir / "endpoints.json").write_text('{"learner": ["back:1"]}')
    assert learner.get_clock("digits", 0) == "digits 0"


def test_a_run_that_ended_without_a_checkpoint_is_an_error(workdir):
    attached = attach.prepare(workdir, "new", ACCURACY, every=0)
    (workdir / "result.json").write_text('{"status": "failed"}')
    with pytest.raises(joined_run.AttachError, match="ended without a checkpoint"):
        attach.prepare(workdir, "new", ACCURACY, every=0)
    with pytest.raises(checkpoints.CheckpointError, match="no complete checkpoint"):
        attach.evaluate(attached, threading.Event(), report=lambda line: None)


def test_only_a_run_that_goes_on_may_have_this_machines_gpus(workdir, monkeypatch):
    kept = []
    monkeypatch.setattr(attach.joined_devices, "keep_off", kept.append)
    monkeypatch.setattr(attach.checkpoints, "latest_step", lambda directory: 5)
    attach.prepare(workdir, "again", ACCURACY, every=0)
    assert len(kept) == 1
    (workdir / "result.json").write_text("{}")
    attach.prepare(workdir, "again", ACCURACY, every=0)
    assert len(kept) == 1


def test_after_the_learners_last_parameters_no_checkpoint_is_looked_for(workdir, monkeypatch):
    attached = attach.prepare(workdir, "new", ACCURACY, every=0)
    payload = {"learner": parameters.encode(attached.model.init(jax.random.key(0)))}

    class Finished:
        def __init__(self, workdir, stop):
            del workdir, stop

        def get_parameters(self, names, newer_than, timeout):
            return 1500, True, payload

        def report_evaluation(self, evaluator, step):
            pass

    monkeypatch.setattr(joined_learner, "Learner", Finished)
    attach.evaluate(attached, threading.Event(), report=lambda line: None)
    (line,) = (workdir / "metrics" / "evaluator-new.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1500


def test_stopping_ends_an_evaluator_that_waits_for_the_experiment(workdir):
    stop = threading.Event()
    attached = attach.prepare(workdir, "new", ACCURACY, every=0)
    threading.Timer(0.5, stop.set).start()
    attach.evaluate(attached, stop, report=lambda line: None)
    assert not (workdir / "metrics" / "evaluator-new.jsonl").read_text()


def test_parameters_that_do_not_fit_the_data_are_named(workdir):
    attached = attach.prepare(workdir, "new", EvaluatorConfig("accuracy", "digits"), every=0)
    variables = attached.model.init(jax.random.key(0))
    variables["params"].pop(next(iter(variables["params"])))
    with pytest.raises(DataError, match="does not fit the data"):
        attach._checked(attached)(variables)
