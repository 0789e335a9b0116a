"""What `classact probe` leaves: a directory as a run's, which `reference.checkpoint` and others take."""

from typing import Any

from classact.experiments import ledger
from classact.experiments.config import ExperimentConfig
from classact.launch.assembly.parts import class_meaning, evaluators, networks, probe
from classact.launch.assembly.parts.shapes import DataShape
from classact.launch.commands import run_files
from classact.launch.commands.prepared import Prepared
from classact.nodes import checkpoints, tally
from classact.selection import policies


def write(
    prepared: Prepared, fitted: probe.Fitted, wall_seconds: float, cpu_seconds: float
) -> dict[str, Any]:
    """Measures a probe and writes it: its checkpoint, `config.json` and `result.json`, in this order.

    Args:
        prepared: of the configuration with the probe as learner.
        fitted: the probe.
        wall_seconds: that it took.
        cpu_seconds: likewise, of this process.

    Returns:
        What `result.json` has.

    Raises:
        OSError: if it cannot be written.
    """
    config, workdir = prepared.config, prepared.workdir
    shape = next(iter(prepared.data.values()))
    workdir.mkdir(parents=True, exist_ok=True)
    saver = checkpoints.Checkpointer(workdir / "checkpoints", classes=class_meaning.of_head(config, shape))
    saver.save(config.steps, fitted.state)
    saver.close()
    run_files.write_config(prepared, "probe")
    final, evaluated = _measured(prepared, fitted)
    before = probe.computed_before(config)
    result = {
        "status": "completed",
        "steps": config.steps,
        "final": final,
        "ledger": _ledger(config, shape, fitted, sum(before.values()), evaluated),
        "reference_pretraining": {},
        "computed_before": before,
        "l2": fitted.head.l2,
        "wall_seconds": wall_seconds,
        "cpu_seconds": cpu_seconds,
        "gpu_seconds": 0.0,
    }
    run_files.write_json(workdir / "result.json", result)
    return result


def _measured(prepared: Prepared, fitted: probe.Fitted) -> tuple[dict[str, float], int]:
    """The figures of the configuration's evaluators, and how many images they have read."""
    found = {}
    for name in prepared.config.evaluation.evaluators:
        counts = tally.Tally(prepared.workdir, f"evaluator-{name}", kind="evaluation")
        measure = evaluators.in_run(prepared.config, name, prepared.data, counts)
        for metric, value in measure(fitted.state.variables()["learner"]).items():
            found[f"eval/{name}/{metric}"] = float(value)
    return found, sum(int(item.get("images", 0)) for item in tally.read(prepared.workdir))


def _ledger(
    config: ExperimentConfig, shape: DataShape, fitted: probe.Fitted, before: float, evaluated: int
) -> dict[str, float]:
    """A forward pass of each example, and the fits of the head, beside what the features have cost before."""
    forward = float(networks.forward_macs(networks.learner(config, shape), config, shape))
    found = ledger.run_ledger(
        policies.get(config.policy),
        learner_macs=forward,
        scorer_macs=0.0,
        updates=0,
        batch_size=config.batch_size,
        examples_scored=0,
        evaluation_macs=forward * evaluated,
    )
    features = forward * fitted.examples
    spent = features + fitted.head.macs
    return {
        **found,
        "features_macs": features,
        "fit_macs": fitted.head.macs,
        "learner_training_macs": spent,
        "total_macs": spent + before,
        "total_macs_paper_formula": spent + before,
        "computed_macs": spent + found["evaluation_macs"],
    }
