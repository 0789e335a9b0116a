"""The part of the training data that a run measures on, where a source has no eval split of its own."""

import numpy as np

from classact.data import eval_split
from classact.data.source import Source
from classact.data.views import SourceView, Subset, Without
from classact.experiments.config import ExperimentConfig
from classact.launch.assembly.parts.first_lines import counted

_NONE = np.empty(0, np.int64)


class _TrainPart(Without):
    """What is left to train on."""

    def __init__(self, source: Source, held: np.ndarray) -> None:
        super().__init__(source, held)
        self.held = held


class _EvalPart(Subset):
    """What is held out."""


def indices(config: ExperimentConfig, spec: str, opened: Source) -> np.ndarray:
    """Which examples of a source that is trained on are held out: int64[M], maybe none.

    Some are if an evaluator measures on the source, it has no eval split of its own, and
    `eval_share` is not 0. They depend on the data, `eval_share` and `data_seed` alone, so
    that all who open the data find the same. May read each image once.

    Args:
        config: the resolved configuration.
        spec: of the source.
        opened: the whole of it.
    """
    measured = any(evaluator.data == spec for evaluator in config.evaluation.evaluators.values())
    if opened.has_splits or not measured:
        return _NONE
    return eval_split.eval_indices(opened, config.eval_share, config.data_seed)


def train_part(opened: Source, held: np.ndarray) -> Source:
    """The source without what is held out; `found_in` knows it again."""
    return _TrainPart(opened, held) if len(held) else opened


def eval_part(opened: Source, held: np.ndarray) -> Source:
    """What is held out, or the whole source if that is nothing."""
    return _EvalPart(opened, held) if len(held) else opened


def is_eval_part(source: Source) -> bool:
    """Whether a source shows, maybe differently, what was held out of another."""
    while isinstance(source, SourceView):
        if isinstance(source, _EvalPart):
            return True
        source = source.source
    return False


def found_in(source: Source) -> np.ndarray:
    """What was held out of the source behind views: int64[M], maybe none."""
    while isinstance(source, SourceView):
        if isinstance(source, _TrainPart):
            return source.held
        source = source.source
    return _NONE


def describe(config: ExperimentConfig, train: Source) -> list[str]:
    """Lines that tell the user what is held out of a source; none if nothing is."""
    held = found_in(train)
    if not len(held):
        return []
    whole = train
    while isinstance(whole, SourceView):
        whole = whole.source
    share = len(held) / whole.num_examples
    found = [f"eval_share={config.eval_share:g}", f"data_seed={config.data_seed}"]
    if whole.label_of is not None:
        found.append("at least one a class that has two")
    if whole.same_images is None:
        found.append("copies of an image are not looked for")
    what = counted(len(held), "pair" if whole.captioned else "image")
    return [
        f"  held out to measure on, and never trained on, as it has no eval split: {what}, "
        f"{100 * share:.2g} % ({', '.join(found)})"
    ]
