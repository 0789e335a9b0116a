"""Bad input ends with status 2 and one line, before anything is written or started."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from absl import flags

from classact.data import icon_shards
from classact.launch import attach, attach_actors, cli, run
from classact.launch.outcome import LaunchError, Outcome

CONFIG = str(pathlib.Path(cli.__file__).parent.parent / "experiments" / "configs" / "classification.py")


@pytest.fixture(autouse=True)
def clean_flags():
    """absl's flags are one per process: those that a command defines are taken back."""
    before = set(flags.FLAGS)
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["test"])


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    """Replaces the run by a record of its arguments."""
    calls = []

    def record(prepared, engine):
        calls.append((prepared, engine))
        return Outcome("completed")

    monkeypatch.setattr(run, "run", record)
    return calls


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


def train(workdir, *arguments):
    defaults = [f"--config={CONFIG}", f"--workdir={workdir}", "--config.train_data=digits"]
    small = ["--config.patch_size=4", "--config.learner.model=vit_mu_1_1"]
    return cli.main(["classact", "train", *defaults, *small, *arguments])


def complaint(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("classact: ")
    return lines[0]


BAD = {
    "a mistyped field": (["--config.polcy=rho"], ["polcy", "policy"]),
    "a mistyped field of a group": (["--config.learner.modle=vit_ti"], ["modle", "model"]),
    "a mistyped flag": (["--wrokdir=x"], ["wrokdir", "workdir"]),
    "a value of another type": (["--config.steps=many"], ["steps", "many"]),
    "a value out of range": (["--config.steps=0"], ["steps=0", "at least 1"]),
    "an unknown engine": (["--launch=cloud"], ["launch", "cloud", "processes", "threads"]),
    "an unknown policy": (["--config.policy=clasact"], ["policy='clasact'", "classact"]),
    "an unknown model": (["--config.learner.model=vit_mu_1_2"], ["vit_mu_1_2", "vit_mu_1_1"]),
    "an unknown source": (["--config.train_data=digts"], ["digts", "digits"]),
    "a missing file": (["--config.train_data=npz:missing.npz"], ["missing.npz"]),
    "a patch that does not divide": (["--config.patch_size=3"], ["vit_mu_1_1", "digits", "3"]),
    "no reference": (["--config.policy=classact"], ["reference.checkpoint", "run directory"]),
    "a reference that is not there": (
        ["--config.policy=classact", "--config.reference.checkpoint=nowhere"],
        ["reference.checkpoint='nowhere'", "no run directory"],
    ),
    "several hosts as threads": (
        ["--launch=threads", "--config.mesh.hosts=2"],
        ["mesh.hosts=2", "--launch=threads", "one process"],
    ),
    "several hosts in one loop": (["--launch=synchronous", "--config.mesh.hosts=2"], ["mesh.hosts=2"]),
    "parameters split in one loop": (["--launch=synchronous", "--config.mesh.fsdp=2"], ["mesh.fsdp=2"]),
    "isolated hosts of Slurm": (["--isolate", "--launch=slurm"], ["--isolate", "--launch=slurm"]),
    "isolated hosts of Ray": (["--isolate", "--launch=ray"], ["--isolate", "--launch=ray"]),
    "an argument too many": (["steps=3"], ["steps=3", "--config.FIELD=VALUE"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(workdir, capsys, nothing_starts, case):
    arguments, named = BAD[case]
    assert train(workdir, *arguments) == 2
    line = complaint(capsys)
    for word in named:
        assert word in line
    assert not nothing_starts
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train"], "--config=FILE.py is missing"),
        (["train", f"--config={CONFIG}"], "--workdir=DIR is missing"),
        (["train", "--config=missing.py", "--workdir=x"], "missing.py"),
        (["compare"], "name at least one run directory"),
        (["compare", "no_such_run"], "no_such_run"),
        (["trian"], "unknown command 'trian': expected one of train, evaluate, actors, status"),
        (["status"], "--workdir is missing"),
        (["status", "--workdir=no_such_run"], "no_such_run is no run directory"),
        (["logs"], "--workdir is missing"),
        (["logs", "--workdir=no_such_run"], "no_such_run has no logs"),
        (["evaluate"], "--workdir is missing"),
        (["evaluate", "--workdir=x"], "--evaluator is missing"),
        (["evaluate", "--workdir=no_such_run", "--evaluator=accuracy"], "'no_such_run' is no run directory"),
        (["evaluate", "--workdir=x", "--evaluator=accuracy", "y"], "unexpected argument 'y'"),
        (["evaluate", "--workdir=x", "--evaluator=accuracy", "--every=-1"], "every"),
        (["actors"], "--workdir is missing"),
        (["actors", "--workdir=no_such_run"], "'no_such_run' is no run directory"),
        (["actors", "--workdir=x", "--count=0"], "count"),
        (["actors", "--workdir=x", "digits"], "unexpected argument 'digits'"),
    ],
)
def test_what_is_missing_is_named(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["classact", *arguments]) == 2
    assert named in complaint(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pairs_run(tmp_path):
    """An image–text run after its first evaluation."""
    path = tmp_path / "pairs"
    (path / "metrics").mkdir(parents=True)
    evaluators = {"retrieval": {"kind": "retrieval", "data": "icon_pairs"}}
    config = {"policy": "uniform", "task": "contrastive", "evaluation": {"evaluators": evaluators}}
    (path / "config.json").write_text(json.dumps(config))
    names = ("i2t_r1", "i2t_r5", "t2i_r1")
    record = {"step": 50, **{f"eval/retrieval/{name}": 0.1 for name in names}}
    (path / "metrics" / "evaluator-retrieval.jsonl").write_text(json.dumps(record) + "\n")
    return path


@pytest.mark.parametrize("chosen", [(), ("i2t_r5", "t2i_r1"), ("t2i_r1",)])
def test_metrics_to_compare(pairs_run, tmp_path, capsys, chosen):
    out = tmp_path / "report.html"
    arguments = [f"--metric=eval/retrieval/{name}" for name in chosen]
    assert cli.main(["classact", "compare", str(pairs_run), f"--out={out}", *arguments]) == 0
    printed = capsys.readouterr().out.split()
    expected = [f"eval/retrieval/{name}" for name in chosen or ("i2t_r1", "t2i_r1")]
    assert [word for word in printed if word.startswith("eval/")] == expected
    assert all(f"{name.split('/')[2]} on retrieval" in out.read_text() for name in expected)


def test_a_metric_that_no_run_has(pairs_run, tmp_path, capsys):
    arguments = [str(pairs_run), f"--out={tmp_path}/r.html", "--metric=eval/test/top1"]
    assert cli.main(["classact", "compare", *arguments]) == 2
    line = complaint(capsys)
    assert "eval/test/top1" in line
    assert "eval/retrieval/i2t_r1, eval/retrieval/i2t_r5, eval/retrieval/t2i_r1" in line
    assert not (tmp_path / "r.html").exists()


def test_a_configuration_with_a_mistake_is_one_line(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return unknown_name\n")
    assert cli.main(["classact", "train", f"--config={path}", "--workdir=x"]) == 2
    assert "unknown_name" in complaint(capsys)


@pytest.mark.parametrize(("name", "status"), [("192.0.2.2", 2), ("localhost", 0)])
def test_isolated_hosts_need_a_name_that_leads_inside(
    workdir, capsys, nothing_starts, monkeypatch, name, status
):
    # As inside, where nothing is started over.
    monkeypatch.setenv("CLASSACT_NETWORK", os.readlink("/proc/self/ns/net"))
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert train(workdir, "--isolate", "--config.mesh.hosts=2") == status
    assert len(nothing_starts) == (status == 0)
    if status:
        line = complaint(capsys)
        assert "mesh.hosts=2: with --isolate" in line and "/etc/hosts" in line


def test_a_run_directory_in_use(workdir, capsys, nothing_starts):
    workdir.mkdir()
    (workdir / "config.json").write_text("{}")
    assert train(workdir) == 2
    assert "holds a run with None" in complaint(capsys)
    assert not nothing_starts
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


def test_a_run_directory_that_is_a_file(workdir, capsys):
    workdir.write_text("")
    assert train(workdir) == 2
    assert "is not a directory" in complaint(capsys)


def test_data_of_another_shape_to_evaluate_on(workdir, capsys, tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, image=np.zeros((4, 5, 5, 1), np.uint8), label=np.arange(4) % 2)
    assert train(workdir, f"--config.eval_data=npz:{path}") == 2
    line = complaint(capsys)
    assert "(8, 8, 1)" in line
    assert "(5, 5, 1)" in line


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome("completed"), 0),
        (Outcome("failed", message="the learner failed", traceback="Traceback: NaN"), 1),
        (Outcome("interrupted", message="interrupted by SIGINT", signal=2), 130),
    ],
)
def test_the_exit_status_says_how_it_ended(workdir, capsys, monkeypatch, outcome, status):
    monkeypatch.setattr(run, "run", lambda prepared, engine: outcome)
    assert train(workdir) == status
    out, err = capsys.readouterr()
    assert outcome.status in out
    assert outcome.message in err
    assert outcome.traceback in err


@pytest.mark.parametrize(
    ("end", "stopped", "status", "said"),
    [
        (Outcome("completed"), [], 0, ""),
        (Outcome("failed", message="it crashed", traceback="Traceback: NaN"), [], 1, "Traceback: NaN"),
        (Outcome("interrupted", message="stopped by SIGTERM", signal=15), [], 143, "stopped by SIGTERM"),
        # Before anything was started.
        (Outcome("interrupted"), [2], 130, ""),
        (attach.AttachError("the learner did not answer"), [], 1, "classact: the learner did not answer"),
    ],
)
def test_how_actors_end(workdir, capsys, monkeypatch, end, stopped, status, said):
    def run_actors(joining, stop, report):
        report(f"{joining} starts")
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(attach_actors, "prepare", lambda *arguments: arguments)
    monkeypatch.setattr(attach_actors, "run", run_actors)
    monkeypatch.setattr(cli, "_stop_on_signals", lambda: (threading.Event(), stopped))
    arguments = [f"--workdir={workdir}", "--dataset=digits", "--count=3"]
    assert cli.main(["classact", "actors", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == f"{(workdir, 'digits', 3)} starts\n"
    assert said in err


def test_a_program_that_cannot_be_started_is_bad_input(workdir, capsys, monkeypatch):
    def refuse(prepared, engine):
        raise LaunchError("no free port")

    monkeypatch.setattr(run, "run", refuse)
    assert train(workdir) == 2
    assert "no free port" in complaint(capsys)


def test_shipped_configurations_are_found_from_any_folder(tmp_path, monkeypatch, nothing_starts):
    monkeypatch.chdir(tmp_path)
    shipped = "--config=experiments/configs/demo.py:uniform"
    assert cli.main(["classact", "train", shipped, "--workdir=run"]) == 0
    assert nothing_starts[0][0].config.train_data == "icons?classes=200"


def test_a_file_of_the_users_own_comes_first(tmp_path, monkeypatch, capsys, nothing_starts):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "experiments" / "configs" / "demo.py"
    own.parent.mkdir(parents=True)
    own.write_text("raise ValueError('mine')")
    assert cli.main(["classact", "train", "--config=experiments/configs/demo.py", "--workdir=run"]) == 2
    assert "mine" in complaint(capsys)


def test_overrides_reach_the_run(workdir, nothing_starts):
    arguments = ["--config.steps=7", "--config.threads.learner=2", "--launch=threads"]
    assert train(workdir, *arguments) == 0
    ((prepared, engine),) = nothing_starts
    assert engine == "threads"
    assert prepared.workdir == workdir
    assert (prepared.config.steps, prepared.config.threads.learner) == (7, 2)
    assert prepared.config.train_data == "digits"


def test_options_of_a_model_reach_the_run(workdir, nothing_starts):
    options = "{'dtype': 'bfloat16', 'remat': True}"
    assert train(workdir, f"--config.learner.options={options}") == 0
    ((prepared, _),) = nothing_starts
    assert prepared.config.learner.options == {"dtype": "bfloat16", "remat": True}


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0), (["help"], 0)])
def test_usage(capsys, arguments, status):
    assert cli.main(["classact", *arguments]) == status
    out, err = capsys.readouterr()
    assert "usage: classact COMMAND" in (err if status else out)


def test_the_installed_command_ends_with_status_2(tmp_path):
    command = [sys.executable, "-c", "from classact.launch.cli import entry_point; entry_point()"]
    arguments = ["train", f"--config={CONFIG}", "--workdir=run", "--config.polcy=rho"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "polcy" in done.stderr.splitlines()[-1]
    assert "policy" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "expected the name of a set, icons"),
        (["photos", "--out=x"], "photos"),
        (["icons"], "--out=DIR is missing"),
        (["icons", "--out=x", "--size=0"], "size"),
        (["icons", "--out={tmp}/out", "--iconify={tmp}", "--emojibase={tmp}"], "{tmp}"),
    ],
)
def test_data_names_what_is_wrong(tmp_path, capsys, arguments, named):
    assert cli.main(["classact", "data", *(a.format(tmp=tmp_path) for a in arguments)]) == 2
    assert named.format(tmp=tmp_path) in complaint(capsys)


def test_data_builds_the_shards_and_says_where(tmp_path, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(
        icon_shards, "build", lambda *arguments: given.append(arguments) or {"noisy/train": 1234}
    )
    assert cli.main(["classact", "data", "icons", f"--out={tmp_path}", "--iconify=some/where"]) == 0
    assert given == [(tmp_path, pathlib.Path("some/where"), None, 32)]
    assert f"1,234 images: tar:{tmp_path}/noisy/train-*.tar" in capsys.readouterr().out
