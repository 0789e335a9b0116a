"""Kills random nodes of a running demonstration, and counts what that costs.

Trains the demo's ClassAct with `--launch=processes` for `--minutes`. Every `--every`
seconds one of its nodes, drawn at random, is killed with SIGKILL. Then the run is stopped
with SIGTERM. Printed are

- by kind of node, how often it was killed, and the seconds until the process that replaced
  it served its port (an evaluator has none: until its next line of metrics);
- updates that were made again because the learner went back to a checkpoint, and updates
  between the newest checkpoint at its death and the step at which it began again, which
  would be lost: 0;
- the share of the examples that were trained on twice within an epoch;
- resident sizes in the last quarter of the time less those in the second: of the launcher,
  which is never killed, and of all processes together;
- processes that are left over: 0.

Command:
    python benchmarks/soak.py [--minutes=60] [--every=60] [--kinds=learner,inference,replay,evaluator]
"""

import argparse
import collections
import pathlib
import random
import statistics
import time
from collections.abc import Iterator

import figures
import live_runs
import numpy as np
import training_runs
from figures import Figure

from classact.nodes import checkpoints

_START_SECONDS = 300.0
_RECOVER_SECONDS = 300.0
_KINDS = "learner,inference,replay,evaluator"
_FIELDS = {
    "steps": 1_000_000,
    "checkpoint_every": 100,
    "log_every": 10,
    "record_examples": True,
    "restarts_per_hour": 1_000,
}


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    folder = options.workdir / "soak"
    reference = training_runs.demo_reference(folder)
    run = folder.absolute() / "run"
    fields = {**_FIELDS, "reference.checkpoint": reference}
    seconds, every = (60.0, 15.0) if options.quick else (60 * options.minutes, options.every)
    with training_runs.Training(
        f"{training_runs.DEMO}:classact", run, fields, launch="processes"
    ) as training:
        soak = _Soak(run, training, random.Random(options.seed), options.kinds.split(","))
        soak.kill_for(seconds, every)
    left = sorted(live_runs.nodes_of(run))
    return [
        *soak.figures(),
        *_learner_figures(run, soak.learner_deaths),
        Figure("processes left over", len(left), at_most=0),
    ]


class _Soak:
    """The killing, and what is seen meanwhile."""

    def __init__(
        self, run: pathlib.Path, training: training_runs.Training, rng: random.Random, kinds: list[str]
    ) -> None:
        self._run, self._training, self._rng, self._kinds = run, training, rng, kinds
        self._recovered: dict[str, list[float]] = collections.defaultdict(list)
        # (seconds since the start, launcher's bytes, all bytes)
        self._sizes: list[tuple[float, int, int]] = []
        # Wall time and newest checkpoint of each death of the learner.
        self.learner_deaths: list[tuple[float, int]] = []

    def kill_for(self, seconds: float, every: float) -> None:
        """Kills one node every so many seconds, as soon as the last one is back."""
        training_runs.wait_until(
            lambda: live_runs.metrics_of(self._run, "learner"), _START_SECONDS, "the first updates"
        )
        started = time.monotonic()
        while (now := time.monotonic()) < started + seconds:
            nodes = live_runs.nodes_of(self._run)
            self._kill(self._rng.choice(sorted(node for node in nodes if node.split("-")[0] in self._kinds)))
            self._sizes.append((time.monotonic() - started, *self._training.resident_bytes()))
            training_runs.sleep_until(max(now + every, time.monotonic()))

    def _kill(self, node: str) -> None:
        victim = live_runs.nodes_of(self._run)[node]
        before = len(live_runs.metrics_of(self._run, node))
        if node == "learner":
            newest = checkpoints.latest_step(self._run / "checkpoints") or 0
            self.learner_deaths.append((time.time(), newest))
        died = time.monotonic()
        live_runs.kill(victim)

        def back() -> bool:
            if node.startswith("evaluator"):
                return len(live_runs.metrics_of(self._run, node)) > before
            return live_runs.serves(self._run, node)

        training_runs.wait_until(back, _RECOVER_SECONDS, f"{node} after its death")
        self._recovered[node.split("-")[0]].append(time.monotonic() - died)

    def figures(self) -> Iterator[Figure]:
        for kind, seconds in sorted(self._recovered.items()):
            yield Figure(f"{kind}: killed", len(seconds), "times")
            yield Figure("  seconds to recover, median", statistics.median(seconds), "s")
            yield Figure("  longest", max(seconds), "s")
        times, launcher, everything = np.array(self._sizes).T
        end = times[-1]
        second, last = (times > end / 4) & (times <= end / 2), times > 3 * end / 4
        for name, sizes in (("the launcher", launcher), ("all processes", everything)):
            if second.any():
                growth = (sizes[last].mean() - sizes[second].mean()) / 1e6
                yield Figure(f"resident size of {name}: last quarter less second", growth, "MB")
            yield Figure("  at the end", sizes[-1] / 1e6, "MB")


def _learner_figures(run: pathlib.Path, deaths: list[tuple[float, int]]) -> Iterator[Figure]:
    updates = live_runs.updates_of(run)
    yield Figure("updates of the run, those that were undone left out", max(updates.examples))
    yield Figure("updates that were made again", updates.repeated, f"in {len(deaths)} deaths")
    yield Figure("steps that are missing", updates.missing, at_most=0)
    yield Figure("updates lost beyond the newest checkpoint", _lost(run, deaths), at_most=0)
    yield Figure("examples trained on twice, of the last 10,000", updates.trained_twice(10_000) / 10_000)


def _lost(run: pathlib.Path, deaths: list[tuple[float, int]]) -> int:
    """Steps between the checkpoint that was newest when a learner died and where the next began."""
    lines = live_runs.metrics_of(run, "learner")
    lost = 0
    for died, newest in deaths:
        after = next((line["step"] for line in lines if line["time"] > died), None)
        # Its first line comes at the next multiple of log_every.
        if after is not None:
            lost += max(0, newest - after)
    return lost


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--minutes", type=float, default=60.0, help="how long")
    made.add_argument("--every", type=float, default=60.0, help="seconds between two deaths")
    made.add_argument("--kinds", default=_KINDS, help="what is killed")
    made.add_argument("--seed", type=int, default=0, help="of the choice of nodes")
    return made


if __name__ == "__main__":
    figures.run("soak", parser(), measure)
