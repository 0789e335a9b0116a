"""CPU-seconds per update of the distributed program against one tight loop.

Trains ClassAct with the demo's models three times on the same data: as one
process per node, and in one process without nodes or replay, with the same limit
of one compute thread per process and with all threads. The same mathematics in
each: B examples scored, learner and online model updated. CPU time is that of
every process, launcher included, between two steps of the learner: after imports,
compilation and the filling of the replay, before the end; no evaluation falls in
between. The whole runs, with all that, are reported beside it.

Processes that compute at the same time slow each other down through what cores
share (caches, memory, hyperthreads), which costs CPU time without any program
being to blame. `two loops side by side` shows how much: the same loop, twice at
once.

Command:
    python benchmarks/cpu_per_update.py
"""

import argparse
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import figures
import training_runs
import wait_share
from figures import Figure
from training_runs import Training, TrainingRun

from classact.launch.engines import resources

_TARGET = 1.25
_ONE_THREAD = resources.thread_limits(1)


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring.

    Args:
        options: of `parser`.

    Returns:
        Figures; medians over the repeats.
    """
    steps, every, first = (60, 5, 20) if options.quick else (options.steps, 25, options.steps // 3)
    last = steps - every
    folder = options.workdir / "cpu_per_update"
    data = _data_overrides(options)
    reference = folder / "reference"
    training_runs.train(
        f"{training_runs.DEMO}:reference",
        reference,
        {**data, "steps": 5, "warmup_steps": 1, "evaluation.every": 10},
        launch="synchronous",
    )
    fields = {
        **data,
        "steps": steps,
        "log_every": every,
        "evaluation.every": 2 * steps,
        "reference.checkpoint": reference,
    }
    runs: dict[str, list[TrainingRun]] = {"processes": [], "loop": [], "all_threads": []}
    for repeat in range(1 if options.quick else options.repeats):
        for name, launch, env in (
            ("processes", "processes", {}),
            ("loop", "synchronous", _ONE_THREAD),
            ("all_threads", "synchronous", {}),
        ):
            workdir = folder / f"{name}-{repeat}"
            runs[name].append(training_runs.train(_config(), workdir, fields, launch=launch, env=env))
    found = _ratios(runs, first, last, steps)
    if not options.quick:
        found += _side_by_side(folder, fields, first, last)
    found += _by_node(runs["processes"], first, last)
    return found + wait_share.figures_of(runs["processes"][-1].workdir)


def _config() -> str:
    return f"{training_runs.DEMO}:classact"


def _data_overrides(options: argparse.Namespace) -> dict[str, Any]:
    overrides = {}
    if options.train_data:
        overrides["train_data"] = options.train_data
    if options.patch_size:
        overrides["patch_size"] = options.patch_size
    return overrides


def _ratios(runs: Mapping[str, Sequence[TrainingRun]], first: int, last: int, steps: int) -> list[Figure]:
    steady = {name: _median(cpu_per_update(run, first, last) for run in some) for name, some in runs.items()}
    whole = {name: _median(run.cpu_seconds for run in some) for name, some in runs.items()}
    rate = {
        name: _median(_updates_per_second(run, first, last) for run in some) for name, some in runs.items()
    }
    scored = _median(_scored_per_update(run, first, last) for run in runs["processes"])
    start = {name: whole[name] - steps * steady[name] for name in runs}
    return [
        Figure(
            "CPU per update: processes / one loop (steady)", steady["processes"] / steady["loop"], "", _TARGET
        ),
        Figure("  processes / one loop with all threads", steady["processes"] / steady["all_threads"]),
        Figure("  processes", 1e3 * steady["processes"], "CPU-ms"),
        Figure("  one loop, one thread", 1e3 * steady["loop"], "CPU-ms"),
        Figure("  one loop, all threads", 1e3 * steady["all_threads"], "CPU-ms"),
        Figure("  processes: examples scored per update", scored, "examples"),
        Figure(f"CPU of the whole run of {steps} updates: ratio", whole["processes"] / whole["loop"]),
        Figure("  processes", whole["processes"], "CPU-s"),
        Figure("    of which start and end", start["processes"], "CPU-s"),
        Figure("  one loop, one thread", whole["loop"], "CPU-s"),
        Figure("    of which start and end", start["loop"], "CPU-s"),
        Figure("speed: processes", rate["processes"], "updates/s"),
        Figure("speed: one loop, one thread", rate["loop"], "updates/s"),
        Figure("speed: one loop, all threads", rate["all_threads"], "updates/s"),
    ]


def _side_by_side(folder: pathlib.Path, fields: Mapping[str, Any], first: int, last: int) -> list[Figure]:
    """The price of sharing the machine: two equal loops at once."""
    with (
        Training(_config(), folder / "pair-0", fields, launch="synchronous", env=_ONE_THREAD) as one,
        Training(_config(), folder / "pair-1", fields, launch="synchronous", env=_ONE_THREAD) as other,
        futures.ThreadPoolExecutor(2) as pool,
    ):
        pair = [job.result() for job in [pool.submit(one.watch), pool.submit(other.watch)]]
    both = _median(cpu_per_update(run, first, last) for run in pair)
    return [Figure("two loops side by side, one thread each", 1e3 * both, "CPU-ms")]


def _by_node(runs: Sequence[TrainingRun], first: int, last: int) -> list[Figure]:
    found = []
    for node in sorted(runs[0].samples[-1].cpu_seconds):
        spent = _median(_node_cpu(run, node, first, last) for run in runs)
        found.append(Figure(f"CPU per update by node: {node}", 1e3 * spent, "CPU-ms"))
    return found


def cpu_per_update(run: TrainingRun, first_step: int, last_step: int) -> float:
    """CPU-seconds of all processes per update between two steps."""
    first, last = run.window(first_step, last_step)
    spent = sum(last.cpu_seconds.values()) - sum(first.cpu_seconds.values())
    return spent / (last.step - first.step)


def _node_cpu(run: TrainingRun, node: str, first_step: int, last_step: int) -> float:
    first, last = run.window(first_step, last_step)
    return (last.cpu_seconds.get(node, 0.0) - first.cpu_seconds.get(node, 0.0)) / (last.step - first.step)


def _updates_per_second(run: TrainingRun, first_step: int, last_step: int) -> float:
    first, last = run.window(first_step, last_step)
    return (last.step - first.step) / (last.time - first.time)


def _scored_per_update(run: TrainingRun, first_step: int, last_step: int) -> float:
    """Examples that reached the replay per update; shows that the work is the same."""
    inserts = wait_share.read_metric(run.workdir, "replay/inserts")
    first, last = run.window(first_step, last_step)
    return (inserts[last.step] - inserts[first.step]) / (last.step - first.step)


def _median(values: Any) -> float:
    return statistics.median(list(values))


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--train-data", default="", help="source; default: the demo's")
    made.add_argument("--patch-size", type=int, default=0, help="default: the demo's")
    made.add_argument("--steps", type=int, default=600, help="updates of each run")
    made.add_argument("--repeats", type=int, default=2, help="runs of each kind, taken in turns")
    return made


if __name__ == "__main__":
    figures.run("cpu_per_update", parser(), measure)
