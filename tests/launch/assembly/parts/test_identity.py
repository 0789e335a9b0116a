"""Whether data are what they were when a run began."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from classact.data.source import DataError
from classact.experiments import base, resolution
from classact.experiments.config import ConfigError, EvaluatorConfig
from classact.launch.assembly import joined_run, run_loop_node
from classact.launch.assembly.parts import held_out, identity, recorded, references, shapes, sources
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.assembly.run_spec import RunSpec
from classact.launch.commands import attach, run
from classact.launch.engines.local.processes import Processes
from classact.launch.engines.outcome import Outcome

STARTED = {
    "data": {"folder": {"fingerprint": {"digest": "files:1"}, "held_out_examples": 3}},
    "eval_data": {"test": {"fingerprint": {"digest": "files:2"}}},
}


@pytest.mark.parametrize(
    ("names", "before", "now", "moved"),
    [
        (("train_data",), "folder:a", "folder:/b/c", True),
        (("data_sets", "folder", "train_data"), "folder:a?size=8", "folder:b?size=8", True),
        (("eval_data",), "tar:a-{0..3}.tar", "tar:b/a-{0..3}.tar", True),
        (("evaluation", "evaluators", "test", "data"), "npz:a", "npz:b", True),
        (("train_data",), "folder:a+tar:b", "folder:c+tar:d", True),
        (("train_data",), "folder:a+b", "folder:a", True),
        (("train_data",), "folder:a?size=8", "folder:b?size=9", False),
        (("train_data",), "folder:a", "folder:a?size=9", False),
        (("train_data",), "folder:a", "captioned_folder:a", False),
        (("train_data",), "icons", "icons?classes=7", False),
        (("train_data",), None, "folder:a", False),
        (("reference", "checkpoint"), "folder:a", "folder:b", False),
    ],
)
def test_data_may_move_and_nothing_else(names, before, now, moved):
    assert recorded.may_have_moved(STARTED, names, before, now) == moved


@pytest.mark.parametrize(
    "started",
    [
        None,
        {},
        {"data": {"folder": {"num_examples": 3}}},
        {"data": []},
        {**STARTED, "eval_data": {"test": {"fingerprint": {"digest": ""}}}},
    ],
)
def test_data_whose_contents_are_not_known_may_not_move(started):
    assert not recorded.may_have_moved(started, ("train_data",), "folder:a", "folder:b")


def configured(**changes):
    config = base.get_config()
    config.update_from_flattened_dict({"policy": "uniform", "patch_size": 4, "batch_size": 8, "steps": 4})
    config.update_from_flattened_dict({"learner.model": "vit_mu_1_1", "scorer.model": "vit_mu_1_1"})
    config.update_from_flattened_dict({"train_data": "npz:a.npz", **changes})
    return resolution.resolve(config.to_dict())


def npz(path="a.npz", count=60, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), np.uint8)
    np.savez(path, image=images, label=np.arange(count) % 3)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Processes, "run", lambda engine, job: Outcome("interrupted"))
    npz()


def begin(config, workdir="run"):
    run.run(run.prepare(config, pathlib.Path(workdir), "processes"), "processes")


def rewrite(change, workdir="run"):
    path = pathlib.Path(workdir) / "config.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_what_was_held_out_is_written_down():
    begin(configured())
    written = json.loads(pathlib.Path("run/config.json").read_text())
    assert written["eval_share"] == 0.05
    assert written["started"]["data"]["npz"]["num_examples"] == 57
    assert written["started"]["data"]["npz"]["held_out_examples"] == 3
    assert written["started"]["data"]["npz"]["fingerprint"]["num_examples"] == 60
    assert written["started"]["eval_data"]["test"]["examples"] == 3


def test_a_run_that_was_made_before_there_were_fingerprints_goes_on_if_it_holds_nothing_out():
    def as_older(fields):
        del fields["eval_share"], fields["started"]["eval_data"]
        del (
            fields["started"]["data"]["npz"]["fingerprint"],
            fields["started"]["data"]["npz"]["held_out_examples"],
        )

    begin(configured(eval_share=0.0))
    rewrite(as_older)
    npz(seed=1)
    assert run.prepare(configured(eval_share=0.0), pathlib.Path("run"), "processes").earlier is not None
    with pytest.raises(
        ConfigError, match=r"eval_share=0\.05: of npz:a\.npz 3 examples are held out instead of 0"
    ):
        run.prepare(configured(), pathlib.Path("run"), "processes")


def test_another_share_is_another_run():
    begin(configured())
    with pytest.raises(ConfigError, match=r"eval_share=0\.1: .* a run with 0\.05"):
        run.prepare(configured(eval_share=0.1), pathlib.Path("run"), "processes")


def test_a_node_that_opens_other_data_ends_the_run():
    config = configured()
    (own,) = config.data_sets.values()
    shape = shapes.data_shape(config, sources.open_train_source(config, own))
    npz(seed=1)
    spec = RunSpec(config, pathlib.Path("run").absolute(), {"npz": shape})
    reader = run_loop_node.Reader("npz-0", 0, 0, 1)
    with pytest.raises(
        DataError, match=r"npz:a\.npz is not what the run was started with: .* images or labels"
    ):
        run_loop_node.make_run_loop(spec, "npz", ["127.0.0.1:1"], None, reader, None)


def test_nodes_take_what_was_held_out_when_the_run_was_prepared(monkeypatch):
    config = configured()
    shape = run.prepare(config, pathlib.Path("run"), "processes").data["npz"]
    monkeypatch.setattr(held_out, "indices", lambda *_: pytest.fail("it is looked for again"))
    (own,) = config.data_sets.values()
    (evaluator,) = config.evaluation.evaluators.values()
    assert sources.open_train_source(config, own, shape.held_out).num_examples == 57
    assert sources.open_eval_source(config, evaluator, shape.held_out).num_examples == 3


def test_what_is_held_out_for_a_reference_is_no_part_of_what_is_held_out_to_measure_on():
    every = []
    for split in ("held_out", "rest"):
        config = configured(held_out=0.5, train_split=split)
        (own,) = config.data_sets.values()
        every += sources.open_train_source(config, own).batch(np.arange(28))["id"].tolist()
    (evaluator,) = config.evaluation.evaluators.values()
    every += sources.open_eval_source(config, evaluator).batch(np.arange(3))["id"].tolist()
    assert len(every) == len(set(every)) == 59


def test_only_who_measures_on_training_data_has_them_held_out():
    """Otherwise they would be trained on less for nothing."""
    assert configured(eval_data="npz:b.npz").eval_share == 0
    evaluator = {"evaluation.evaluators": {"other": {"kind": "accuracy", "data": "npz:b.npz"}}}
    assert configured(**evaluator).eval_share == 0
    evaluator["evaluation.evaluators"]["own"] = {"kind": "accuracy", "data": "npz:a.npz"}
    assert configured(**evaluator).eval_share == 0.05
    written = configured(**evaluator).to_dict()
    assert resolution.resolve({**written, "data_sets": {}}).eval_share == 0.05


def test_of_several_data_sets_the_one_that_is_measured_on_is_split():
    npz("b.npz", seed=1)
    config = base.get_config()
    config.update_from_flattened_dict({"policy": "uniform"})
    config.data_sets = {
        name: base.data_set(config, train_data=f"npz:{name}.npz", batch_size=8) for name in ("a", "b")
    }
    resolved = resolution.resolve(config.to_dict())
    sizes = [sources.open_train_source(resolved, own).num_examples for own in resolved.data_sets.values()]
    assert sizes == [57, 60]


def attached(data=""):
    return attach.prepare(pathlib.Path("run"), "again", EvaluatorConfig("accuracy", data), 0)


def test_an_evaluator_that_joins_measures_on_what_was_held_out(monkeypatch):
    begin(configured())
    os.remove("run/result.json")
    seen = []
    monkeypatch.setattr(
        attach.evaluators, "make_measure", lambda config, own, shape, said, **more: seen.append(more)
    )
    assert attached().every == 50
    shutil.copy("a.npz", "copy.npz")
    attached("npz:copy.npz")
    assert [more["on_training_data"] for more in seen] == [False, True]
    npz(seed=1)
    with pytest.raises(
        joined_run.AttachError, match=r"npz:a\.npz is not what the run evaluates on: .* images or labels"
    ):
        attached()
    # These are asked for.
    attached("npz:a.npz")


def check_reference(config):
    shape = shapes.data_shape(config, sources.open_train_source(config, config.data_sets["npz"]))
    references.check_reference(config, config.data_sets["npz"], shape)


def test_a_held_out_reference_must_have_had_the_same_part_aside(monkeypatch):
    monkeypatch.setattr(references.curves, "load_run", lambda _: None)
    halves = {"held_out": 0.5, "policy": "classact_ho", "reference.checkpoint": "ref", "train_split": "rest"}
    begin(configured(held_out=0.5, train_split="held_out", **{"learner.model": "vit_mu_1_1"}), "ref")
    # What comes next: the parameters, of which there are none.
    with pytest.raises(ConfigError, match="checkpoint"):
        check_reference(configured(**halves))
    with pytest.raises(ConfigError, match=r"3 examples were held out .* this run holds out 6"):
        check_reference(configured(**halves, eval_share=0.1))
    os.rename("a.npz", "b.npz")
    with pytest.raises(ConfigError) as moved:
        check_reference(configured(**{**halves, "train_data": "npz:b.npz"}))
    assert "needs a reference trained with" not in str(moved.value)
    npz("b.npz", seed=1)
    with pytest.raises(ConfigError, match="needs a reference trained with"):
        check_reference(configured(**{**halves, "train_data": "npz:b.npz"}))


@pytest.mark.parametrize(
    ("changes", "warned"), [({}, False), ({"data_seed": 1}, True), ({"eval_share": 0}, True)]
)
def test_a_reference_that_has_seen_what_is_measured_on_is_warned_of(changes, warned):
    begin(configured(**changes), "ref")
    config = configured(policy="easy_reference", **{"reference.checkpoint": "ref"})
    shape = shapes.data_shape(config, sources.open_train_source(config, config.data_sets["npz"]))
    said = FirstLines()
    identity.check(config, pathlib.Path("run"), {"npz": shape}, said)
    assert any("holds out to measure on" in line for line in said.lines()) == warned
