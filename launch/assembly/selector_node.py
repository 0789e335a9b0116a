"""What makes a learner the selector of `classact serve`, from the run; the rest is `learner_node`'s."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from classact.data.carried.kinds import CONTENT, CONTENT_BYTES, ENCODED
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.parts import sources
from classact.launch.assembly.run_spec import RunSpec
from classact.nodes import batches, image_opening, learner, training
from classact.nodes.metrics import MetricsWriter
from classact.nodes.serving import handed, selector, server, shelf


class KeepsFiles(image_opening.Transfer):
    """Moves a data set's batches to the devices; their image files stay with them, on the host."""

    def __call__(self, batch: Mapping[str, np.ndarray]) -> batches.Sampled:
        """See `image_opening.Transfer`."""
        files = [row[:size].tobytes() for row, size in zip(batch[CONTENT], batch[CONTENT_BYTES], strict=True)]
        return super().__call__(batch)._replace(files=files)


def transfer_kind(run: RunSpec, data_set: str) -> type[image_opening.Transfer]:
    """What moves a data set's batches to the devices, in this run."""
    encoded = run.config.data_sets[data_set].carried == ENCODED
    return KeepsFiles if run.config.serve.on and encoded else image_opening.Transfer


def drawn_from(run: RunSpec, sub_batches: batches.Batches) -> learner.Drawing:
    """What the learner draws from: in a run that hands sub-batches on, what does that as well.

    Raises:
        OSError: if the folder for them cannot be made.
    """
    serve = run.config.serve
    if not serve.on:
        return sub_batches
    kept = shelf.Shelf(run.workdir / "serve", serve.ahead, serve.kept, lp.stop_event())
    reports = server.Reports()
    return selector.HandedOn(
        sub_batches,
        {name: _handing(run, name) for name in run.config.data_sets},
        kept,
        server.Server(kept, serve.listen, run.workdir, _about(run), reports),
        reports,
        MetricsWriter(run.workdir, "serve"),
        run.config.log_every,
    )


def make_learner(
    config: learner.LearnerConfig,
    trained: Mapping[str, training.TrainedModel],
    update: Callable[..., Any],
    state: training.TrainState,
    drawing: learner.Drawing,
    *others: Any,
) -> learner.Learner:
    """Builds the learner, or the selector that hands on what it draws; arguments as `learner.Learner`."""
    if isinstance(drawing, selector.HandedOn):
        return selector.Selector(config, trained, update, state, drawing, *others)
    return learner.Learner(config, trained, update, state, drawing, *others)


def _about(run: RunSpec) -> dict[str, Any]:
    carried = {own.carried for own in run.config.data_sets.values()}
    return {
        "data_sets": list(run.config.data_sets),
        # Of data sets that differ each has its own.
        "images": carried.pop() if len(carried) == 1 else "mixed",
        "task": run.config.task,
    }


def _handing(run: RunSpec, data_set: str) -> handed.Handing:
    own = run.config.data_sets[data_set]
    # What is chosen jointly was not drawn by its score alone, and no weight undoes the choice.
    scored = data_set in run.config.scored and not run.config.policy_of(own).joint
    return handed.Handing(own.carried, own.temperature if scored else None, _captions(run))


def _captions(run: RunSpec) -> Callable[[np.ndarray], list[str]] | None:
    if run.config.task != "contrastive":
        return None
    return functools.partial(_decoded, sources.make_tokenizer(run.config))


def _decoded(tokenizer: Any, tokens: np.ndarray) -> list[str]:
    return list(tokenizer.decode(tokens))
