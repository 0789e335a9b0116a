"""The RHO-LOSS rule beside ClassAct: updates, CPU seconds and wall-clock to the uniform run's final accuracy.

Command:
    .venv/bin/python benchmarks/rho_loss.py --workdir=runs/rho_loss [--seeds=0] [--steps=1000]

All on icons (200 classes, 30 % of the labels redrawn), half of which the holdout model learns from
and the learners never see:

- *uniform*: one process;
- *RHO-LOSS*: its published rule in one process. The holdout model's losses are computed once for
  the whole training set; each update scores ten times the batch with the learner itself and
  trains on the top tenth. No sampling, no replay;
- *ClassAct*: the program as processes, with the same holdout model as its reference.

Every method pays for the holdout model and its scoring pass, in CPU seconds and in wall-clock.
A run goes on where it was stopped: what has ended is not made again.
"""

import argparse
import json
import pathlib
import resource
import subprocess
from collections.abc import Sequence

import training_runs

from classact.experiments import curves
from classact.experiments.compare import running_time

_CONFIG = "experiments/configs/demo.py"
_HOLDOUT = {"held_out": 0.5, "train_split": "held_out", "label_noise": 0.3}
_REST = {"held_out": 0.5, "train_split": "rest", "label_noise": 0.3}
# Of its authors: a tenth of what is scored is trained on, the best by score.
_RHO = {"policy": "rho", "filter_ratio": 0.9, "temperature": 1e-6, "reference.checkpoint": ""}


class _Runs:
    """The runs of one seed."""

    def __init__(self, folder: pathlib.Path, seed: int, steps: int) -> None:
        self._folder = folder
        self._fields = {"seed": seed, "steps": steps, "evaluation.every": max(1, steps // 20)}

    def make(self, name: str, part: str, launch: str, **fields: object) -> curves.Run:
        """Trains a run, if it has not ended before; blocks until then."""
        workdir = self._folder / name
        if not _has_ended(workdir):
            given = {**self._fields, **fields}
            command = ["train", f"--config={_CONFIG}:{part}", f"--workdir={workdir}", f"--launch={launch}"]
            _classact(*command, *(f"--config.{key}={value}" for key, value in given.items()))
        return curves.load_run(workdir)

    def score(self, holdout: pathlib.Path) -> tuple[pathlib.Path, float]:
        """The holdout model's losses on all examples; the folder, and the CPU seconds that they took."""
        folder = self._folder / "losses"
        used = folder.with_suffix(".json")
        if not used.exists():
            before = _children_cpu_seconds()
            _classact(
                "score", f"--reference={holdout}", f"--out={folder}", "--processes=1",
                "--data=icons?classes=200", "--label_noise=0.3",
            )  # fmt: skip
            used.write_text(json.dumps(_children_cpu_seconds() - before))
        return folder, float(json.loads(used.read_text()))


def main() -> int:
    """Makes the runs and prints the table."""
    options = _options()
    print("seed | method | final | updates to uniform's final | CPU s | wall s")
    for seed in options.seeds:
        runs = _Runs(options.workdir / f"seed_{seed}", seed, options.steps)
        holdout = runs.make("holdout", "reference", "synchronous", **_HOLDOUT)
        losses, scoring = runs.score(holdout.path)
        once = float(holdout.result["cpu_seconds"]) + scoring
        uniform = runs.make("uniform", "uniform", "synchronous", **_REST)
        rho = {**_REST, **_RHO, "reference.scores": losses}
        checkpoint = {"policy": "classact_ho", "reference.checkpoint": holdout.path}
        compared = {
            "uniform": (uniform, 0.0),
            "RHO-LOSS": (runs.make("rho", "classact", "synchronous", **rho), once),
            "ClassAct": (runs.make("classact", "classact", "processes", **_REST, **checkpoint), once),
        }
        target = curves.final(uniform.curve) or 0.0
        for name, (run, before) in compared.items():
            print(f"{seed} | {name} | {_line(run, target, before)}", flush=True)
    return 0


def _line(run: curves.Run, target: float, before: float) -> str:
    """What a run took to reach the target: of its CPU seconds the share that goes with the updates."""
    final = f"{100 * (curves.final(run.curve) or 0.0):.1f} %"
    reached = curves.updates_to_reach(run.curve, target)
    if reached is None:
        return f"{final} | not reached | – | –"
    cpu = before + float(run.result["cpu_seconds"]) * reached / run.steps
    wall = before + (running_time.seconds_at(run, reached) or 0.0)
    return f"{final} | {reached:,.0f} | {cpu:,.0f} | {wall:,.0f}"


def _has_ended(workdir: pathlib.Path) -> bool:
    try:
        return bool(json.loads((workdir / "result.json").read_text())["status"] == "completed")
    except FileNotFoundError:
        return False


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _classact(*arguments: str) -> None:
    command = [str(training_runs.ROOT / ".venv/bin/classact"), *arguments]
    subprocess.run(command, cwd=training_runs.ROOT, check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=lambda path: pathlib.Path(path).absolute(), required=True)
    parser.add_argument("--seeds", type=_seeds, default=[0])
    parser.add_argument("--steps", type=int, default=1000)
    return parser.parse_args()


def _seeds(text: str) -> Sequence[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    raise SystemExit(main())
