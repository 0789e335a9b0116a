"""What is found in a work directory, and what is made of it."""

import json

import pytest

from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.experiments.model_config import MODEL_FIELDS
from classact.launch.commands import resume
from classact.launch.engines.outcome import LaunchError


def resolved(**changes):
    config = base.get_config()
    config.policy = "uniform"
    config.update_from_flattened_dict(changes)
    return resolution.resolve(config.to_dict())


@pytest.fixture
def run(tmp_path):
    """A work directory with a run of the default configuration."""
    (tmp_path / "config.json").write_text(json.dumps({**resolved().to_dict(), "launch": "processes"}))
    return tmp_path


def test_a_new_directory_holds_no_run(tmp_path):
    assert resume.earlier(resolved(), tmp_path) is None
    assert resume.earlier(resolved(), tmp_path / "missing") is None


def test_what_earlier_sessions_used_is_read(run):
    assert resume.earlier(resolved(), run) == resume.Earlier()
    result = {"status": "interrupted", "wall_seconds": 12.5, "cpu_seconds": 30}
    (run / "result.json").write_text(json.dumps(result))
    assert resume.earlier(resolved(), run) == resume.Earlier(False, 12.5, 30.0)
    (run / "result.json").write_text(json.dumps({**result, "status": "completed"}))
    assert resume.earlier(resolved(), run).completed


@pytest.mark.parametrize(
    "changes",
    [
        {"inference.servers": 3},
        {"inference.run_loops_as_nodes": True},
        {"log_every": 7},
        {"checkpoint_every": 40},
        {"mesh.hosts": 2},
        {"cluster.learner.gpus": 1},
        {"threads.learner": 2},
        {"threads.decoding": 3},
        {"serve.listen": "0.0.0.0:5557"},
        {"serve.kept": 8},
    ],
)
def test_where_and_how_fast_it_runs_may_be_another(run, changes):
    assert resume.earlier(resolved(**changes), run) is not None


def test_a_run_of_a_version_without_a_field_goes_on_as_it_was(run):
    recorded = resolved().to_dict()
    for group in (recorded, *recorded["data_sets"].values()):
        del group["selection"], group["reference"]["pretraining_macs"], group["augment"]
        for name in MODEL_FIELDS:
            del group["reference"][name]
    del recorded["optimizer"], recorded["serve"]
    for role in ("learner", "scorer"):
        recorded[role] = {name: recorded[role][name] for name in ("model", "text_model", "options")}
    del recorded["threads"]["decoding"]
    (run / "config.json").write_text(json.dumps({**recorded, "launch": "processes"}))
    assert resume.earlier(resolved(), run) is not None
    for changes in ({"optimizer.name": "sgd"}, {"scorer.image_size": 16}, {"learner.init": "runs/a"}):
        with pytest.raises(ConfigError, match="a run with None"):
            resume.earlier(resolved(**changes), run)
    with pytest.raises(ConfigError, match=r"augment='flip': .* a run with None"):
        resume.earlier(resolved(augment="flip"), run)


def test_what_is_served_and_what_is_trained_do_not_go_on_with_each_other(run):
    with pytest.raises(ConfigError, match="a run of `classact train`, with which `classact serve` cannot"):
        resume.earlier(resolved(**{"serve.on": True}), run)


def test_what_a_reference_has_cost_may_be_said_later(run):
    reference = {"checkpoint": "somewhere", "super_batch": 0, "learning_rate_factor": 2.0}
    (run / "config.json").write_text(json.dumps(resolved(policy="classact", reference=reference).to_dict()))
    stated = {**reference, "pretraining_macs": 0.0}
    assert resume.earlier(resolved(policy="classact", reference=stated), run) is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.5}, "learning_rate=0.5: .* a run with 0.001"),
        ({"steps": 7}, "=7: .* a run with 1500"),
        ({"train_data": "digits"}, "'digits'.*'icons'"),
        ({"learner.model": "vit_ti"}, "learner.model='vit_ti'"),
        ({"replay.shards": 2}, "replay.shards=2"),
        ({"seed": 1}, "seed=1"),
        ({"augment": "crop+flip"}, r"augment='crop\+flip': .* a run with 'none'"),
    ],
)
def test_another_run_is_refused(run, changes, said):
    with pytest.raises(ConfigError, match=said):
        resume.earlier(resolved(**changes), run)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_an_unreadable_configuration_is_an_error(run, text):
    (run / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config.json .*cannot go on|config.json holds no"):
        resume.earlier(resolved(), run)


def test_only_one_launcher_is_let_in(tmp_path):
    with (
        resume.locked(tmp_path),
        pytest.raises(LaunchError, match="a launcher is running it"),
        resume.locked(tmp_path),
    ):
        pass
    with resume.locked(tmp_path):
        pass


def test_the_files_of_an_ended_session_go_and_tables_after_the_checkpoint_too(run):
    for name in ("result.json", "endpoints.json"):
        (run / name).write_text("{}")
    for step in (10, 20):
        (run / "replay" / "icons" / str(step)).mkdir(parents=True)
        (run / "replay" / "icons" / str(step) / "DONE").touch()
    (run / "checkpoints" / "10" / "clocks").mkdir(parents=True)
    (run / "checkpoints" / "10" / "clocks" / "metadata").write_text("{}")
    assert resume.prepare_files(resolved(), run) == 10
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.json", "replay"]
    assert [path.name for path in (run / "replay" / "icons").iterdir()] == ["10"]


def test_tables_of_a_version_that_ordered_them_otherwise_are_not_taken(run, capsys):
    (run / "replay" / "icons" / "10").mkdir(parents=True)
    (run / "replay" / "icons" / "10" / "DONE").touch()
    (run / "checkpoints" / "10").mkdir(parents=True)
    assert resume.prepare_files(resolved(), run) == 10
    assert not list((run / "replay" / "icons").iterdir())
    assert "saved by an older version" in capsys.readouterr().err


def test_without_a_checkpoint_it_begins_at_the_start(run):
    (run / "replay" / "icons" / "20").mkdir(parents=True)
    (run / "replay" / "icons" / "20" / "DONE").touch()
    assert resume.prepare_files(resolved(), run) == 0
    assert list((run / "replay" / "icons").iterdir()) == []


def test_damaged_checkpoints_are_set_aside_and_if_all_are_that_is_said(run, capsys):
    for step in (10, 20):
        (run / "checkpoints" / str(step) / "learner").mkdir(parents=True)
    with pytest.raises(LaunchError, match=r"all checkpoints in .* are damaged \(20, 10\)"):
        resume.prepare_files(resolved(), run)
    assert "20 is damaged" in capsys.readouterr().err
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["damaged-10", "damaged-20"]


def test_what_could_not_be_started_leaves_nothing(run):
    with resume.locked(run):
        pass
    resume.forget(run)
    assert not run.exists()
