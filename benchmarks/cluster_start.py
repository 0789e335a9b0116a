"""What a cluster costs a run: where its start goes, and where it ends.

Command:
    sudo .venv/bin/python benchmarks/cluster_start.py --workdir=runs/cluster [--seeds=0,1,2] [--local=0,1,2]
    .venv/bin/python benchmarks/cluster_start.py --engine=ray --workdir=runs/ray [--seeds=… --local=…]

Starts a Slurm of three nodes on this machine (`tests/launch/slurm_cluster.py`), or a
Ray of three (`tests/launch/ray_machines.py`), and

- trains the demonstration's ClassAct for a few updates on its three nodes, and as
  local processes, each three times, and says when what had happened: seconds from
  the command to each stage, and the first update;
- trains the whole of it once for each seed of `--seeds` there, and of `--local` as
  local processes, and prints the final accuracies.

The hosts share the machine's cores, so the seconds are what the launcher and the
cluster add, not what more hosts save.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import figures
import training_runs

sys.path.insert(0, str(training_runs.ROOT / "tests" / "launch" / "engines"))
import ray_machines
import slurm_cluster

_STARTS = 3
_POLL_SECONDS = 0.02
_STEPS = 5
_CLUSTER = {
    "slurm": (slurm_cluster.SlurmCluster, "accelerator"),
    "ray": (ray_machines.Machines, "trainer"),
}
_FINAL = "eval/test/top1"


def main() -> int:
    """Measures both; returns the exit status."""
    options = _options()
    figures.exit_on_sigterm()
    engine = options.engine
    reason = slurm_cluster.missing() if engine == "slurm" else ""
    if reason:
        print(reason, file=sys.stderr)
        return 1
    workdir = options.workdir.absolute()
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir(parents=True)
    reference = options.reference
    if reference is None:
        reference = workdir / "reference"
        _train(dict(os.environ), "reference", reference)
    scored = [f"--config.reference.checkpoint={reference.absolute()}"]
    make_cluster, partition = _CLUSTER[engine]
    placed = [
        f"--launch={engine}",
        "--config.cluster.hosts=3",
        f"--config.cluster.learner.partition={partition}",
    ]
    with tempfile.TemporaryDirectory() as folder, make_cluster(folder) as cluster:
        kinds = {engine: (cluster.environment, placed), "processes": (dict(os.environ), [])}
        for kind, (environment, launch) in kinds.items():
            stages = [
                _start(environment, workdir / f"{kind}_start_{index}", [*scored, *launch])
                for index in range(_STARTS)
            ]
            _print_stages(kind, stages)
        for kind, (environment, launch) in kinds.items():
            seeds = options.local if kind == "processes" else options.seeds
            for seed in filter(None, seeds.split(",")):
                run = workdir / f"{kind}_{seed}"
                _train(environment, "classact", run, *scored, *launch, f"--config.seed={seed}")
                result = json.loads((run / "result.json").read_text())
                print(
                    f"{kind}, seed {seed}: top-1 {100 * result['final'][_FINAL]:.1f} %, "
                    f"{result['wall_seconds']:.0f} s, {result['cpu_seconds']:.0f} CPU s",
                    flush=True,
                )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/cluster"), help="emptied")
    parser.add_argument("--engine", choices=_CLUSTER, default="slurm")
    parser.add_argument("--reference", type=pathlib.Path, help="the demo's, if it is trained already")
    parser.add_argument("--seeds", default="0", help="of the whole runs on the cluster")
    parser.add_argument("--local", default="0", help="of the whole runs as local processes")
    return parser.parse_args()


def _command(part: str, run: pathlib.Path, *arguments: str) -> list[str]:
    classact = str(pathlib.Path(sys.executable).with_name("classact"))
    return [classact, "train", f"--config={training_runs.DEMO}:{part}", f"--workdir={run}", *arguments]


def _train(environment: Mapping[str, str], part: str, run: pathlib.Path, *arguments: str) -> None:
    subprocess.run(_command(part, run, *arguments), env=environment, check=True, stdout=subprocess.DEVNULL)


def _start(environment: Mapping[str, str], run: pathlib.Path, arguments: list[str]) -> dict[str, float]:
    """Runs a few updates; returns seconds from the command to each stage, in order."""
    learner = run / "metrics" / "learner.jsonl"
    stages: dict[str, Callable[[], bool]] = {
        "submitted": (run / "slurm" / "job.sbatch").exists,
        "job begun": lambda: any(run.glob("slurm/*.out")),
        "launcher ready": (run / "config.json").exists,
        "nodes sent": (run / "endpoints.json").exists,
        "learner begun": (run / "logs" / "learner.log").exists,
        "first update": lambda: learner.exists() and b"\n" in learner.read_bytes(),
    }
    seen: dict[str, float] = {}
    begun = time.monotonic()
    short = [f"--config.steps={_STEPS}", "--config.log_every=1", "--config.warmup_steps=1"]
    with subprocess.Popen(
        _command("classact", run, *short, *arguments), env=environment, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            for stage in [stage for stage, there in stages.items() if stage not in seen and there()]:
                seen[stage] = time.monotonic() - begun
            time.sleep(_POLL_SECONDS)
        seen["ended"] = time.monotonic() - begun
    if process.returncode != 0:
        raise SystemExit(f"{run} failed")
    first = json.loads(learner.read_text().splitlines()[0])
    # Of the time before the first update, what the learner itself says of it.
    seen["of it, waiting for data"] = first["train/data_wait_seconds"]
    seen["of it, compiling and computing"] = first["train/step_seconds"]
    return seen


def _print_stages(kind: str, runs: list[dict[str, float]]) -> None:
    print(f"{kind}: seconds from the command, median of {len(runs)} (each)")
    for stage in runs[-1]:
        values = [run[stage] for run in runs if stage in run]
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"  {stage:32} {statistics.median(values):6.2f}  ({each})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
