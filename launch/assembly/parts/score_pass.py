"""A scoring pass: a trained model's loss on each example of a data set, part by part, into score files.

Which examples a part has, and which a batch, follows from the number of examples and the batch size
alone. So a part has the same bytes whoever computes it, of however many, on machines of one kind.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from classact.data import score_files
from classact.data.augment import recipe
from classact.data.source import Source
from classact.experiments.amortised import CurriculumConfig, TopShareConfig
from classact.experiments.config import (
    ConfigError,
    DataSetConfig,
    ExperimentConfig,
    require,
)
from classact.launch.assembly.parts import class_meaning, fitting, networks, scored, shapes, sources
from classact.launch.assembly.parts.first_lines import FirstLines, describe_source
from classact.nodes import checkpoints, divergence
from classact.selection import contrastive, losses

# A part is what is lost when a pass is killed: at most so many examples, and a small share of all.
_MOST_OF_PART = 1 << 16
_LEAST_PARTS = 16
# Fields of the data that are asked for beside the run's own.
DATA_FIELDS = ("train_data", "label_noise", "caption_noise", "data_seed")


@dataclasses.dataclass(frozen=True)
class Part:
    """Some examples that follow each other, by their indices.

    Attributes:
        number: of the part.
        first: index of its first example.
        examples: how many.
        of: what it is a part of, see `ScoringPass.identity`.
    """

    number: int
    first: int
    examples: int
    of: str

    def described(self) -> dict[str, Any]:
        """What is kept with it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class ScoringPass:
    """A scoring pass that has passed every check that can be made before it begins.

    Attributes:
        config: of the model's run, with the data to score in the place of its own.
        run: the run directory.
        shape: of the data, with the classes that the model knows.
        batch_size: examples of a forward pass.
        description: what `_scores.json` says until the pass is complete.
        first_lines: what the user is told before it begins.
    """

    config: ExperimentConfig
    run: pathlib.Path
    shape: shapes.DataShape
    batch_size: int
    description: Mapping[str, Any]
    first_lines: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What tells it from other passes: the model, the data and the batch size."""
        return str(self.description["identity"])

    @property
    def parts(self) -> list[Part]:
        """All parts, in order."""
        every, rows = self.shape.num_examples, self.batch_size
        batches = min(-(-every // (rows * _LEAST_PARTS)), max(1, _MOST_OF_PART // rows))
        firsts = range(0, every, rows * batches)
        return [
            Part(number, first, min(rows * batches, every - first), self.identity)
            for number, first in enumerate(firsts)
        ]

    def open(self) -> Source:
        """Opens the data, with its noise."""
        return _open(self.config, self.shape)


def prepare(
    run: pathlib.Path, config: ExperimentConfig, fields: Mapping[str, Any], batch_size: int
) -> ScoringPass:
    """Checks a scoring pass: reads the model, opens the data. Writes nothing.

    Args:
        run: directory of the run whose newest checkpoint scores.
        config: its configuration.
        fields: of `DATA_FIELDS` those that are others than the run's; what a data set of the run
            has of its own is taken from its first.
        batch_size: examples of a forward pass, at least 1.

    Raises:
        ConfigError: if the run has no checkpoint, or one that is damaged, diverged or does not fit.
        source.DataError: if the data cannot be opened, or have classes that the model does not know.
    """
    require(batch_size >= 1, "batch_size", batch_size, "at least 1")
    config = _with_data(config, fields)
    field, step = f"reference={str(run)!r}", checkpoints.latest_step(run / "checkpoints")
    if step is None:
        raise ConfigError(f"{field}: it has no checkpoint yet")
    said = FirstLines()
    known = class_meaning.recorded(run) if config.task == "classification" else None
    opened = _open(config, None)
    for line in describe_source(opened, "scores"):
        said.say(line)
    shape = shapes.data_shape(config, opened)
    if known is not None:
        shape = class_meaning.mapped(config, shape, known, f"the run in {run}", said)
    try:
        variables = checkpoints.load_model(run / "checkpoints", "learner")
    except checkpoints.CheckpointError as error:
        raise ConfigError(f"{field}: {error}") from None
    nonfinite = divergence.nonfinite_arrays(variables)
    require(not nonfinite, "reference", str(run), f"of a run that has not diverged: {nonfinite}")
    misfit = fitting.misfit(variables, networks.classifier(config, shape), shape.num_classes)
    if misfit:
        raise ConfigError(f"{field}: it does not fit {shape.name}, images {shape.image_shape}: {misfit}")
    description = _description(run, config, shape, batch_size, step)
    return ScoringPass(config, run, shape, batch_size, description, tuple(said.lines()))


def again(config: ExperimentConfig, description: Mapping[str, Any]) -> ScoringPass:
    """The pass that a description is of, as another process has it.

    Args:
        config: of the model's run.
        description: of `ScoringPass`.

    Raises:
        ConfigError, source.DataError: as `prepare`; also if model or data are others by now.
    """
    run, data = pathlib.Path(description["model"]["run"]), description["data"]
    found = prepare(run, config, {name: data[name] for name in DATA_FIELDS}, description["batch_size"])
    if found.identity != description["identity"]:
        changed = f"its checkpoint, or {data['train_data']}, has changed since the scoring began"
        raise ConfigError(f"{run}: {changed}")
    return found


def make_scorer(scoring: ScoringPass) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Loads the model, and builds what computes a batch's columns.

    Returns:
        A function of a batch of any size up to the pass's batch size, which it is filled up to.
    """
    config = scoring.config
    classification = config.task == "classification"
    model = networks.learner(config, scoring.shape)
    variables = jax.device_put(checkpoints.load_model(scoring.run / "checkpoints", "learner"))
    task = losses.Classification(0.0) if classification else contrastive.Contrastive(config.contrastive.loss)

    @jax.jit
    def score(variables: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        outputs, _ = model.apply(variables, batch, train=False)
        columns = {"loss": task.act_loss(outputs, batch)}
        if classification:
            logits = outputs["logits"].astype(jnp.float32)
            columns["predicted"] = logits.argmax(-1).astype(jnp.int32)
            columns["probability"] = jax.nn.softmax(logits).max(-1)
        return columns

    read = ("image", "label") if classification else ("image", "text")

    def score_batch(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(batch["id"])
        filled = {name: _filled(batch[name], scoring.batch_size) for name in read}
        columns = {name: np.asarray(column)[:rows] for name, column in score(variables, filled).items()}
        found = {"id": batch["id"], "loss": columns["loss"]}
        if classification:
            right = columns["predicted"] == batch["label"]
            found |= {"label": batch["label"], **columns, "correct": right}
        return found

    return score_batch


def score_part(
    scoring: ScoringPass,
    part: Part,
    opened: Source,
    score: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]],
    folder: pathlib.Path,
    told: Callable[[int], None] = lambda examples: None,
) -> None:
    """Computes a part and writes it; blocks until then.

    Args:
        scoring: the pass.
        part: of it.
        opened: of `scoring.open`.
        score: of `make_scorer`.
        folder: of the score files.
        told: how many examples have been scored more, after each batch.

    Raises:
        source.DataError: if the data cannot be read.
        ConfigError: if a loss is not finite.
        OSError: if the part cannot be written; then nothing of it is there.
    """
    found: dict[str, list[np.ndarray]] = {}
    for first in range(part.first, part.first + part.examples, scoring.batch_size):
        last = min(first + scoring.batch_size, part.first + part.examples)
        # Damaged examples may be left out of it.
        batch = opened.batch(np.arange(first, last))
        if len(batch["id"]):
            columns = score(batch)
            broken = ~np.isfinite(columns["loss"])
            if broken.any():
                named = columns["id"][broken][0]
                where = f"example {named} of {opened.name}"
                raise ConfigError(f"{scoring.run}: its loss on {where} is not finite")
            for name, column in columns.items():
                found.setdefault(name, []).append(column)
        told(last - first)
    whole = {name: np.concatenate(columns) for name, columns in found.items()}
    whole = whole or {"id": np.empty(0, np.int64), "loss": np.empty(0, np.float32)}
    score_files.write_part(score_files.part_path(folder, part.number), whole, part.described())


def _with_data(config: ExperimentConfig, fields: Mapping[str, Any]) -> ExperimentConfig:
    """The configuration with one data set, the one to score, all of it, and nothing to select by."""
    first = next(iter(config.data_sets.values()))
    own = {name: value for name, value in fields.items() if name != "data_seed"}
    # What was set aside or held out in that run may be what another one trains on.
    changes: dict[str, Any] = {
        **own,
        "policy": "uniform",
        "held_out": 0.0,
        "train_split": "all",
        "reference": dataclasses.replace(first.reference, checkpoint="", scores=""),
        "top_share": TopShareConfig(),
        "curriculum": CurriculumConfig(),
        # A score is of the image as it is evaluated.
        "augment": recipe.NONE,
    }
    data_set = dataclasses.replace(first, **changes)
    summary = {field.name: getattr(data_set, field.name) for field in dataclasses.fields(DataSetConfig)}
    seed = fields.get("data_seed", config.data_seed)
    return dataclasses.replace(config, **summary, data_sets={"scored": data_set}, data_seed=seed)


def _open(config: ExperimentConfig, shape: shapes.DataShape | None) -> Source:
    """All examples, also those that the run measures on; not where captions are shuffled among the rest."""
    (own,) = config.data_sets.values()
    held = None if own.caption_noise else np.empty(0, np.int64)
    return sources.open_train_source(config, own, held, known=None if shape is None else shape.classes)


def _description(
    run: pathlib.Path, config: ExperimentConfig, shape: shapes.DataShape, batch_size: int, step: int
) -> dict[str, Any]:
    (own,) = config.data_sets.values()
    macs = networks.forward_macs(networks.learner(config, shape), config, shape)
    theirs = json.loads((run / "config.json").read_text())
    said = {
        "version": score_files.VERSION,
        "task": config.task,
        "loss": "cross-entropy, nats" if config.task == "classification" else "minus the dot product",
        "model": {
            "run": os.path.realpath(run),
            "step": step,
            "name": config.learner.model,
            "git_commit": theirs.get("git_commit", "unknown"),
            "config": theirs,
        },
        "data": {
            **{name: getattr(own, name) for name in DATA_FIELDS if name != "data_seed"},
            "data_seed": config.data_seed,
            "described": shape.described(),
        },
        "batch_size": batch_size,
    }
    identity = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()
    cost = {
        "forward_macs": float(macs),
        # By the run that it was spent in: what several files rest on counts once.
        "training": scored.run_cost(run),
        "scoring_macs": float(macs) * shape.num_examples,
    }
    return {**said, "identity": identity, "cost": cost, "complete": False}


def _filled(array: np.ndarray, rows: int) -> np.ndarray:
    """Filled up with copies of the first row."""
    missing = rows - len(array)
    if not missing:
        return array
    return np.concatenate([array, np.broadcast_to(array[:1], (missing, *array.shape[1:]))])
