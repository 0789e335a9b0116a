"""Diverged is diverged, and comparisons are fair or say so: one row for each trouble that was found."""

import dataclasses
import json
import os
import re
import signal
import sys
import threading
import types

import jax
import numpy as np
import pytest

from classact.experiments import base, resolution
from classact.experiments.report import report
from classact.launch.assembly.in_threads import make_threads
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.parts import learning
from classact.launch.commands import cli, run
from classact.launch.commands import train as train_command
from classact.launch.engines.ports import LoopbackPorts
from classact.launch.engines.terms import Terms
from classact.launch.engines.threads import run_threads
from classact.nodes import checkpoints, training

# The smallest run there is: two seconds in one process.
TINY = {
    "policy": "uniform",
    "train_data": "digits",
    "patch_size": 4,
    "learner.model": "haiku_mlp",
    "scorer.model": "haiku_mlp",
    "batch_size": 32,
    "steps": 3,
    "evaluation.every": 3,
}


def fields(**changes):
    """A configuration's fields; those of a group are written `group__name`."""
    config = base.get_config()
    config.update_from_flattened_dict(
        TINY | {name.replace("__", "."): value for name, value in changes.items()}
    )
    return config.to_dict()


def train(workdir, **changes):
    """Runs an experiment in this process; returns its exit status and its result."""
    status = train_command.train(fields(**changes), workdir, "synchronous")
    return status, json.loads((workdir / "result.json").read_text())


def write_nonfinite_run(workdir):
    """Leaves a completed run whose parameters are not finite, as an earlier version could."""
    config = resolution.resolve(fields())
    prepared = run.prepare(config, workdir, "synchronous")
    models = learning.trained_models(config, next(iter(prepared.data.values())))
    state = training.init_state(models, 0)
    learner = state.models["learner"]
    learner = dataclasses.replace(learner, params=jax.tree.map(lambda array: array * np.nan, learner.params))
    state = dataclasses.replace(state, step=state.step + 3, models={"learner": learner})
    checkpointer = checkpoints.Checkpointer(workdir / "checkpoints")
    checkpointer.save(3, state)
    checkpointer.close()
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    (workdir / "result.json").write_text(json.dumps({"status": "completed", "steps": 3}))


@pytest.fixture
def nan_policy(monkeypatch):
    """The name of a policy whose scores are NaN, as those of a reference that is not finite are."""
    policies = pytest.importorskip("classact.selection.policies")
    module = types.ModuleType("reported_policies")
    module.nan = dataclasses.replace(
        policies.get("hard_learner"), name="nan", score=lambda online, reference: online["loss"] * np.nan
    )
    monkeypatch.setitem(sys.modules, "reported_policies", module)
    return "reported_policies:nan"


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"learning_rate": 1e30}, 2),
        # Its loss is finite, it is that of the parameters before the update; these are not after it.
        ({"learning_rate": 1e39, "steps": 1, "warmup_steps": 0}, 1),
    ],
    ids=["a loss", "the last update"],
)
def test_a_synchronous_run_that_diverges_fails_and_saves_nothing(tmp_path, capsys, changes, step):
    status, result = train(tmp_path / "r", **changes)
    assert (status, result["status"], result.get("diverged")) == (1, "failed", step)
    assert checkpoints.latest_step(tmp_path / "r" / "checkpoints") is None
    said = capsys.readouterr().err
    assert f"classact: diverged at step {step}: " in said and "Traceback" not in said


def test_scores_that_are_not_numbers_end_a_synchronous_run(tmp_path, nan_policy):
    status, result = train(tmp_path / "r", policy=nan_policy)
    assert (status, result["status"], result.get("diverged")) == (1, "failed", 0)
    assert "64 of 64 scores are NaN or infinite" in result["message"]


def test_a_reference_that_is_not_finite_is_refused(tmp_path):
    write_nonfinite_run(tmp_path / "reference")
    config = resolution.resolve(
        fields(policy="easy_reference", reference__checkpoint=str(tmp_path / "reference"))
    )
    with pytest.raises(
        ValueError, match=r"reference.checkpoint=.*has not diverged: 6 of its 6 arrays"
    ) as raised:
        run.prepare(config, tmp_path / "r", "synchronous")
    assert "\n" not in str(raised.value)


def test_parameters_that_are_not_finite_are_not_evaluated(tmp_path, capsys, clean_flags):
    write_nonfinite_run(tmp_path / "r")
    status = cli.main(["classact", "evaluate", f"--workdir={tmp_path / 'r'}", "--evaluator=accuracy"])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    # After what it would have measured on.
    *_, line = (line for line in err.splitlines() if line.startswith("classact: "))
    assert "diverged at step 3: the learner's parameters are not finite" in line
    assert not (tmp_path / "r" / "metrics").exists()


def test_a_run_shorter_than_its_log_interval_has_its_last_figures(tmp_path):
    _, result = train(tmp_path / "r", log_every=25)
    assert {"train/loss", "train/examples", "eval/test/top1"} <= set(result["final"])
    assert result["final"]["train/examples"] == 3 * 32


def test_threads_that_are_stopped_leave_the_tables_until_the_learner_has_saved_them():
    order, tables_gone = [], threading.Event()

    def learner():
        os.kill(os.getpid(), signal.SIGINT)
        lp.wait_for_stop()
        # As long as it saves, at most.
        order.append(f"saved {'without' if tables_gone.wait(0.3) else 'with'} tables")

    def replay():
        lp.stop_event().wait()
        tables_gone.set()
        order.append("tables gone")

    program = lp.Program("stop")
    program.add_node(lp.PyNode(learner), label="learner")
    program.add_node(lp.PyNode(replay), label="replay/icons")
    labels = {"learner": "learner", "replay-icons": "replay/icons"}
    with LoopbackPorts() as ports:
        outcome = run_threads(make_threads(program, ports), labels, Terms(["learner"]))
    assert outcome.status == "interrupted"
    assert order == ["saved with tables", "tables gone"]


def write_run(path, speed=1.0, done=1500, result=(), line=None, edit=lambda config: None, **changes):
    """Leaves the files of a run whose accuracy is a straight line to 80 %, faster by `speed`.

    `result` is put into its result, and `line` is a line of a file of metrics that follows
    all others: (node, record as text).
    """
    config = json.loads(json.dumps(resolution.resolve(fields(steps=1500, **changes)).to_dict()))
    config |= {"launch": "processes", "git_commit": "a" * 40, "versions": {"jax": "1.0"}}
    names = {"num_classes": 2, "class_names": ["ant", "bee"]}
    found = {"num_examples": 100, "fingerprint": {"digest": "files:abc"}, **names}
    config["started"] = {"host": "here", "data": {"digits": found}}
    edit(config)
    (path / "metrics").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    steps = range(50, done + 1, 50)
    for node, name, value in (
        ("evaluator-test", "eval/test/top1", lambda step: 0.8 * step * speed / 1500),
        ("learner", "train/loss", lambda step: 2.0),
    ):
        lines = [json.dumps({"step": step, name: value(step)}) for step in steps]
        lines += [line[1]] if line and line[0] == node else []
        (path / "metrics" / f"{node}.jsonl").write_text("\n".join(lines) + "\n")
    ledger = {"total_macs": 1500.0, "macs_per_update": 1.0}
    (path / "result.json").write_text(
        json.dumps({"status": "completed", "steps": done, "ledger": ledger, **dict(result)})
    )
    return path


def compared(tmp_path, *runs):
    """What a comparison prints, and the text of its page."""
    written = report.write_report(runs, tmp_path / "report.html")
    page = re.sub(r"<style>.*?</style>|<[^>]*>", " ", written.path.read_text(), flags=re.DOTALL)
    return report.format_table(written), re.sub(r"\s+", " ", page)


DIVERGED = {
    "by its result": {"result": {"status": "failed", "steps": 700, "diverged": 700}, "done": 700},
    "by the learner's curve": {"line": ("learner", '{"step": 1500, "train/loss/nonfinite": 1}')},
    "by NaN in the learner's file": {"line": ("learner", '{"step": 1500, "train/loss": NaN}')},
    "by an evaluation": {
        "line": ("evaluator-test", '{"step": 1500, "eval/test/top1": 0.1, "eval/test/loss/nonfinite": 1}')
    },
    "by NaN as its accuracy": {"line": ("evaluator-test", '{"step": 1500, "eval/test/top1": NaN}')},
    "by its final loss": {"result": {"final": {"train/loss": float("nan")}}},
}


@pytest.mark.parametrize("how", DIVERGED.values(), ids=DIVERGED)
def test_a_baseline_that_has_diverged_is_none(tmp_path, how):
    baseline = write_run(tmp_path / "u", **how)
    text, page = compared(tmp_path, baseline, write_run(tmp_path / "h", 1.5, policy="hard_learner"))
    for shown in (text, page):
        assert "uniform (diverged)" in shown
        assert "hard_learner has no baseline to compare it with: uniform diverged." in shown
        assert "baseline run of the same learner" not in shown
        assert not re.search(r"\d % *(fewer|more) updates|[+−]\d+\.\d\s%", shown)
    assert text.index(f"{baseline} has diverged, at update") < text.index("eval/test/top1")


@pytest.mark.parametrize("how", ["by its result", "by the learner's curve"])
def test_a_run_that_has_diverged_saves_nothing(tmp_path, how):
    diverged = write_run(tmp_path / "h", 2.5, policy="hard_learner", **DIVERGED[how])
    runs = [write_run(tmp_path / "u"), diverged]
    text, page = compared(tmp_path, *runs)
    (line,) = (line for line in text.splitlines() if line.lstrip().startswith("hard_learner (diverged)"))
    assert "%" not in line and "diverged " in line.split("(diverged)")[1]
    assert "hard_learner diverged" in page
    assert not re.search(r"\d % *(fewer|more) updates", page)


def test_another_seed_of_a_baseline_stands_in_for_one_that_has_diverged(tmp_path):
    runs = [write_run(tmp_path / "u0", 0.5, **DIVERGED["by the learner's curve"])]
    runs += [write_run(tmp_path / "u1", seed=1)]
    text, _ = compared(tmp_path, *runs, write_run(tmp_path / "h", 1.5, policy="hard_learner"))
    (line,) = (line for line in text.splitlines() if line.lstrip().startswith("hard_learner "))
    assert "32.2\N{NO-BREAK SPACE}%" in line


def of_data(**changes):
    return lambda config: config["started"]["data"]["digits"].update(changes)


# What a run has that its baseline has not, and what is said of it.
UNLIKE = {
    "learning_rate": ({"learning_rate": 0.01}, "learning_rate 0.01 (baseline 0.001)"),
    "schedule": ({"warmup_steps": 7}, "warmup_steps 7 (baseline 150)"),
    "weight_decay": ({"weight_decay": 0.5}, "weight_decay 0.5 (baseline 0.001)"),
    "clip_norm": ({"clip_norm": 1.0}, "clip_norm 1.0 (baseline 0.0)"),
    "label_smoothing": ({"label_smoothing": 0.0}, "label_smoothing 0.0 (baseline 0.1)"),
    "patch_size": ({"patch_size": 2}, "patch_size 2 (baseline 4)"),
    "model options": (
        {"learner__options": {"dtype": "bfloat16"}}, "learner.options.dtype bfloat16 (baseline not set)"
    ),
    "gradient_accumulation": ({"gradient_accumulation": 2}, "gradient_accumulation 2 (baseline 1)"),
    "mesh": ({"mesh__fsdp": 2}, "mesh.fsdp 2 (baseline 1)"),
    "evaluation": ({"evaluation__every": 5}, "evaluation.every 5 (baseline 3)"),
    "data_seed": ({"data_seed": 4}, "data_seed 4 (baseline 0)"),
    "split": ({"held_out": 0.5, "train_split": "rest"}, "train_split rest (baseline all)"),
    "launch": (
        {"edit": lambda config: config.update(launch="threads")}, "launch threads (baseline processes)"
    ),
    "versions": (
        {"edit": lambda config: config["versions"].update(jax="2.0")}, "versions.jax 2.0 (baseline 1.0)"
    ),
    "code": (
        {"edit": lambda config: config.update(git_commit="b" * 40)},
        "git_commit bbbbbbbbbbbb (baseline aaaaaaaaaaaa)",
    ),
    "fingerprint": (
        {"edit": of_data(fingerprint={"digest": "files:def"})},
        "data.fingerprint.digest files:def (baseline files:abc)",
    ),
    "a field that is not thought of": (
        {"edit": lambda config: config.update(momentum=0.8)}, "momentum 0.8 (baseline 0.9)"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def unlike(tmp_path_factory):
    """What is printed, and the page, of a run that has all of it: charts take their time."""
    tmp_path = tmp_path_factory.mktemp("unlike")
    changes = {name: value for change, _ in UNLIKE.values() for name, value in change.items()}
    edits = [change["edit"] for change, _ in UNLIKE.values() if "edit" in change]

    def edit(config):
        for each in edits:
            each(config)

    baseline = write_run(tmp_path / "u", edit=lambda config: config.update(momentum=0.9))
    changed = write_run(tmp_path / "h", 1.5, policy="hard_learner", **{**changes, "edit": edit})
    return compared(tmp_path, baseline, changed)


@pytest.mark.parametrize("said", [said for _, said in UNLIKE.values()], ids=UNLIKE)
def test_what_differs_from_the_baseline_is_listed(unlike, said):
    text, page = unlike
    assert said in text
    field, value, other = re.fullmatch(r"(\S+) (.+) \(baseline (.+)\)", said).groups()
    assert f"hard_learner {field} {value} {other}" in page


def test_runs_of_other_classes_are_not_held_against_each_other(tmp_path):
    runs = [write_run(tmp_path / "u")]
    edit = of_data(class_names=["ant", "cow"])
    text, page = compared(tmp_path, *runs, write_run(tmp_path / "h", 1.5, policy="hard_learner", edit=edit))
    for shown in (text, page.replace("&#x27;", "'")):
        assert "hard_learner is not held against uniform: classes differ: 'cow' only in" in shown
        assert not re.search(r"\d % *(fewer|more) updates|[+−]\d+\.\d\s%", shown)


@pytest.mark.parametrize("field", ["learning_rate", "warmup_steps"])
def test_another_learning_rate_or_schedule_is_said_before_any_figure(unlike, field):
    text, page = unlike
    assert f"WARNING: hard_learner: {field} " in text.split("eval/test/top1")[0]
    # Above the results, and again beside the result that it may have made.
    assert page.index(f"hard_learner: {field} ") < page.index("fewer updates")
    assert f"{field} " in page[page.index("fewer updates") : page.index("Learning curves")]


def test_a_task_has_settings_too(tmp_path):
    shared = {"task": "contrastive", "train_data": "icon_pairs", "learner__model": "vit_mu_1_1"}
    shared["scorer__model"] = "vit_mu_1_1"
    runs = [write_run(tmp_path / "u", **shared)]
    runs += [write_run(tmp_path / "h", 1.5, policy="hard_learner", contrastive__loss="sigmoid", **shared)]
    written = report.write_report(runs, tmp_path / "report.html", metrics=["eval/test/top1"])
    assert "contrastive.loss sigmoid (baseline infonce)" in report.format_table(written)


def test_a_baseline_that_was_interrupted_is_said_so_before_any_figure(tmp_path):
    cut = {"done": 900, "result": {"status": "interrupted"}}
    runs = [write_run(tmp_path / "u", **cut), write_run(tmp_path / "h", 1.5, policy="hard_learner")]
    text, page = compared(tmp_path, *runs)
    said = f"The baseline {runs[0]} is interrupted, at update 900 of 1,500: its final value is not"
    assert said in text.split("eval/test/top1")[0]
    assert page.index(said) < page.index("fewer updates")
