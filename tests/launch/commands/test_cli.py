"""What a command line makes of its arguments, and how it ends; of bad ones see `tests/test_bad_inputs.py`."""

import json
import os
import pathlib
import re
import socket
import threading
import traceback
from types import SimpleNamespace

import pytest

from classact.data import icon_shards
from classact.data.source import DataError
from classact.experiments.config import ConfigError
from classact.launch.assembly import joined_run
from classact.launch.commands import attach_actors, cli, run, terminal
from classact.launch.engines.outcome import LaunchError, Outcome

pytestmark = pytest.mark.usefixtures("clean_flags")
FOUND = ("classact: trains on ", "classact: measures on ", "classact:   ")
CONFIG = str(pathlib.Path(cli.__file__).parents[2] / "experiments" / "configs" / "classification.py")


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
    # What was found of the data may have been said before.
    lines = [line for line in err.splitlines() if not line.startswith(FOUND)]
    assert len(lines) == 1, err
    assert lines[0].startswith("classact: ")
    return lines[0]


@pytest.mark.parametrize("launch", ["slurm", "ray"])
def test_hosts_of_a_cluster_are_not_isolated(workdir, capsys, nothing_starts, launch):
    assert train(workdir, "--isolate", f"--launch={launch}") == 2
    line = complaint(capsys)
    assert "--isolate" in line and f"--launch={launch}" in line
    assert not nothing_starts and not workdir.exists()


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


def test_figures_and_charts_beside_the_page(pairs_run, tmp_path, capsys):
    files = {"csv": "figures/all.csv", "latex": "figures/table.tex", "charts": "charts"}
    flags = [f"--{flag}={tmp_path / name}" for flag, name in files.items()]
    out = tmp_path / "report.html"
    assert cli.main(["classact", "compare", str(pairs_run), f"--out={out}", "--target=0.05", *flags]) == 0
    rows = (tmp_path / "figures" / "all.csv").read_text().splitlines()
    assert rows[0].startswith("kind,metric,") and len(rows) == 1 + 2 * 2
    assert r"\toprule" in (tmp_path / "figures" / "table.tex").read_text()
    assert (tmp_path / "charts" / "i2t-r1-on-retrieval-learner-updates.png").read_bytes()[:4] == b"\x89PNG"


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
        (joined_run.AttachError("the learner did not answer"), [], 1, "classact: the learner did not answer"),
    ],
)
def test_how_actors_end(workdir, capsys, monkeypatch, end, stopped, status, said):
    def run_actors(joining, stop, report):
        report(f"{joining.arguments} starts")
        if isinstance(end, Exception):
            raise end
        return end

    def prepare(*arguments):
        return SimpleNamespace(arguments=arguments, first_lines=("it has no class names",))

    monkeypatch.setattr(attach_actors, "prepare", prepare)
    monkeypatch.setattr(attach_actors, "run", run_actors)
    monkeypatch.setattr(terminal, "stop_on_signals", lambda: (threading.Event(), stopped))
    arguments = [f"--workdir={workdir}", "--dataset=digits", "--count=3"]
    assert cli.main(["classact", "actors", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == f"{(workdir, 'digits', 3)} starts\n"
    assert err.startswith("classact: it has no class names\n")
    assert said in err


@pytest.mark.parametrize(
    "error",
    [ConfigError("mesh.fsdp=3: must divide 1"), DataError("photos: 3 of 100 images are damaged")],
)
def test_bad_input_that_only_a_node_could_find_is_one_line(workdir, capsys, monkeypatch, error):
    text = f"{''.join(traceback.format_exception(error))}last words"
    end = Outcome("failed", failed_task="learner", message="task learner crashed", traceback=text)
    monkeypatch.setattr(run, "run", lambda prepared, engine: end)
    assert train(workdir) == 2
    assert complaint(capsys) == f"classact: {error} (found by task learner)"


def test_a_run_that_has_diverged_ends_with_a_line(workdir, capsys, monkeypatch):
    end = Outcome("failed", message="diverged at step 9: it is nan", traceback="Traceback: NaN", diverged=9)
    monkeypatch.setattr(run, "run", lambda *_: (workdir / "checkpoints" / "5").mkdir(parents=True) or end)
    assert train(workdir) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "images" not in line]
    assert said == [
        "classact: diverged at step 9: it is nan",
        "classact: its newest checkpoint is of step 5; the same command goes on, "
        "and would most likely diverge again",
    ]


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


def test_each_command_has_lines_in_the_usage_of_all():
    named = re.findall(r"^  (\w+)", cli.usage(), re.MULTILINE)
    assert named == list(cli.COMMANDS)


def test_an_unknown_command_names_those_that_there_are(capsys):
    assert cli.main(["classact", "trian"]) == 2
    assert (
        complaint(capsys) == f"classact: unknown command 'trian': expected one of {', '.join(cli.COMMANDS)}"
    )


def test_data_builds_the_shards_and_says_where(tmp_path, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(
        icon_shards, "build", lambda *arguments: given.append(arguments) or {"noisy/train": 1234}
    )
    assert cli.main(["classact", "data", "icons", f"--out={tmp_path}", "--iconify=some/where"]) == 0
    assert given == [(tmp_path, pathlib.Path("some/where"), None, 32)]
    assert f"1,234 images: 'tar:{tmp_path}/noisy/train-*.tar?captions=lines'" in capsys.readouterr().out
