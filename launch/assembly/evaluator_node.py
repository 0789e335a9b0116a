"""Builds an evaluator in its own process."""

from typing import Any

from classact.launch.assembly import rpc
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.parts import evaluators
from classact.launch.assembly.run_spec import RunSpec
from classact.nodes import evaluator, heap, tally
from classact.nodes.metrics import MetricsWriter


def build_evaluator(run: RunSpec, learner: Any, name: str) -> evaluator.Evaluator:
    """Builds an evaluator."""
    heap.give_back_after_compiling()
    config = run.config
    return evaluator.Evaluator(
        name,
        evaluators.in_run(
            config, name, run.data, tally.Tally(run.workdir, f"evaluator-{name}", kind="evaluation")
        ),
        rpc.LearnerClient(learner),
        config.evaluation.every,
        lp.stop_event(),
        MetricsWriter(run.workdir, f"evaluator-{name}"),
        evaluated=max(run.evaluated(name), 0),
    )
