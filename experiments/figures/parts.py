"""The runs of all figures and tables, by their names.

A name is a policy, or `reference`, and what differs from `DEFAULTS`: `classact,noise=0.1,seed=2`.
The same run has the same name in every figure. Its reference and its baseline follow from the name.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, get_type_hints

import ml_collections

from classact.experiments import base
from classact.selection import policies

# The eval split's half that a run is measured on: settings are chosen on the first.
VALIDATION, TEST = "validation", "test"
_DATA = {
    "icons": ("icons", "classes=200", 8),
    "fashion": ("fashion_mnist", "", 7),
}
# A learner of which two cores make many runs; the goal's own, `Part.learner`, costs three times as much.
SMALL = "mu_6_1"
_EVALUATIONS = 20


@dataclasses.dataclass(frozen=True)
class Part:
    """What makes a run; a field at its default is not in the name.

    Attributes:
        policy: a policy's name, or "reference".
        data: "icons" (200 classes) or "fashion".
        noise: share of the labels that are redrawn.
        learner: the learner's size.
        scorer: the scorers' size, also the reference's.
        steps: updates.
        lr: the learner's highest learning rate.
        scorer_lr: the online model's, as a multiple of it.
        temperature: of the softmax.
        ratio: the filter ratio.
        alpha: weight of the online model's loss.
        ref_noise: share of redrawn labels that the reference has learned from: `noise` makes it
            an in-domain one.
        ref_steps: its updates.
        split: part of the data that the run trains on, see `train_split`; half is held out for the
            references of the policies that ask for that.
        on: half of the eval split that it is measured on.
        seed: of the run, and of its reference.
    """

    policy: str
    data: str = "icons"
    noise: float = 0.3
    learner: str = "mu_6_2"
    scorer: str = "mu_1_1"
    steps: int = 1000
    lr: float = 1e-3
    scorer_lr: float = 1.0
    temperature: float = 0.5
    ratio: float = 0.5
    alpha: float = 1.0
    ref_noise: float = 0.0
    ref_steps: int = 1000
    split: str = "all"
    on: str = TEST
    seed: int = 0

    @property
    def name(self) -> str:
        """The run's name."""
        given = [
            f"{field.name}={value:g}" if isinstance(value, float) else f"{field.name}={value}"
            for field in dataclasses.fields(self)[1:]
            if (value := getattr(self, field.name)) != field.default
        ]
        return ",".join((self.policy, *given))

    @property
    def reference(self) -> "Part":
        """The run that trains this one's reference."""
        return Part(
            "reference",
            data=self.data,
            noise=self.ref_noise,
            learner=self.scorer,
            scorer=self.scorer,
            steps=self.ref_steps,
            ref_steps=self.ref_steps,
            split="held_out" if self.split == "rest" else "all",
            on=self.on,
            seed=self.seed,
        )

    @property
    def baseline(self) -> "Part":
        """The uniform run that this one is held against."""
        kept = ("data", "noise", "learner", "steps", "lr", "on", "seed")
        return Part("uniform", **{name: getattr(self, name) for name in kept})


def parse(name: str) -> Part:
    """The part of a name.

    Raises:
        ValueError: for an unknown field or value.
    """
    policy, *given = name.split(",")
    kinds: dict[str, Any] = {**get_type_hints(Part)}
    del kinds["policy"]
    values: dict[str, Any] = {}
    for item in given:
        field, _, value = item.partition("=")
        if field not in kinds:
            raise ValueError(f"{name!r}: unknown field {field!r}, expected one of {', '.join(kinds)}")
        values[field] = kinds[field](value)
    found = Part(policy, **values)
    if found.name != name:
        raise ValueError(f"{name!r}: the run's name is {found.name!r}")
    return found


def get_config(name: str) -> ml_collections.ConfigDict:
    """The configuration of a run; its reference is named, and `classact sweep` says where it is.

    Raises:
        ValueError: as `parse`.
    """
    part = parse(name)
    if part.data not in _DATA:
        raise ValueError(f"{name!r}: data={part.data!r}, expected one of {', '.join(_DATA)}")
    source, options, patch_size = _DATA[part.data]
    config = base.get_config()
    config.train_data = f"{source}?{options}" if options else source
    config.eval_data = f"classact.experiments.figures.halves:open_half:{part.on}?" + "&".join(
        filter(None, (f"source={source}", options))
    )
    config.patch_size = patch_size
    config.label_noise = part.noise
    config.seed = part.seed
    config.steps = part.steps
    config.evaluation.every = part.steps // _EVALUATIONS
    config.learning_rate = part.lr
    config.train_split = part.split
    config.held_out = 0.0 if part.split == "all" else 0.5
    config.learner.model = f"vit_{part.learner}"
    config.scorer.model = f"vit_{part.scorer}"
    if part.policy in ("reference", "uniform"):
        config.policy = "uniform"
        return config
    config.policy = part.policy
    config.temperature = part.temperature
    config.filter_ratio = part.ratio
    config.selection.online_weight = part.alpha
    config.selection.learning_rate_factor = part.scorer_lr
    if policies.get(part.policy).reference == "fixed":
        config.reference.checkpoint = part.reference.name
    return config


def baseline(name: str) -> str | None:
    """The name of the uniform run that a run is held against; None for one that is one."""
    part = parse(name)
    return None if part.policy in ("reference", "uniform") else part.baseline.name


def with_baselines(parts: Iterable[Part]) -> tuple[str, ...]:
    """Names of parts and of their baselines, each once, seed by seed."""
    every = sorted(parts, key=lambda part: part.seed)
    return tuple(dict.fromkeys(_names(every)))


def _names(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        yield part.baseline.name if part.policy != "reference" else part.name
        yield part.name
