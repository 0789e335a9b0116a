"""A PyTorch loop on noisy icons, on what ClassAct selects and on uniform batches: how good after how many.

Command (PYTHON is that of an environment with torch and classact-client):
    python benchmarks/any_trainer.py --torch=PYTHON --workdir=runs/any_trainer [--seeds=3] [--updates=1000]

For each seed `classact serve` selects twice, with the policies `uniform` and `classact`, on the
demonstration's icons with 30 % of their labels redrawn; `examples/torch_classifier.py` trains on what it
hands on. The reference is the demonstration's. What is done already is not done again: stopped at any
moment, the same command goes on, a loop in the middle too. It ends with a table, and `any_trainer.json`.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import figures
import numpy as np

from classact.data import specs

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_DEMO = _ROOT / "experiments" / "configs" / "demo.py"
_POLICIES = ("uniform", "classact")
_CLASSACT = [sys.executable, "-c", "from classact.launch.commands import cli; cli.entry_point()"]


def main() -> int:
    """Runs what is missing, and prints the table; returns the exit status."""
    flags = _flags()
    figures.exit_on_sigterm()
    flags.workdir.mkdir(parents=True, exist_ok=True)
    measured_on = flags.workdir / "eval.npz"
    if not measured_on.exists():
        _write_eval(measured_on)
    reference = flags.workdir / "reference"
    if not (reference / "result.json").exists():
        command = [*_CLASSACT, "train", f"--config={_DEMO}:reference", f"--workdir={reference}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, list[list[dict]]] = {policy: [] for policy in _POLICIES}
    for seed in range(flags.seeds):
        for policy in _POLICIES:
            found[policy].append(_lines(flags, reference, measured_on, policy, seed))
    _report(flags.workdir / "any_trainer.json", found)
    return 0


def _lines(
    flags: argparse.Namespace, reference: pathlib.Path, measured_on: pathlib.Path, policy: str, seed: int
) -> list[dict]:
    """The evaluations of one loop, which is run as far as it has not been."""
    folder = flags.workdir / f"{policy}-{seed}"
    path = folder / "torch" / "eval.jsonl"
    if not path.exists() or _read(path)[-1]["update"] < flags.updates:
        print(f"{policy}, seed {seed}", flush=True)
        _train(flags, reference, measured_on, policy, seed, folder)
    return _read(path)


def _train(
    flags: argparse.Namespace,
    reference: pathlib.Path,
    measured_on: pathlib.Path,
    policy: str,
    seed: int,
    folder: pathlib.Path,
) -> None:
    named = [f"--config.reference.checkpoint={reference}"] if policy == "classact" else []
    selection = folder / "selection"
    folder.mkdir(exist_ok=True)
    with (folder / "serve.log").open("a") as log:
        serving = subprocess.Popen(
            [
                *_CLASSACT, "serve", f"--config={_DEMO}:{policy}", f"--workdir={selection}", *named,
                f"--config.steps={flags.updates}", f"--config.seed={seed}",
                # The selector's own accuracy is nobody's concern here.
                f"--config.evaluation.every={flags.updates}",
            ],
            stdout=log,
            stderr=log,
        )  # fmt: skip
        try:
            subprocess.run(
                [
                    flags.torch, str(_ROOT / "examples" / "torch_classifier.py"), f"--selection={selection}",
                    f"--eval={measured_on}", f"--out={folder / 'torch'}", f"--updates={flags.updates}",
                    f"--eval-every={max(1, flags.updates // 40)}", f"--seed={seed}",
                    f"--learning-rate={flags.learning_rate}",
                ],
                check=True,
            )  # fmt: skip
            # It ends by itself when all has been taken.
            serving.wait(120)
        finally:
            if serving.poll() is None:
                serving.terminate()
                serving.wait(60)


def _write_eval(path: pathlib.Path) -> None:
    source = specs.open_source("icons?classes=200", "eval")
    batch = source.batch(np.arange(source.num_examples))
    np.savez(path, image=batch["image"], label=batch["label"])


def _read(path: pathlib.Path) -> list[dict]:
    """A line an evaluation; of a loop that went back the last of each."""
    lines = {line["update"]: line for line in map(json.loads, path.read_text().splitlines())}
    return [lines[update] for update in sorted(lines)]


def _report(path: pathlib.Path, found: dict[str, list[list[dict]]]) -> None:
    rows = []
    for uniform, selected in zip(found["uniform"], found["classact"], strict=True):
        goal = uniform[-1]["top1"]
        reached = next((line["update"] for line in selected if line["top1"] >= goal), None)
        rows.append(
            {
                "uniform_top1": goal,
                "classact_top1": selected[-1]["top1"],
                "updates": uniform[-1]["update"],
                "updates_to_uniform": reached,
                "wait_share": {"uniform": uniform[-1]["wait_share"], "classact": selected[-1]["wait_share"]},
            }
        )
    path.write_text(json.dumps(rows, indent=1) + "\n")
    print("seed  uniform  classact  updates to uniform's  trainer waits")
    for seed, row in enumerate(rows):
        print(
            f"{seed:4}  {row['uniform_top1']:7.1%}  {row['classact_top1']:8.1%}  "
            f"{row['updates_to_uniform'] or 'never':>6} of {row['updates']:6}  "
            f"{row['wait_share']['classact']:13.1%}"
        )
    shares = [row["updates_to_uniform"] / row["updates"] for row in rows if row["updates_to_uniform"]]
    if len(shares) == len(rows):
        print(f"share of the updates: {statistics.mean(shares):.1%}")


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", required=True, help="A Python with torch and classact-client.")
    parser.add_argument("--workdir", type=lambda text: pathlib.Path(text).absolute(), required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
