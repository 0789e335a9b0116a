"""What a machine's GPUs are, and how to divide them, for people: `classact doctor` prints it."""

import dataclasses
import functools
from collections.abc import Sequence

from classact.experiments import ledger
from classact.launch.assembly import gpu_split
from classact.launch.engines import accelerators
from classact.launch.engines.accelerators import Gpu
from classact.models import cost, registry
from classact.selection import policies

_IMAGE, _PATCH, _CLASSES = (224, 224, 3), 16, 1000
# Examples scored for each one trained on: `filter_ratio` of 0.5.
_SCORED = 2.0
_MODELS = (("vit_l", "vit_ti"), ("vit_b", "vit_ti"), ("vit_b", "vit_mu_1_1"), ("vit_s", "vit_ti"))


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A division of a machine's GPUs for a learner and a scorer.

    Attributes:
        learner: name of the model that is trained.
        scorer: name of the model that scores.
        scoring: share of an update's multiply-accumulates that scoring takes.
        learner_gpus: for the learner.
        scoring_gpus: for all inference servers together.
    """

    learner: str
    scorer: str
    scoring: float
    learner_gpus: float
    scoring_gpus: float


def suggestion(learner: str, scorer: str, gpus: int, policy: str = "classact") -> Suggestion:
    """Divides GPUs for two ViTs at 224², patch 16, scoring twice as many examples as are trained on.

    Args:
        learner: registry name of the model that is trained.
        scorer: of the one that scores.
        gpus: how many there are, at least 1.
        policy: which models score, and which are trained.
    """
    chosen = policies.get(policy)
    learner_macs, scorer_macs = _macs(learner), _macs(scorer)
    scored = _SCORED * ledger.acting_cost(chosen, learner_macs, scorer_macs)
    every = ledger.cost_per_update(
        chosen,
        f_learn=learner_macs,
        f_ref=scorer_macs,
        rho=_SCORED,
        include_online_training=True,
        include_reference_training=False,
    )
    work = gpu_split.Work(every - scored, scored)
    if gpus == 1:
        ours, theirs = gpu_split.LEARNERS_SHARE, 1 - gpu_split.LEARNERS_SHARE
    else:
        ours = gpu_split.learners_gpus(work, gpus)
        theirs = gpus - ours
    return Suggestion(learner, scorer, scored / every, ours, theirs)


def lines(found: accelerators.Found | None = None) -> Sequence[str]:
    """Describes the GPUs that a run started here may use, and how to divide them.

    Blocks until the driver has answered and a few models are traced, some seconds.

    Args:
        found: what there is; None: it is looked for.
    """
    found = accelerators.found() if found is None else found
    if not found.gpus:
        return (f"GPUs: none ({found.why})",)
    count = len(found.gpus)
    models = ", ".join(dict.fromkeys(_model(gpu) for gpu in found.gpus))
    head = (
        f"GPUs: {count}: {models}",
        *(f"  CUDA_VISIBLE_DEVICES={gpu}" for gpu in found.gpus),
        "  to divide between learner and scorers (classact, 224², filter_ratio 0.5; docs/devices.md):",
        f"    {'learner':<10} {'scorer':<12} {'scoring':>8}  --config.resources.…",
    )
    return (*head, *(_line(suggestion(*models, count)) for models in _MODELS))


def _line(item: Suggestion) -> str:
    share = f"{item.scoring:.1%}"
    fields = f"learner.gpus={item.learner_gpus:g} inference.gpus={item.scoring_gpus:g}"
    return f"    {item.learner:<10} {item.scorer:<12} {share:>8}  {fields}"


def _model(gpu: Gpu) -> str:
    return gpu.model + (f" {gpu.memory_gb:.0f} GB" if gpu.memory_gb else "") if gpu.model else "unknown"


@functools.cache
def _macs(name: str) -> float:
    model = registry.create(name, num_classes=_CLASSES, image_shape=_IMAGE, patch_size=_PATCH)
    return float(cost.forward_macs(model, _IMAGE))
