"""A data set is itself, or the run says so: each row is a trouble that a user has met."""

import dataclasses
import io
import json
import os
import pathlib
import shutil
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from classact.data import registry
from classact.data.source import DataError, Source
from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.experiments.configs import classification
from classact.experiments.report import report
from classact.launch.assembly import joined_run, run_loop_node
from classact.launch.assembly.parts import shapes, sources
from classact.launch.assembly.run_spec import RunSpec
from classact.launch.commands import attach, attach_actors, cli, progress, run
from classact.launch.engines.local.processes import Processes
from classact.launch.engines.outcome import Outcome
from classact.nodes.errors import FatalError

KINDS = ("folder", "npz", "captioned_folder", "tar")
CLASSES = ("ant", "bee", "cow")


def pixels(number, side=8):
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)


def png(number):
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, content):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def npz(path, labels, numbers=None):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, image=np.stack([pixels(n) for n in numbers or range(len(labels))]), label=labels)


def tar(path, members):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))


def pairs(count=40, caption="caption {}"):
    return {
        f"{n:03}.{ending}": content
        for n in range(count)
        for ending, content in (("png", png(n)), ("txt", caption.format(n).encode()))
    }


def data(kind, where="mine"):
    """Writes forty images or more of a kind in a folder; returns the spec."""
    if kind == "folder":
        for number in range(42):
            write(f"{where}/photos/{CLASSES[number % 3]}/{number}.png", png(number))
        return f"folder:{where}/photos"
    if kind == "npz":
        npz(f"{where}/all.npz", np.arange(42) % 3)
        return f"npz:{where}/all.npz"
    if kind == "captioned_folder":
        for name, content in pairs().items():
            write(f"{where}/pairs/{name}", content)
        return f"captioned_folder:{where}/pairs"
    tar(f"{where}/pairs-0.tar", pairs())
    return f"tar:{where}/pairs-*.tar"


def configured(spec, **changes):
    config = base.get_config()
    paired = spec.startswith(("tar", "captioned"))
    model = {"learner.model": "vit_mu_1_1", "scorer.model": "vit_mu_1_1", "patch_size": 4, "steps": 4}
    config.update_from_flattened_dict({"policy": "uniform", "batch_size": 8, **model})
    config.update_from_flattened_dict({"task": "contrastive"} if paired else {})
    config.update_from_flattened_dict({"train_data": spec, **changes})
    return resolution.resolve(config.to_dict())


def prepared(config):
    return run.prepare(config, pathlib.Path("run"), "processes")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry._OPENERS, "one_split", OneSplit)


@pytest.fixture
def begun(monkeypatch):
    """Begins a run as far as its `config.json`: it is interrupted at once."""
    monkeypatch.setattr(Processes, "run", lambda engine, job: Outcome("interrupted"))
    return lambda config: run.run(prepared(config), "processes")


def another_size():
    write("mine/photos/ant/0.png", png(0) + b"x")


def another_caption():
    write("mine/pairs/003.txt", "another one")


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("folder", lambda: write("mine/photos/ant/new.png", png(99)), r"1 example more \(43 instead of 42\)"),
        ("folder", lambda: os.remove("mine/photos/ant/0.png"), r"1 example fewer \(41 instead of 42\)"),
        ("folder", another_size, "the same number of examples, but names or sizes of its files"),
        ("folder", lambda: os.rename("mine/photos/ant/0.png", "mine/photos/ant/1.png"), "but names or sizes"),
        ("npz", lambda: npz("mine/all.npz", np.arange(42) % 3, range(1, 43)), "but images or labels"),
        ("captioned_folder", another_caption, "but names or sizes of its files, or captions"),
        ("tar", lambda: tar("mine/pairs-1.tar", pairs(2)), "2 examples more"),
        (
            "tar",
            lambda: tar("mine/pairs-0.tar", pairs(caption="Caption {}")),
            "but names or sizes of its shards'",
        ),
    ],
)
def test_a_run_does_not_go_on_with_another_data_set(begun, kind, change, said):
    """It was begun; run loops were restarted nine times, and it said that the same command goes on."""
    config = configured(data(kind), eval_data=data(kind, "other"))
    begun(config)
    assert prepared(config).earlier is not None
    change()
    with pytest.raises(
        ConfigError, match=f"mine/.* is not what the run in workdir='run' began with: .*{said}"
    ):
        prepared(config)


def test_a_run_does_not_go_on_with_more_classes(begun):
    config = configured(data("npz"), eval_data=data("npz", "other"))
    begun(config)
    npz("mine/all.npz", np.arange(42) % 4)
    with pytest.raises(ConfigError, match=r"npz:mine/all\.npz has now: 3 classes in the run, 4 now"):
        prepared(config)


def test_uncompressed_splits_are_no_training_data(begun):
    """Their files have equal names and sizes: the one was taken for the other, moved."""
    for split, first in (("train", 0), ("test", 100)):
        for number in range(6):
            path = pathlib.Path(f"bmp/{split}/{CLASSES[number % 2]}/{number}.bmp")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(first + number)).save(path)
    config = configured("folder:bmp/train", eval_data="folder:bmp/test")
    assert "training data" not in "".join(prepared(config).first_lines)
    begun(config)
    with pytest.raises(ConfigError, match="contents, are others"):
        prepared(configured("folder:bmp/test", eval_data="folder:bmp/test"))


def test_a_run_does_not_go_on_with_other_evaluation_data(begun):
    config = configured(data("folder"), eval_data=data("folder", "other"))
    begun(config)
    os.remove("other/photos/bee/1.png")
    with pytest.raises(ConfigError, match=r"evaluators\.test: folder:other/photos .* 1 example fewer"):
        prepared(config)


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_moved_go_on(begun, kind):
    spec = data(kind)
    begun(configured(spec))
    shutil.move("mine", "disk2")
    assert prepared(configured(spec.replace("mine", "disk2"))).earlier is not None


def test_data_that_moved_and_changed_do_not_go_on(begun):
    begun(configured(data("folder")))
    shutil.move("mine", "disk2")
    os.remove("disk2/photos/bee/1.png")
    with pytest.raises(ConfigError, match=r"folder:disk2/photos .* 1 example fewer"):
        prepared(configured("folder:disk2/photos"))


def test_actors_do_not_join_with_another_data_set(begun):
    begun(configured(data("folder")))
    (pathlib.Path("run") / "result.json").unlink()
    found = {"learner": ["127.0.0.1:1"], "replay/folder": ["127.0.0.1:2"]}
    pathlib.Path("run/endpoints.json").write_text(json.dumps(found))
    another_size()
    with pytest.raises(joined_run.AttachError, match="the same number of examples, but names or sizes"):
        attach_actors.prepare(pathlib.Path("run"), "", 1)


def test_a_cursor_of_other_data_ends_a_run_at_once():
    config = configured("digits")
    (own,) = config.data_sets.values()
    shape = shapes.data_shape(config, sources.open_train_source(config, own))
    cursor = {"seed": 0, "num_examples": 7, "generation": 0, "num_readers": 1, "reader": 0}
    learner = type(
        "Learner",
        (),
        {
            "get_cursors": lambda *_: json.dumps([{**cursor, "epoch": 0, "position": 0}]),
            "report_opening": lambda *_: None,
        },
    )
    spec = RunSpec(config, pathlib.Path("run").absolute(), {"digits": shape})
    reader = run_loop_node.Reader("digits-0", 0, 0, 1)
    with pytest.raises(FatalError, match="num_examples=7"):
        run_loop_node.make_run_loop(spec, "digits", ["127.0.0.1:1"], None, reader, None, learner())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_trained_on_that_is_measured_on(kind):
    """Without eval_data all of it was both: "test 100 %"."""
    config = configured(data(kind))
    (own,), (evaluator,) = config.data_sets.values(), config.evaluation.evaluators.values()
    train, evaluation = sources.open_train_source(config, own), sources.open_eval_source(config, evaluator)
    sides = [set(side.ids(np.arange(side.num_examples)).tolist()) for side in (train, evaluation)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(range(42 if kind in ("folder", "npz") else 40))
    if kind in ("folder", "npz"):
        labels = evaluation.batch(np.arange(evaluation.num_examples))["label"]
        assert set(labels.tolist()) == {0, 1, 2}


def test_copies_and_captions_of_an_image_are_on_one_side():
    for copy in range(10):
        for number in range(4):
            write(f"mine/pairs/{copy}-{number}.png", png(number))
            write(f"mine/pairs/{copy}-{number}.txt", f"caption {copy}")
    config = configured("captioned_folder:mine/pairs")
    (own,), (evaluator,) = config.data_sets.values(), config.evaluation.evaluators.values()
    sides = []
    for side in (sources.open_train_source(config, own), sources.open_eval_source(config, evaluator)):
        images = side.batch(np.arange(side.num_examples))["image"]
        sides.append({image.tobytes() for image in images})
    assert [len(side) for side in sides] == [3, 1]
    assert not sides[0] & sides[1]


class OneSplit(Source):
    """A user's source, which says nothing of itself and ignores the split."""

    def __init__(self, argument, split):
        del argument, split
        self.num_examples, self.image_shape, self.num_classes = 40, (8, 8, 3), 2

    def batch(self, indices):
        images = np.stack([pixels(index) for index in indices])
        return {
            "id": np.asarray(indices),
            "image": images,
            "label": (np.asarray(indices) % 2).astype(np.int32),
        }


@dataclasses.dataclass(frozen=True)
class Warned:
    """What is given, and what the run's first lines must hold."""

    name: str
    make: Callable[[], str]
    said: tuple[str, ...]
    fields: dict = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    "row",
    [
        Warned(
            "no eval split",
            lambda: data("folder"),
            ("held out to measure on, and never trained on", "3 images", "eval_share=0.05"),
        ),
        Warned("eval_data is train_data", lambda: data("folder"), ("test measures on training data",), {
            "eval_data": "folder:mine/photos"}),
        Warned("by another path", lambda: data("folder"), ("test measures on training data",), {
            "eval_data": "folder:./mine/photos"}),
        Warned("no share", lambda: data("npz"), ("test measures on training data",), {"eval_share": 0}),
        Warned("a user's source with one split", lambda: "one_split", ("measures on training data",)),
        Warned(
            "labels begin at 1",
            lambda: (npz("a.npz", 1 + np.arange(40) % 3), "npz:a.npz")[1],
            ("labels begin at 1", "class 0", "never occurs"),
        ),
        Warned(
            "a class never occurs",
            lambda: (npz("a.npz", 2 * (np.arange(40) % 3)), "npz:a.npz")[1],
            ("2 of 5 classes have no example to train on", "1, 3"),
        ),
        Warned(
            "a super-batch larger than the data set",
            lambda: data("npz"),
            ("of 128 is larger than its 39 examples: each comes about 3.3 times",),
            {"policy": "hard_learner", "batch_size": 64},
        ),
    ],
    ids=lambda row: row.name,
)  # fmt: skip
def test_the_first_lines_say_it(row):
    spec = row.make()
    if "eval_share" in row.fields and not hasattr(configured(spec), "eval_share"):
        pytest.fail("no part can be held out")
    lines = getattr(prepared(configured(spec, **row.fields)), "first_lines", ())
    found = [line for line in lines if all(part in line for part in row.said)]
    assert found, "\n".join(lines)


def test_digits_and_icons_have_an_eval_split_of_their_own():
    config = configured("digits", eval_data="digits")
    assert not [
        line for line in prepared(config).first_lines if "training data" in line or "held out" in line
    ]


@pytest.mark.parametrize(
    ("make", "fields", "said"),
    [
        (
            lambda: (npz("a.npz", np.zeros(20, int)), "npz:a.npz")[1],
            {},
            "train_data='npz:a.npz': every example is of one class, 0",
        ),
        (
            lambda: (write("one/cat/1.png", png(1)), write("one/cat/2.png", png(2)), "folder:one")[2],
            {},
            "every example is of one class, 'cat'",
        ),
        (
            lambda: data("tar"),
            {"batch_size": 1, "filter_ratio": 0.0},
            "batch_size=1: must be at least two pairs with task='contrastive'",
        ),
        (
            lambda: "digits",
            {"policy": "hard_learner", "filter_ratio": 0.999999},
            "filter_ratio=0.999999 of digits: asks for 8,000,000 examples for each update, 5,563 times all",
        ),
        (
            lambda: "digits",
            {"policy": "hard_learner", "filter_ratio": 0.9999999999},
            "filter_ratio=0.9999999999 of digits: needs more memory than .* examples in the replay",
        ),
        (
            lambda: "digits",
            {"policy": "hard_learner", "replay.capacity": 10**13},
            "replay.capacity=10000000000000 of digits: needs more memory",
        ),
    ],
    ids=["one class in an npz", "one in a folder", "a batch of one pair", "passes", "super-batch", "replay"],
)  # fmt: skip
def test_what_nothing_useful_can_come_of_is_refused(make, fields, said):
    spec = make()
    with pytest.raises((ConfigError, DataError), match=said):
        prepared(configured(spec, **fields))


def test_training_data_are_called_that_wherever_their_figure_is_shown(clean_flags, capfd):
    spec = data("folder")
    fields = {
        "train_data": spec,
        "eval_data": spec,
        "patch_size": 4,
        "learner.model": "vit_mu_1_1",
        "steps": 4,
    }
    fields |= {"policy": "uniform", "batch_size": 8, "evaluation.every": 2}
    command = [
        "classact",
        "train",
        f"--config={classification.__file__}",
        "--workdir=run",
        "--launch=synchronous",
    ]
    assert cli.main([*command, *(f"--config.{name}={value}" for name, value in fields.items())]) == 0
    assert "test (training data)" in capfd.readouterr().out
    own = attach.EvaluatorConfig("accuracy", "")
    attached, said = attach.prepare(pathlib.Path("run"), "again", own, 0), []
    attach._Written(attached, said.append).write(
        4, {"eval/again/on_training_data": 1.0, "eval/again/top1": 0.5}
    )
    assert said == ["step 4 | top1 0.5 | training data"]
    made = report.write_report(["run"], "report.html")
    assert "(training data)" in report.format_table(made)
    assert "evaluator test measures on training data" in report.format_table(made)
    assert "accuracy on training data" in pathlib.Path("report.html").read_text()
    state = progress.RunState(4)
    state.add_evaluation({"step": 2, "eval/x/top1": 1.0, "eval/x/on_training_data": 1.0})
    assert state.facts() == ["x (training data) 100.0 % (step 2)"]
