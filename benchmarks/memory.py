"""Peak memory of a demo run, and growth over many updates of a tiny model.

The peak is what `result.json` says: the largest sum of the processes' resident
sizes. Pages that several processes share count once for each, so it is an upper
bound.

Growth is a line through each process's resident size against the learner's step,
by least squares, after the first quarter of the run: caches and arenas fill before.
A real leak makes the line steep and the step from the second to the last quarter
large; one late allocation makes only the latter.

Command:
    python benchmarks/memory.py
"""

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

import figures
import numpy as np
import training_runs
from figures import Figure
from training_runs import TrainingRun

_PEAK_TARGET_GB = 6.0
# A line that would add less than this in 20,000 updates to a process is called flat.
_FLAT_MB_PER_1000 = 0.5
_TINY_MODEL = {
    "train_data": "digits",
    "patch_size": 4,
    "batch_size": 16,
    "label_noise": 0.0,
    "learner.model": "vit_mu_1_1",
    "scorer.model": "vit_mu_1_1",
}


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    folder = options.workdir / "memory"
    # The quick growth run has a peak too; the demo's own takes its models.
    found = [] if options.quick else _peak(folder, options)
    return found + _growth(folder, 400 if options.quick else options.steps, options.quick)


def _peak(folder: pathlib.Path, options: argparse.Namespace) -> list[Figure]:
    data: dict[str, Any] = {}
    if options.train_data:
        data["train_data"] = options.train_data
    if options.patch_size:
        data["patch_size"] = options.patch_size
    run = _with_reference(folder, "demo", {**data, "steps": options.peak_steps})
    result = run.result
    found = [Figure("peak memory of a demo run", result["peak_bytes"] / 1e9, "GB", _PEAK_TARGET_GB)]
    for node, peak in sorted(result["peak_bytes_by_node"].items()):
        found.append(Figure(f"  {node}", peak / 1e6, "MB"))
    return found


def _growth(folder: pathlib.Path, steps: int, quick: bool) -> list[Figure]:
    every = max(steps // 200, 1)
    # At least a few evaluations, so that the evaluator's memory is seen at work.
    run = _with_reference(
        folder,
        "tiny",
        {**_TINY_MODEL, "steps": steps, "log_every": every, "evaluation.every": max(steps // 40, 1)},
    )
    limit = None if quick else _FLAT_MB_PER_1000
    found = []
    for node in sorted(run.samples[-1].resident_bytes):
        slope, change, size = growth(run, node)
        found += [
            Figure(f"growth in {steps} updates: {node}", slope, "MB/1000 upd.", limit),
            Figure("  last quarter less second quarter", change, "MB"),
            Figure("  resident at the end", size, "MB"),
        ]
    return found


def growth(run: TrainingRun, node: str) -> tuple[float, float, float]:
    """How a process's resident size changed after the first quarter of a run.

    Returns:
        Slope in MB per 1,000 updates, the last quarter's mean less the second
        quarter's in MB, and the last size in MB.
    """
    points = [
        (sample.step, sample.resident_bytes[node] / 1e6)
        for sample in run.samples
        if node in sample.resident_bytes
    ]
    steps, sizes = np.array(points, dtype=float).T
    end = steps[-1]
    settled = steps > end / 4
    slope = np.polyfit(steps[settled] / 1000, sizes[settled], 1)[0]
    second = sizes[settled & (steps <= end / 2)].mean()
    last = sizes[steps > 3 * end / 4].mean()
    return float(slope), float(last - second), float(sizes[-1])


def _with_reference(folder: pathlib.Path, name: str, fields: Mapping[str, Any]) -> TrainingRun:
    """Runs the demo's policy as processes, with a reference of a few updates."""
    reference = folder / f"{name}-reference"
    scorer = fields.get("scorer.model")
    model = {"learner.model": scorer, "scorer.model": scorer} if scorer else {}
    few = {"steps": 5, "warmup_steps": 1, "log_every": 5, "evaluation.every": 10}
    training_runs.train(
        f"{training_runs.DEMO}:reference", reference, {**fields, **model, **few}, launch="synchronous"
    )
    return training_runs.train(
        f"{training_runs.DEMO}:classact",
        folder / name,
        {**fields, "reference.checkpoint": reference},
        launch="processes",
    )


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--train-data", default="", help="source of the demo run; default: the demo's")
    made.add_argument("--patch-size", type=int, default=0, help="of the demo run; default: the demo's")
    made.add_argument("--peak-steps", type=int, default=200, help="updates of the demo run")
    made.add_argument("--steps", type=int, default=20_000, help="updates of the tiny model")
    return made


if __name__ == "__main__":
    figures.run("memory", parser(), measure)
