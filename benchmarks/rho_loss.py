"""The RHO-LOSS rule beside ClassAct: updates, CPU seconds and wall-clock to the uniform run's final accuracy.

Command:
    .venv/bin/python benchmarks/rho_loss.py --workdir=runs/rho_loss [--seeds=0] [--learner=mu_6_2|mu_6_1] \
        [--torch=PYTHON]

All on icons (200 classes, 30 % of the labels redrawn), half of which the holdout model learns from
and the learners never see:

- *uniform*: one process;
- *RHO-LOSS*: its published rule in one process. The holdout model's losses are computed once for
  the whole training set; each update scores ten times the batch with the learner itself and
  trains on the top tenth. No sampling, no replay;
- *ClassAct*: the program as processes, with the same holdout model as its reference;
- *RHO-LOSS, PyTorch* (`--torch=PYTHON`, of an environment that has torch): its published defaults
  on the same images and labels, a plain loop on all cores, with a holdout model of its own
  (`rho_loss_torch.py`). Its updates are of 32 examples, not of 64, and are counted as halves.

Every method pays for the holdout model and its scoring pass, in CPU seconds and in wall-clock.
A run goes on where it was stopped: what has ended is not made again.
"""

import argparse
import json
import pathlib
import resource
import subprocess
from collections.abc import Mapping, Sequence

import numpy as np
import training_runs

from classact.data import noise, specs, views
from classact.experiments import curves
from classact.experiments.compare import running_time

_CONFIG = "experiments/configs/demo.py"
_DATA = "icons?classes=200"
_HOLDOUT = {"held_out": 0.5, "train_split": "held_out", "label_noise": 0.3}
_REST = {"held_out": 0.5, "train_split": "rest", "label_noise": 0.3}
# Of its authors: a tenth of what is scored is trained on, the best by score.
_RHO = {"policy": "rho", "filter_ratio": 0.9, "temperature": 1e-6, "reference.checkpoint": ""}


class _Runs:
    """The runs of one seed."""

    def __init__(self, folder: pathlib.Path, seed: int, steps: int, learner: str) -> None:
        self._folder, self._learner = folder, learner
        self._fields = {"seed": seed, "steps": steps, "evaluation.every": max(1, steps // 20)}

    def make(self, name: str, part: str, launch: str, **fields: object) -> curves.Run:
        """Trains a run, if it has not ended before; blocks until then."""
        workdir = self._folder / name
        if not _has_ended(workdir):
            given = {**self._fields, **fields}
            if part != "reference":
                given["learner.model"] = f"vit_{self._learner}"
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
                f"--data={_DATA}", "--label_noise=0.3",
            )  # fmt: skip
            used.write_text(json.dumps(_children_cpu_seconds() - before))
        return folder, float(json.loads(used.read_text()))

    def peer(self, python: str) -> list[dict[str, float]]:
        """The curve of the PyTorch loop; blocks until it has ended."""
        data, out = self._folder / "torch.npz", self._folder / "torch.json"
        if not out.exists():
            np.savez(data, **_arrays())
            subprocess.run(
                [
                    python, training_runs.ROOT / "benchmarks/rho_loss_torch.py",
                    f"--data={data}", f"--out={out}", f"--seed={self._fields['seed']}",
                    f"--steps={2 * self._fields['steps']}", f"--learner={self._learner}",
                ],
                check=True,
            )  # fmt: skip
        return json.loads(out.read_text())


def _arrays() -> dict[str, np.ndarray]:
    """Images to train on with their noisy labels, which of them are held out, and the eval split's."""
    noisy = noise.with_label_noise(specs.open_source(_DATA, "train"), 0.3, seed=0)
    rest, held_out = (
        part.batch(np.arange(part.num_examples)) for part in views.held_out_split(noisy, 0.5, 0)
    )
    measured = specs.open_source(_DATA, "eval")
    evaluated = measured.batch(np.arange(measured.num_examples))
    return {
        **{name: np.concatenate([rest[name], held_out[name]]) for name in ("image", "label")},
        "holdout": np.repeat([False, True], [len(rest["label"]), len(held_out["label"])]),
        **{f"eval_{name}": evaluated[name] for name in ("image", "label")},
    }


def _torch_line(curve: Sequence[Mapping[str, float]], target: float) -> str:
    """As `_line`, with updates of 64 examples; its seconds have no evaluations in them."""
    final = f"{100 * curve[-1]['top1']:.1f} %"
    reached = [point for point in curve if point["top1"] >= target]
    if not reached:
        return f"{final} | not reached | – | –"
    first = reached[0]
    return f"{final} | {first['step'] / 2:,.0f} | {first['cpu_s']:,.0f} | {first['wall_s']:,.0f}"


def main() -> int:
    """Makes the runs and prints the table."""
    options = _options()
    print("seed | method | final | updates to uniform's final | CPU s | wall s")
    for seed in options.seeds:
        runs = _Runs(options.workdir / f"seed_{seed}", seed, options.steps, options.learner)
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
        if options.torch:
            print(f"{seed} | RHO-LOSS, PyTorch | {_torch_line(runs.peer(options.torch), target)}", flush=True)
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
    parser.add_argument("--learner", choices=("mu_6_2", "mu_6_1"), default="mu_6_2")
    parser.add_argument("--torch", help="a Python that has torch")
    return parser.parse_args()


def _seeds(text: str) -> Sequence[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    raise SystemExit(main())
