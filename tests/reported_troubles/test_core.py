"""What a review of the core found: each row is a trouble, and what is right.

A row's function makes the trouble, through what callers use, and returns what comes of it.
"""

import dataclasses
import json
import pathlib
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.data import captions, source, stream
from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.launch.assembly import learner_node, run_loop_node
from classact.launch.assembly.parts import shapes, sources
from classact.launch.assembly.run_spec import RunSpec
from classact.launch.commands import run
from classact.models import registry, two_tower
from classact.nodes import batches, cursors, errors, parameters, run_loop, saving, training
from classact.nodes.inference_server import Scores
from classact.replay import dataset, folders, snapshots, writer
from classact.selection import contrastive

SOON = 20.0


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a row happens."""

    folder: pathlib.Path
    patch: pytest.MonkeyPatch


@dataclasses.dataclass(frozen=True)
class Trouble:
    """One row.

    Attributes:
        name: what was wrong.
        happens: makes it happen, and returns what came of it.
        right: what should come of it.
    """

    name: str
    happens: Callable[[Place], Any]
    right: Any


def softmax_regression(name, num_classes, image_shape, patch_size):
    """The smallest model there is."""
    pixels = int(np.prod(image_shape))

    def init(key):
        return {"params": {"w": jax.random.normal(key, (pixels, num_classes)) * 0.1}, "state": {}}

    def apply(variables, batch, *, train, rng=None):
        rows = batch["image"].reshape(len(batch["image"]), -1).astype(jnp.float32) / 255
        return {"logits": rows @ variables["params"]["w"], "embedding": rows}, variables["state"]

    return registry.Model(name, init, apply)


def config_of(**changes):
    fields = base.get_config().to_dict()
    for name, value in {"policy": "uniform", "train_data": "digits", **changes}.items():
        group, _, field = name.rpartition(".")
        (fields[group] if group else fields)[field] = value
    return resolution.resolve(fields)


class Texts:
    """A text tower of one matrix."""

    context_length = 2

    def lazy_init(self, key, tokens):
        return {"params": {"w": jax.random.normal(key, (2, 4))}}

    def apply(self, variables, tokens):
        return tokens.astype(jnp.float32) @ variables["params"]["w"]


def a_scale_past_its_bound(place):
    """A checkpoint that Adam has carried past log 100: pairs that do not match ask for less."""
    image = softmax_regression("pixels", 4, (2, 2, 1), 1)
    model = two_tower.build(image, Texts())
    optimizer = training.OptimizerConfig(0.01, steps=100, warmup_steps=0)
    trained = {"learner": training.TrainedModel(model, optimizer, {"pairs": 1.0})}
    state = training.init_state(trained, 0)
    learner = state.models["learner"]
    params = {**learner.params, "log_scale": jnp.float32(4.75)}
    state = state.replace(models={"learner": learner.replace(params=params)})
    update = training.make_update(trained, contrastive.Contrastive())
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (8, 2, 2, 1), dtype=np.uint8),
        "text": rng.integers(-9, 9, (8, 2)).astype(np.int32),
    }
    scales = []
    for _ in range(3):
        state, _ = update(state, {"pairs": batch}, {})
        scales.append(float(state.models["learner"].params["log_scale"]))
    bound = np.float32(np.log(100))
    return scales[0] <= bound, scales[2] < scales[1] < bound


def refused(field, value):
    def happens(place):
        try:
            config_of(**{field: value})
        except ConfigError as error:
            return str(error)
        return "accepted"

    return happens


def models_of_seeds(place):
    """The first parameters of a seed, and of the one that JAX cannot tell from it."""
    model = softmax_regression("pixels", 3, (2, 2, 1), 1)
    optimizer = training.OptimizerConfig(0.1, steps=100, warmup_steps=0)
    trained = {"learner": training.TrainedModel(model, optimizer, {"pairs": 1.0})}
    found = []
    for seed in (1, 2**32 + 1):
        try:
            weights = training.init_state(trained, seed).models["learner"].params["w"]
            found.append(np.asarray(weights).tolist())
        except ValueError:
            found.append([])
    return found[0] == found[1]


def epochs_of_seeds(place):
    """The second epoch of a seed, and the first of another, which NumPy cannot tell from it."""
    data = source.ArraySource("numbers", np.zeros((50, 1, 1, 1), np.uint8), np.zeros(50, np.int64), 1)
    second = stream.IIDStream(data, 50, 5)
    next(second)
    try:
        first = stream.IIDStream(data, 50, 2**32 + 5)
    except ValueError:
        return False
    return next(second)["id"].tolist() == next(first)["id"].tolist()


class Server:
    """In place of the calls of a replay's server: one that saves when it is let."""

    def __init__(self, place, late=()):
        self.let = threading.Event()
        server = self

        class Client:
            def __init__(self, address):
                self._address = address

            def checkpoint(self, timeout):
                if self._address in late:
                    assert server.let.wait(SOON)
                made = place.folder / self._address / folders.NEW / "written"
                made.mkdir(parents=True)
                (made / "DONE").touch()
                return str(made)

            def close(self):
                pass

        place.patch.setattr(snapshots, "ServerCalls", Client)


def shards_of_which_one_is_late(place):
    """What is there of a step whose tables one of two shards saved too late."""
    server = Server(place, late=("b",))
    saved = snapshots.Snapshots(["a", "b"], [place.folder / "a", place.folder / "b"], timeout=0.1)
    with pytest.raises(snapshots.SnapshotError):
        saved.save(6, [])
    found = [folders.steps(place.folder / "a")]
    server.let.set()
    deadline = time.monotonic() + SOON
    while (place.folder / "b" / folders.NEW / "written").exists():
        assert time.monotonic() < deadline
    # Until then it is under its new name, or about to be removed.
    while any(thread.name == "replay snapshot" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
    return [*found, folders.steps(place.folder / "b")]


def data_sets_of_which_one_is_not_saved(place):
    """What is there of the first of two data sets when the second's tables are not saved."""
    Server(place, late=("b",)).let.set()
    (place.folder / "b").touch()

    class Checkpoints:
        def save(self, step, state, data):
            pass

        def kept(self):
            return []

    both = {name: snapshots.Snapshots([name], [place.folder / name], timeout=SOON) for name in ("a", "b")}
    ahead = batches.Batches({}, {}, threading.Event())
    state = training.TrainState(np.int32(6), jax.random.key(0), {})
    saving.Saver(Checkpoints(), cursors.Cursors(), ahead, both).save(6, state)
    return folders.steps(place.folder / "a")


class Pairs(source.Source):
    """As many pairs as one likes."""

    name, num_classes, image_shape, captioned = "pairs", 0, (1, 1, 1), True

    def __init__(self, count):
        self.num_examples = count
        self.image_of = np.arange(count)

    def batch(self, indices):
        return {
            "id": np.asarray(indices),
            "image": np.zeros((len(indices), 1, 1, 1), np.uint8),
            "caption": np.array(["a caption"] * len(indices), object),
        }


class LongTexts:
    """A tokenizer for which each caption is too long."""

    max_tokens = 2

    def tokens(self, texts):
        return [[1, 2, 3]] * len(texts)

    def pack(self, tokens):
        return np.zeros((len(tokens), 2), np.int32)


def memory_of_captions_that_are_cut(place):
    """Whether what is held grows with how many pairs had a caption that was cut, and their count."""
    read = captions.Tokenized(Pairs(20_000), LongTexts())
    tracemalloc.start()
    for start in range(0, 20_000, 1000):
        read.batch(np.arange(start, start + 1000))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held > 100_000, read.truncated


def copies_after_a_late_request(place):
    """How often parameters are copied in a hundred updates after an evaluator that was late."""
    copied = []
    store = parameters.ParameterStore(lambda models: copied.append(1) or models)
    for step in range(60):
        store.offer(step, {"learner": {"params": {"w": np.float32(step)}, "state": {}}})
    store.get(("learner",), 49, 0.01)
    copied.clear()
    for step in range(60, 160):
        store.offer(step, {"learner": {"params": {"w": np.float32(step)}, "state": {}}})
    store.close()
    return len(copied)


def copies_of_one_evaluation(place):
    """How often parameters are copied for one that asked in time, while its copy is slow."""
    encode, copied, gate = parameters.encode, [], threading.Event()
    place.patch.setattr(parameters, "encode", lambda tree: gate.wait(SOON) and encode(tree))
    store = parameters.ParameterStore(lambda models: copied.append(1) or models)
    gate.set()
    store.offer(0, {"learner": {"params": {"w": np.float32(0)}, "state": {}}})
    store.get(("learner",), -1, SOON)
    copied.clear()
    gate.clear()
    answers = []
    asks = threading.Thread(target=lambda: answers.append(store.get(("learner",), 49, SOON).step))
    asks.start()
    pause = threading.Event()
    while not store._wanted:
        pause.wait(0.001)
    for step in range(1, 100):
        store.offer(step, {"learner": {"params": {"w": np.float32(step)}, "state": {}}})
    gate.set()
    asks.join(SOON)
    store.close()
    return len(copied), answers


def examples_of_a_synchronous_run(place):
    """What `record_examples` leaves behind: the steps, and how many ids each has."""
    registry._factories.setdefault("core_regression", softmax_regression)
    config = config_of(
        **{"learner.model": "core_regression", "steps": 3, "batch_size": 16, "record_examples": True}
    )
    workdir = place.folder / "run"
    assert run.run(run.prepare(config, workdir, "synchronous"), "synchronous").status == "completed"
    path = workdir / "trained_examples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(line["step"], len(set(line["digits"]))) for line in lines]


class SilentTable:
    """A table that delivers nothing, in place of the replay's."""

    def __init__(self, *arguments, **options):
        pass

    def next(self, timeout):
        threading.Event().wait(min(timeout, 0.05))
        raise TimeoutError("nothing there")

    def recent(self, batches):
        return np.empty((0, 1), np.uint8)

    def close(self):
        pass


def a_data_set_that_takes_long_to_open(place):
    """How a learner's wait ends whose `no_data_seconds` is less than its run loop's opening takes."""
    registry._factories.setdefault("core_regression", softmax_regression)
    config = config_of(**{"learner.model": "core_regression", "no_data_seconds": 0.3})
    stop, opened = threading.Event(), threading.Event()
    place.patch.setattr(learner_node.lp, "stop_event", lambda: stop)
    place.patch.setattr(dataset, "ReplayDataset", SilentTable)
    place.patch.setattr(writer, "ReplayWriter", lambda *arguments, **named: None)
    digits = sources.open_train_source(config, config)
    spec = RunSpec(config, place.folder, {"digits": shapes.data_shape(config, digits)})
    learner = learner_node.build_learner(spec, ["unix:/nowhere"])

    def slow(*arguments, **named):
        assert not opened.wait(1.2)
        return digits

    def make_run_loop():
        reader = run_loop_node.Reader("a", 0, 0, 1)
        run_loop_node.make_run_loop(spec, "digits", ["unix:/nowhere"], None, reader, stop, learner)
        stop.set()

    place.patch.setattr(sources, "open_train_source", slow)
    threading.Thread(target=make_run_loop, daemon=True).start()
    try:
        learner.run()
    except errors.NoDataError:
        return "no data"
    finally:
        stop.wait(SOON)
        learner.close()
    return "waited"


class Silence:
    """A writer for a run loop that is measured alone."""

    max_pending = 0

    def write(self, batch, found, keep):
        return int(keep.sum())

    def close(self):
        pass


def memory_of_a_run_loop(place):
    """Megabytes that a run loop holds for the report after 16 super-batches of 4 MB."""
    images = np.zeros((1024, 64, 64, 1), np.uint8)
    held = []

    def super_batches():
        for number in range(16):
            ids = np.arange(1024) + 1024 * number
            yield {"id": ids, "image": images, "label": np.zeros(1024, np.int32)}
        held.append(tracemalloc.get_traced_memory()[0] // 2**20)

    def score(batch):
        return Scores(np.random.default_rng(0).random(1024, np.float32), 0)

    loop = run_loop.RunLoop(
        super_batches(), score, Silence(), 1.0, threading.Event(),
        extremes_path=place.folder / "scored_images.npz",
    )  # fmt: skip
    tracemalloc.start()
    loop.run()
    tracemalloc.stop()
    return held[0] < 10


BELOW = "must be at least 0 and below 2^32"

TROUBLES = [
    Trouble("the contrastive scale never comes back from its bound", a_scale_past_its_bound, (True, True)),
    Trouble("a seed of 33 bits", refused("seed", 2**32), f"seed=4294967296: {BELOW}"),
    Trouble("a data seed of 33 bits", refused("data_seed", 2**32 + 5), f"data_seed=4294967301: {BELOW}"),
    Trouble("two seeds have the same models", models_of_seeds, False),
    Trouble("a seed's epoch is another seed's", epochs_of_seeds, False),
    Trouble("tables of some shards stay", shards_of_which_one_is_late, [[], []]),
    Trouble("tables of some data sets stay", data_sets_of_which_one_is_not_saved, []),
    Trouble("captions that are cut are kept for ever", memory_of_captions_that_are_cut, (False, 20_000)),
    Trouble("a late evaluator is taken for a follower", copies_after_a_late_request, 0),
    Trouble("an evaluation is copied again and again", copies_of_one_evaluation, (1, [50])),
    Trouble(
        "record_examples is ignored by synchronous",
        examples_of_a_synchronous_run,
        [(1, 16), (2, 16), (3, 16)],
    ),
    Trouble("opening the data counts as silence", a_data_set_that_takes_long_to_open, "waited"),
    Trouble("the report's examples hold whole super-batches", memory_of_a_run_loop, True),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_core(trouble, place):
    assert trouble.happens(place) == trouble.right
