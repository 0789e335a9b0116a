"""Kills each kind of node at random moments, and says what became of the runs.

Trains ClassAct on the icons for `--steps` updates, with one inference server and two run
loops that are nodes of their own, several times for each kind of node. During a run nodes
of one kind are killed with SIGKILL, `--per_run` times, at moments that are drawn from the
whole run: with a probability of 1/6 each from the 20 s after the first process appeared,
else from the first nine tenths of the updates. Who is killed while the one before is not
yet replaced is killed when it is. A run that ends before its last moment is followed by
another one, until the kind was killed `--deaths` times. Printed are, by kind,

- how many runs there were, and how many reached their last step with every step in it and
  no process left over;
- seconds from a death until the process that replaced it does its work, the supervisor's
  pause after quick deaths included: a learner has made an update, a server serves its
  address, the replay has as many connections again as before a run loop's death, and the
  learner as before an evaluator's;
- updates made again because the learner went back to a checkpoint;
- examples trained on twice, undone updates left out. A run takes less than half of an epoch,
  so that a run loop that goes on while the other one is dead begins no second one: without
  deaths there are none.

JAX keeps what it compiles in `xla` beside the runs, so that the compilation, which takes a
learner longer than all else, is not what is measured.

Command:
    python benchmarks/kills.py [--deaths=20] [--per_run=5]
    sudo .venv/bin/python benchmarks/kills.py --launch=slurm --deaths=10      (needs Slurm)
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

import figures
import live_runs
import psutil
import training_runs
from figures import Figure

sys.path.insert(0, str(training_runs.ROOT / "tests" / "launch" / "engines"))
import slurm_cluster

_KINDS = "learner,inference,run_loop,replay,evaluator"
# What a node of these kinds is connected to while it works.
_SERVER = {"run_loop": "replay-icons", "evaluator": "learner"}
_START_SECONDS = 200.0
_BEGIN_SECONDS = 20.0
_BEGIN_SHARE = 1 / 6
_LAST_SHARE = 0.9
_RECOVER_SECONDS = 200.0
_END_SECONDS = 600.0
_FIELDS = {
    "train_data": "icons",
    "learner.model": "vit_mu_2_1",
    "inference.run_loops": 2,
    "inference.run_loops_as_nodes": True,
    "checkpoint_every": 50,
    "log_every": 10,
    "record_examples": True,
    "restarts_per_hour": 100,
}
_PLACED = {"cluster.hosts": 3, "cluster.learner.partition": "accelerator"}


@dataclasses.dataclass
class _Kind:
    """What happened to the runs of which one kind of node was killed."""

    runs: int = 0
    good: int = 0
    deaths: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)
    repeated: int = 0
    twice: int = 0
    trained_on: int = 0

    def figures(self, kind: str) -> Iterator[Figure]:
        yield Figure(f"{kind}: killed", self.deaths, f"in {self.runs} runs")
        yield Figure("  of them not well ended", self.runs - self.good, at_most=0)
        of = f"s, of {len(self.seconds)}"
        yield Figure("  seconds to recover, median", statistics.median(self.seconds), of)
        yield Figure("  longest", max(self.seconds), "s")
        yield Figure("  updates made again", self.repeated)
        yield Figure("  examples trained on twice", self.twice, f"of {self.trained_on}")


class _Deaths:
    """One run, of which nodes of one kind are killed."""

    def __init__(
        self, run: pathlib.Path, kind: str, training: training_runs.Training, rng: random.Random
    ) -> None:
        self._run, self._kind, self._training, self._rng = run, kind, training, rng

    def kill(self, times: int, steps: int, seen: _Kind) -> None:
        """Kills so often, or until the run ends."""
        self._wait(self._victims, _START_SECONDS, "a node to kill")
        began = time.monotonic()
        for moment in sorted(self._rng.uniform(-_BEGIN_SHARE, 1 - _BEGIN_SHARE) for _ in range(times)):
            if moment < 0:
                training_runs.sleep_until(began + (1 + moment / _BEGIN_SHARE) * _BEGIN_SECONDS)
            else:
                step = moment / (1 - _BEGIN_SHARE) * _LAST_SHARE * steps
                self._wait(lambda step=step: self._step() >= step, _END_SECONDS, f"step {step:.0f}")
            self._wait(self._victims, _START_SECONDS, "a node to kill")
            if self._training.has_ended:
                return
            victims = self._victims()
            node = self._rng.choice(sorted(victims))
            before = self._sign()
            died = time.monotonic()
            live_runs.kill(victims[node])
            seen.deaths += 1
            self._wait(lambda node=node, before=before: self._works(node, before), _RECOVER_SECONDS, node)
            if self._training.has_ended:
                return
            seen.seconds.append(time.monotonic() - died)

    def _step(self) -> int:
        return max(live_runs.updates_of(self._run).examples, default=0)

    def _victims(self) -> Mapping[str, psutil.Process]:
        nodes = live_runs.nodes_of(self._run)
        return {node: process for node, process in nodes.items() if node.partition("-")[0] == self._kind}

    def _wait(self, condition, seconds: float, what: str) -> None:
        training_runs.wait_until(lambda: self._training.has_ended or condition(), seconds, what)

    def _sign(self) -> int:
        """What shows that a node works: updates of a learner, connections of a node that is no server."""
        if self._kind in _SERVER:
            return live_runs.connections(self._run, _SERVER[self._kind])
        path = self._run / "trained_examples.jsonl"
        # Each update adds a line.
        return path.stat().st_size if path.exists() else 0

    def _works(self, node: str, before: int) -> bool:
        """Whether the process that replaced a node works; `before`: the sign when the node was killed."""
        if node not in live_runs.nodes_of(self._run):
            return False
        if self._kind == "learner":
            return self._sign() > before
        if self._kind in _SERVER:
            return self._sign() >= before
        return live_runs.serves(self._run, node)


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    folder = options.workdir / f"kills_{options.launch}"
    reference = training_runs.demo_reference(folder, {"train_data": "icons"})
    fields = {**_FIELDS, "steps": options.steps, "reference.checkpoint": reference}
    deaths, per_run = (2, 2) if options.quick else (options.deaths, options.per_run)
    compiled = training_runs.compiled_in(folder / "xla")
    rng = random.Random(options.seed)
    found: list[Figure] = []
    with _engine(options.launch) as (environment, placed):
        for kind in options.kinds.split(","):
            seen = _Kind()
            while seen.deaths < deaths:
                run = folder / f"{kind}_{seen.runs}"
                with training_runs.Training(
                    f"{training_runs.DEMO}:classact",
                    run,
                    {**fields, **placed, "seed": seen.runs},
                    launch=options.launch,
                    env={**environment, **compiled},
                ) as training:
                    times = min(per_run, deaths - seen.deaths)
                    _Deaths(run, kind, training, rng).kill(times, options.steps, seen)
                    status, said = training.end(_END_SECONDS)
                _count(run, status, said, options.steps, seen)
            part = list(seen.figures(kind))
            print(figures.format_table(part), flush=True)
            found += part
    return found


def _count(run: pathlib.Path, status: int, said: str, steps: int, seen: _Kind) -> None:
    updates = live_runs.updates_of(run)
    result = json.loads((run / "result.json").read_text()) if (run / "result.json").exists() else {}
    left = live_runs.nodes_of(run)
    seen.runs += 1
    seen.repeated += updates.repeated
    seen.twice += updates.trained_twice()
    seen.trained_on += sum(map(len, updates.examples.values()))
    last = max(updates.examples, default=0)
    if (status, result.get("steps"), last, updates.missing, left) == (0, steps, steps, 0, {}):
        seen.good += 1
    else:
        print(f"{run}: status {status}, step {last}, {updates.missing} missing, left {left}\n{said[-2000:]}")


@contextlib.contextmanager
def _engine(launch: str) -> Iterator[tuple[Mapping[str, str], Mapping[str, object]]]:
    """Yields the environment and the fields for an engine, whose cluster is there meanwhile."""
    if launch != "slurm":
        yield {}, {}
        return
    reason = slurm_cluster.missing()
    if reason:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as folder, slurm_cluster.SlurmCluster(folder) as cluster:
        yield cluster.environment, _PLACED


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--launch", choices=("processes", "slurm"), default="processes", help="the engine")
    made.add_argument("--deaths", type=int, default=20, help="of each kind")
    made.add_argument("--per_run", type=int, default=5, help="of these in one run, at most")
    made.add_argument("--kinds", default=_KINDS, help="what is killed, one after another")
    made.add_argument("--steps", type=int, default=230, help="updates of a run; 488 are an epoch")
    made.add_argument("--seed", type=int, default=0, help="of the moments and the nodes")
    return made


if __name__ == "__main__":
    figures.run("kills", parser(), measure)
