"""A label is a meaning, not a number: what was permuted in silence, one row a trouble.

Each row is a story on tiny pictures, told by the commands that a user gives.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from classact.experiments import resolution
from classact.experiments.config import ConfigError
from classact.experiments.configs import classification
from classact.launch.assembly import joined_run
from classact.launch.assembly.parts import learning, networks, references, sources
from classact.launch.commands import attach_actors, cli, run
from classact.nodes import scoring
from classact.selection import policies

CONFIG = classification.__file__
SMALL = {"patch_size": 4, "learner.model": "vit_mu_1_1", "scorer.model": "vit_mu_1_1", "batch_size": 8}
SHORT = {**SMALL, "policy": "uniform", "steps": 3, "log_every": 1, "evaluation.every": 3}
COLOURS = {"ant": (250, 20, 20), "bee": (20, 250, 20), "cow": (20, 20, 250)}
IMAGES = 8


def pictures(name, seed):
    """uint8[IMAGES, 8, 8, 3] of a class; a class is a colour."""
    noise = np.random.default_rng(seed).integers(-20, 21, (IMAGES, 8, 8, 3))
    return np.clip(COLOURS.get(name, (250, 250, 20)) + noise, 0, 255).astype(np.uint8)


def folder(path, *names, seed=0):
    for name in names:
        directory = Path(path) / name
        directory.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures(name, seed)):
            Image.fromarray(picture).save(directory / f"{number}.png")


def npz(path, *names, seed=0, named=True):
    """The same pictures as an array; labels are numbered in the order given."""
    images = np.concatenate([pictures(name, seed) for name in names])
    arrays = {"class_names": np.array(names)} if named else {}
    np.savez(path, image=images, label=np.repeat(np.arange(len(names)), IMAGES), **arrays)


def command(name, *arguments, **fields):
    return [name, *arguments, *(f"--config.{field}={value}" for field, value in fields.items())]


def train(workdir, data, **fields):
    options = [f"--config={CONFIG}", f"--workdir={workdir}", "--launch=synchronous"]
    return command("train", *options, **{**SHORT, "train_data": data, **fields})


def evaluate(workdir, data, name):
    return ["evaluate", f"--workdir={workdir}", "--evaluator=accuracy", f"--data={data}", f"--name={name}"]


def classact(*arguments):
    """Runs a command in this process; returns its status."""
    before = set(flags.FLAGS)
    try:
        return cli.main(["classact", *arguments])
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["test"])


def top1(evaluator, workdir="run"):
    """The last accuracy that an evaluator wrote."""
    return json.loads(Path(workdir, "metrics", f"evaluator-{evaluator}.jsonl").read_text().splitlines()[-1])[
        f"eval/{evaluator}/top1"
    ]


LEARNS = {"steps": 40, "evaluation.every": 40, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder with a run on {ant, bee, cow} that has learned them."""
    place = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        folder("abc", "ant", "bee", "cow")
        assert classact(*train("run", "folder:abc", **LEARNS)) == 0
        assert top1("test") == 1.0
    return place


@pytest.fixture
def place(learned, tmp_path, monkeypatch):
    """The same folder for one test, which works in it."""
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change_config(change, workdir="run"):
    path = Path(workdir, "config.json")
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def forget_in_config():
    """What an older version of classact would have left: it knows no names."""
    change_config(lambda fields: fields.pop("started"))


def unfinished():
    """The run was stopped before its end."""
    Path("run/result.json").unlink()
    change_config(lambda fields: fields.update(launch="processes"))


# What is typed, with what was done to the files; the status and the words that are due, and the
# accuracy of the evaluator "x", or of "test".
TROUBLES = {
    "evaluate on classes that the run never saw": (
        lambda: folder("bcd", "bee", "cow", "dog"),
        evaluate("run", "folder:bcd", "x"),
        (2, ("'dog' only here", "'ant' only in the run in run"), None),
    ),
    "evaluate on a set that lacks a class": (
        lambda: folder("bc", "bee", "cow", seed=1),
        evaluate("run", "folder:bc", "x"),
        (0, ("folder:bc has 2 of the 3 classes of the run in run",), ("x", 1.0)),
    ),
    "evaluate on a set with the classes in another order": (
        lambda: npz("cab.npz", "cow", "ant", "bee", seed=1),
        evaluate("run", "npz:cab.npz", "x"),
        (0, (), ("x", 1.0)),
    ),
    "evaluate on a set without names": (
        lambda: npz("abc.npz", "ant", "bee", "cow", seed=1, named=False),
        evaluate("run", "npz:abc.npz", "x"),
        (0, ("npz:abc.npz has no class names", "by number"), ("x", 1.0)),
    ),
    "evaluate on more classes than the run has": (
        lambda: npz("four.npz", "ant", "bee", "cow", "dog", named=False),
        evaluate("run", "npz:four.npz", "x"),
        (2, ("4 classes here, 3 in the run in run",), None),
    ),
    "a checkpoint whose config.json says nothing of classes": (
        lambda: (folder("bcd", "bee", "cow", "dog"), forget_in_config()),
        evaluate("run", "folder:bcd", "x"),
        (2, ("'dog' only here",), None),
    ),
    "a run that recorded nothing of its classes": (
        lambda: (
            folder("bc", "bee", "cow"),
            forget_in_config(),
            shutil.rmtree("run/checkpoints/40/classes", ignore_errors=True),
        ),
        evaluate("run", "folder:bc", "x"),
        (2, ("the run in run has no class names", "learned 3 classes, expected 2"), None),
    ),
    "a reference of other classes": (
        lambda: folder("bcz", "bee", "cow", "zebra"),
        train("new", "folder:bcz", **{"policy": "easy_reference", "reference.checkpoint": "run"}),
        (2, ("reference.checkpoint='run'", "'ant' only in the reference", "'zebra' only in the data"), None),
    ),
    "a reference of another number of classes": (
        lambda: npz("four.npz", *"abcd", named=False),
        train("new", "npz:four.npz", **{"policy": "easy_reference", "reference.checkpoint": "run"}),
        (2, ("3 classes in the reference, 4 in the data",), None),
    ),
    "a run's own evaluation in another order": (
        lambda: npz("cab.npz", "cow", "ant", "bee", seed=1),
        train("new", "folder:abc", eval_data="npz:cab.npz", **LEARNS),
        (0, (), ("test", 1.0)),
    ),
    "a run's own evaluation that lacks a class": (
        lambda: folder("bc", "bee", "cow", seed=1),
        train("new", "folder:abc", eval_data="folder:bc", **LEARNS),
        (0, (), ("test", 1.0)),
    ),
    "a run's own evaluation without names": (
        lambda: npz("abc.npz", "ant", "bee", "cow", seed=1, named=False),
        train("new", "folder:abc", eval_data="npz:abc.npz"),
        (0, ("classact: npz:abc.npz has no class names",), None),
    ),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_command_knows_what_labels_mean(place, capfd, trouble):
    prepare, arguments, (status, words, accuracy) = TROUBLES[trouble]
    prepare()
    found = classact(*arguments)
    said = capfd.readouterr().err
    assert found == status, said
    assert [word for word in words if word not in said] == []
    # A parameter's path says nothing to whoever has the classes in mind.
    assert "['head']" not in said
    if accuracy is not None:
        evaluator, value = accuracy
        assert top1(evaluator, "run" if evaluator == "x" else "new") == value
    elif status:
        assert not Path("new").exists() and not Path("run/metrics/evaluator-x.jsonl").exists()


def resolved(data, **fields):
    config = classification.get_config()
    config.update_from_flattened_dict({**SHORT, "train_data": data, **fields})
    return resolution.resolve(config.to_dict())


def test_a_run_does_not_go_on_with_a_renamed_class(place):
    unfinished()
    Path("abc/cow").rename("abc/aaa")
    with pytest.raises(ConfigError, match=r"workdir='run'.*'cow' only in the run, 'aaa' only now"):
        run.prepare(resolved("folder:abc", **LEARNS), Path("run"), "threads")


def test_actors_do_not_join_with_a_renamed_class(place):
    unfinished()
    Path("run/endpoints.json").write_text(
        json.dumps({"learner": ["127.0.0.1:1"], "replay/folder": ["127.0.0.1:2"]})
    )
    Path("abc/cow").rename("abc/aaa")
    with pytest.raises(joined_run.AttachError, match="'aaa' only here, 'cow' only in the experiment"):
        attach_actors.prepare(Path("run"), "", 1)


def test_a_reference_with_the_classes_in_another_order_scores_the_same_class(place):
    npz("cab.npz", "cow", "ant", "bee", seed=1)
    chosen = resolved("npz:cab.npz", **{"policy": "easy_reference", "reference.checkpoint": "run"})
    prepared = run.prepare(chosen, Path("new"), "synchronous")
    (own,) = chosen.data_sets.values()
    models = networks.role_models(chosen, own, prepared.data["npz"])
    score = scoring.make_scorer(policies.get(own.policy), learning.make_task(chosen), models)
    train = sources.open_train_source(chosen, own)
    batch = train.batch(np.arange(train.num_examples))
    losses = -np.asarray(
        score(references.fixed_variables(chosen, own, prepared.data["npz"]), batch, np.int32(0))
    )
    assert losses.max() < 0.5


def test_data_sets_of_a_run_agree_in_what_their_labels_mean(place, monkeypatch):
    npz("cab.npz", "cow", "ant", "bee", seed=1)
    folder("bc", "bee", "cow", seed=2)
    Path("mine.py").write_text(
        "from classact.experiments import base\n"
        "from classact.experiments.configs import classification\n"
        "def get_config():\n"
        "    config = classification.get_config()\n"
        "    config.update_from_flattened_dict({'policy': 'uniform', 'batch_size': 8})\n"
        "    specs = {'a': 'folder:bc', 'b': 'folder:abc', 'c': 'npz:cab.npz'}\n"
        "    config.data_sets = {n: base.data_set(config, train_data=data) for n, data in specs.items()}\n"
        "    return config\n"
    )
    fields = {**SHORT, **LEARNS, "eval_data": "folder:abc"}
    for name in ("policy", "batch_size"):
        del fields[name]
    options = ["--config=mine.py", "--workdir=new", "--launch=synchronous"]
    assert classact(*command("train", *options, **fields)) == 0
    assert top1("test", "new") == 1.0


def test_runs_of_other_classes_are_not_compared_in_silence(place, capfd):
    shutil.copytree("run", "other")

    def other_classes(fields):
        fields["policy"] = "hard_learner"
        fields["started"]["data"]["folder"]["class_names"] = ["bee", "cow", "dog"]

    change_config(other_classes, "other")
    assert classact("compare", "run", "other") == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "'dog' only in other, 'ant' only in run" in said
