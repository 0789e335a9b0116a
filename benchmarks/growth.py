"""What more actors and more replay shards cost on one machine.

Trains the demo's ClassAct with `--launch=processes`: with 1, 2, 4 and 8 inference
servers of one run loop each, with 1, 2, 4 and 8 run loops beside one server, and with
1, 2 and 4 shards of the replay (and four run loops). For each: updates and examples
per second, CPU time per update of all processes and by kind of node, the learner's
wait share and the scores' staleness. The work per update is the same in all: on a
machine whose cores are all busy, what is added is only cost.

Command:
    python benchmarks/growth.py
"""

import argparse
import collections

import cpu_per_update
import figures
import training_runs
import wait_share
from figures import Figure

_CASES: dict[str, dict[str, int]] = {
    **{f"{n} servers": {"inference.servers": n, "inference.run_loops": 1} for n in (1, 2, 4, 8)},
    **{f"{n} run loops": {"inference.run_loops": n} for n in (1, 2, 4, 8)},
    **{f"{n} shards": {"replay.shards": n, "inference.run_loops": 4} for n in (1, 2, 4)},
}


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    steps, first = (60, 20) if options.quick else (options.steps, options.steps // 3)
    every = 10 if options.quick else 25
    folder = options.workdir / "growth"
    reference = training_runs.demo_reference(folder)
    found = []
    for name, fields in _CASES.items():
        shared = {"steps": steps, "log_every": every, "evaluation.every": 2 * steps}
        run = training_runs.train(
            f"{training_runs.DEMO}:classact",
            folder / name.replace(" ", "_"),
            {**shared, **fields, "reference.checkpoint": reference},
            launch="processes",
        )
        found += _figures(name, run, first, steps - every)
        print(figures.format_table(found), flush=True)
    return found


def _figures(name: str, run: training_runs.TrainingRun, first_step: int, last_step: int) -> list[Figure]:
    first, last = run.window(first_step, last_step)
    updates = last.step - first.step
    spent = cpu_per_update.cpu_per_update(run, first_step, last_step)
    rate = updates / (last.time - first.time)
    batch_size = run.result["final"]["train/examples"] / _updates_of_last_line(run)
    by_kind: dict[str, float] = collections.defaultdict(float)
    for node, seconds in last.cpu_seconds.items():
        by_kind[node.split("-")[0]] += (seconds - first.cpu_seconds.get(node, 0.0)) / updates
    return [
        Figure(f"{name}: updates", rate, "1/s"),
        Figure(f"{name}:   examples trained on", rate * batch_size, "1/s"),
        Figure(f"{name}:   CPU per update", 1e3 * spent, "CPU-ms"),
        *(
            Figure(f"{name}:     {kind}", 1e3 * by_kind[kind], "CPU-ms")
            for kind in ("learner", "inference", "replay")
        ),
        *(
            Figure(f"{name}:   {figure.name}", figure.value, figure.unit)
            for figure in wait_share.figures_of(run.workdir)
        ),
    ]


def _updates_of_last_line(run: training_runs.TrainingRun) -> int:
    steps = sorted(wait_share.read_metric(run.workdir, "train/examples"))
    return steps[-1] - (steps[-2] if len(steps) > 1 else 0)


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--steps", type=int, default=300, help="updates of each run")
    return made


if __name__ == "__main__":
    figures.run("growth", parser(), measure)
