"""What a run's models cost, and what the run has computed: the ledger's numbers."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from classact.experiments import curves, ledger
from classact.experiments.config import DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import joint_shapes, networks, reference_models, scored
from classact.launch.assembly.parts.shapes import DataShape
from classact.models import cost, registry
from classact.nodes import checkpoints, tally
from classact.selection import joint, policies


@dataclasses.dataclass(frozen=True)
class ModelCosts:
    """MACs for one example.

    Attributes:
        forward: of a forward pass.
        recomputed: what an update computes again: where a model rematerialises, and where
            `contrastive.negatives` has its outputs computed twice.
        image: the part of `forward` for the image; all of it in a classification.
        text: the part for the text; 0 in a classification.
    """

    forward: int
    recomputed: int
    image: int
    text: int

    @property
    def update(self) -> int:
        """Of a training step."""
        return ledger.TRAINING_PASSES * self.forward + self.recomputed


def of_model(model: registry.Model, config: ExperimentConfig, data: DataShape) -> ModelCosts:
    """Counts a model's MACs, with the images and the texts of a data set.

    Raises:
        ValueError: if they cannot be counted.
    """
    forward = networks.forward_macs(model, config, data)
    if config.task != "contrastive":
        return ModelCosts(forward, cost.recomputed_macs(model, data.image_shape), forward, 0)
    length = config.contrastive.context_length
    towers = (
        cost.forward_cost(model, data.image_shape, f"{kind}_embedding", length).macs
        for kind in ("image", "text")
    )
    # Of the first pass only the outputs are kept.
    first = forward if config.in_two_passes else 0
    return ModelCosts(forward, first + cost.recomputed_macs(model, data.image_shape, length), *towers)


def of_run(config: ExperimentConfig, data: DataShape) -> dict[str, ModelCosts]:
    """The costs of the models that all data sets share: "learner" and, where there is one, "online"."""
    models = networks.make_models(config, data)
    return {name: of_model(models[name], config, data) for name in ("learner", "online") if name in models}


def of_reference(
    config: ExperimentConfig, own: DataSetConfig, data: DataShape, scorer: ModelCosts | None = None
) -> ModelCosts | None:
    """The costs of a data set's reference; None without one, or where score files stand for it.

    `scorer`: those of a model as the scorer is, if they are counted already.
    """
    if config.policy_of(own).reference is None or own.reference.scores:
        return None
    if scorer is not None:
        found = reference_models.described(config, own, data)
        if reference_models.is_scorer(found, config, data):
            return scorer
    return of_model(networks.reference(config, own, data), config, data)


def joint_macs(config: ExperimentConfig, own: DataSetConfig, data: DataShape) -> float:
    """MACs of an update's joint choice of a data set: each model's similarities; 0 with other policies."""
    if not policies.get(own.policy).joint:
        return 0.0
    widths = joint_shapes.widths(config, own, data).values()
    return float(sum(joint.matrix_macs(own.super_batch_size, width) for width in widths))


def pretraining_macs(config: ExperimentConfig, own: DataSetConfig, data: DataShape) -> float:
    """What training a data set's fixed reference has cost, as the configuration or its own run says.

    A run without a result, which is still going on or of which the checkpoint alone was
    copied, counts as its updates until that checkpoint.

    Returns:
        MACs; 0 without a fixed reference.
    """
    if config.policy_of(own).reference != "fixed":
        return 0.0
    if own.reference.pretraining_macs >= 0:
        return own.reference.pretraining_macs
    run = curves.load_run(own.reference.checkpoint)
    if run.ledger.get("total_macs"):
        return float(run.ledger["total_macs"])
    step = checkpoints.latest_step(pathlib.Path(own.reference.checkpoint) / "checkpoints") or 0
    # How that run trained, not how this one does.
    parts = int(run.field("gradient_accumulation", 1))
    texts = dataclasses.replace(config.contrastive, negatives=run.field("contrastive.negatives", "part"))
    theirs = dataclasses.replace(config, gradient_accumulation=parts, contrastive=texts)
    model = of_model(networks.reference(config, own, data), theirs, data)
    return float(step * int(run.field("batch_size", 0)) * model.update)


def _computed_before(config: ExperimentConfig, own: DataSetConfig, data: DataShape) -> dict[str, float]:
    """What was computed before a run for a data set's selection, in MACs, by what it was."""
    if config.policy_of(own).reference == "fixed" and not own.reference.scores:
        run = os.path.realpath(own.reference.checkpoint)
        return {f"run {run}": pretraining_macs(config, own, data)}
    spent = scored.cost(own)
    stated = own.reference.pretraining_macs
    if own.reference.scores and stated >= 0:
        # The scoring pass was made all the same.
        spent = {what: macs for what, macs in spent.items() if what.startswith("scores ")}
        spent["stated"] = stated
    return spent


def account(
    config: ExperimentConfig,
    data: Mapping[str, DataShape],
    workdir: pathlib.Path,
    steps: int,
    last: Mapping[str, Any],
) -> dict[str, Any]:
    """What a run has computed until now.

    Args:
        config: the resolved configuration.
        data: shapes of each data set.
        workdir: the run directory, with its tallies.
        steps: updates that its result consists of.
        last: the learner's last line of metrics.

    Returns:
        What `result.json` has of it: `ledger` (`ledger.run_ledger`, all data sets together; each
        reference's pretraining counts once), `reference_pretraining` by checkpoint,
        `computed_before`, all that was computed before the run for its selection, by what it was, and
        `counts`: `updates`, `updates_redone`, `evaluations`, and `examples` by model and by what
        they went through it for.
    """
    tallies = tally.read(workdir)
    models = of_run(config, next(iter(data.values())))
    learner, online = models["learner"], models.get("online")
    redone = _redone(tallies)
    evaluated = _of_kind(tallies, "evaluation")
    images, texts = (int(_sum(evaluated, name)) for name in ("images", "texts"))
    counts = _Counts(updates=steps, redone=redone, evaluated=(images, texts))
    pretrained: dict[str, float] = {}
    computed_before: dict[str, float] = {}
    parts: list[dict[str, float]] = []
    for name, own in config.data_sets.items():
        policy = config.policy_of(own)
        examples, padded = _scored(config, name, tallies, steps, last)
        counts.add(own, policy, examples)
        spent = _computed_before(config, own, data[name])
        before = sum(macs for what, macs in spent.items() if what not in computed_before)
        computed_before |= spent
        if policy.reference == "fixed" and not own.reference.scores:
            pretrained[own.reference.checkpoint] = sum(spent.values())
        else:
            # Score files and recorded runs are shared as references are.
            pretrained |= {what.partition(" ")[2] or what: macs for what, macs in spent.items()}
        reference = of_reference(config, own, data[name], online)
        scorer = online if policy.online == "proxy" else reference
        parts.append(
            ledger.run_ledger(
                policy,
                learner_macs=learner.forward,
                scorer_macs=scorer.forward if scorer else 0.0,
                updates=steps,
                batch_size=own.batch_size,
                examples_scored=examples,
                super_batch_size=own.reference.super_batch,
                reference_pretraining_macs=before,
                reference_from_file=bool(own.reference.scores),
                learner_recomputed_macs=learner.recomputed,
                scorer_recomputed_macs=scorer.recomputed if scorer else 0.0,
                reference_macs=reference.forward if reference else None,
                reference_recomputed_macs=reference.recomputed if reference else None,
                slots_padded=padded,
                updates_redone=redone,
                joint_macs=joint_macs(config, own, data[name]),
                # Of the run, not of a data set.
                evaluation_macs=0.0 if parts else float(images * learner.image + texts * learner.text),
            )
        )
    return {
        "ledger": ledger.add(parts),
        "reference_pretraining": pretrained,
        "computed_before": computed_before,
        "counts": {**counts.as_json(), "evaluations": int(_sum(evaluated, "evaluations"))},
    }


def device_seconds(workdir: pathlib.Path) -> dict[str, float]:
    """How long accelerators were busy, by the kind of node: an estimate from the host's clock.

    Of the learner the seconds of its updates (`train/step_seconds`), of an inference server from
    handing a batch over until its scores are there, of an evaluator those of its evaluations;
    each times its devices. A batch's way to the device, and Python between two, are in it.

    Returns:
        Device-seconds; empty where everything was computed on CPUs.
    """
    found: dict[str, float] = {}
    for item in tally.read(workdir):
        if item.get("platform") != "cpu" and "busy_seconds" in item:
            kind = {"scoring": "inference", "evaluation": "evaluator"}.get(item["kind"], item["kind"])
            found[kind] = found.get(kind, 0.0) + item["busy_seconds"] * item.get("devices", 1)
    learners = [item for item in _of_kind(tally.read(workdir), "training") if item.get("platform") != "cpu"]
    if learners:
        lines = curves.read_metrics(workdir / "metrics" / "learner.jsonl")
        busy = sum(line.get("train/step_seconds", 0.0) for line in lines)
        found["learner"] = busy * learners[-1].get("devices", 1)
    return found


class _Counts:
    """Examples by model, and by what they went through it for."""

    def __init__(self, updates: int, redone: int, evaluated: tuple[int, int]) -> None:
        self._updates, self._redone = updates, redone
        images, texts = evaluated
        told = {"evaluated_images": images, **({"evaluated_texts": texts} if texts else {})}
        self._examples: dict[str, dict[str, int]] = {"learner": told}

    def add(self, own: DataSetConfig, policy: policies.Policy, scored: int) -> None:
        """Adds a data set."""
        for name in policy.trained_models:
            size = own.reference.super_batch if name == "reference" else own.batch_size
            self._more(name, "trained", size * self._updates)
        if policy.online is not None:
            self._more("online" if policy.online == "proxy" else "learner", "scored", scored)
        if policy.reference is not None and not own.reference.scores:
            self._more("reference", "scored", scored)

    def _more(self, model: str, what: str, number: int) -> None:
        of_model = self._examples.setdefault(model, {})
        of_model[what] = of_model.get(what, 0) + number

    def as_json(self) -> dict[str, Any]:
        return {"updates": self._updates, "updates_redone": self._redone, "examples": self._examples}


def _scored(
    config: ExperimentConfig,
    data_set: str,
    tallies: Sequence[Mapping[str, Any]],
    steps: int,
    last: Mapping[str, Any],
) -> tuple[int, int]:
    """Examples of a data set that were scored, and rows that were padding.

    What the servers counted themselves: also what was scored but not inserted, because it was
    not finite or the run ended before, what was scored again after a restart, and what
    actors scored that had joined. A loop without nodes scores a super-batch an update.
    """
    own = config.data_sets[data_set]
    if not config.policy_of(own).scores:
        return 0, 0
    # Of a run that an earlier version began only what has come into the tables is known.
    inserts = int(last.get(f"replay/{data_set}/inserts", last.get("replay/inserts", 0)))
    ours = [item for item in _of_kind(tallies, "scoring") if item.get("data_set") == data_set]
    if ours:
        examples = int(_sum(ours, "examples"))
        return max(examples, inserts), int(_sum(ours, "slots")) - examples
    return max(steps * own.super_batch_size, inserts), 0


def _redone(tallies: Sequence[Mapping[str, Any]]) -> int:
    """Updates that were made more than once, because the run went back to a checkpoint."""
    learners = _of_kind(tallies, "training")
    if not learners:
        return 0
    # Of a run that an earlier version began not all are known.
    return max(0, int(_sum(learners, "updates")) - int(learners[-1].get("step", 0)))


def _of_kind(tallies: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [item for item in tallies if item["kind"] == kind]


def _sum(tallies: Iterable[Mapping[str, Any]], name: str) -> float:
    return sum(item.get(name, 0) for item in tallies)
