"""Interrupts a run of 3,000 updates five times, and compares its accuracy with a run left alone.

For each seed a run is trained without a break, and one that is interrupted at random
moments and started again by the same command, each time by something else:

1. SIGTERM to its launcher;
2. SIGKILL to all of its processes at once;
3. a disk without space, until the run has ended; then there is room again;
4. SIGKILL to all, after which its newest checkpoint is damaged;
5. SIGTERM, after which it goes on with two inference servers instead of one.

It is the demonstration's ClassAct with smaller models and a smaller batch, so that 3,000 updates
take minutes, and with a reference of its own that has learned for 1,000. Printed are the
final accuracies on held-out data by seed, their means and standard deviations, the
difference of the means and twice its standard error; how each interruption ended; and the
steps that are missing: 0.

Command:
    sudo .venv/bin/python benchmarks/interruptions.py [--seeds=0,1,2]

It mounts a small file system for the disk without space, so it needs root.
"""

import argparse
import contextlib
import json
import pathlib
import random
import statistics
import subprocess
from collections.abc import Iterator, Mapping

import figures
import live_runs
import training_runs
from figures import Figure

from classact.nodes import checkpoints

_SMALL = {
    "batch_size": 32,
    "evaluation.every": 250,
    "learner.model": "vit_mu_1_1",
    "scorer.model": "vit_mu_1_1",
}
_RECORDED = {"checkpoint_every": 100, "record_examples": True}
_REFERENCE_STEPS = 1_000
_DISK_MB = 300
_FINAL = "eval/test/top1"
_SECONDS = 1_200.0
_SIGTERM_STATUS = 143
_SIGKILL_STATUS = -9
_FAILED_STATUS = 1


class _Interrupted:
    """A run that is interrupted, and what it is made of."""

    def __init__(
        self, run: pathlib.Path, fields: Mapping[str, object], env: Mapping[str, str], rng: random.Random
    ) -> None:
        self._run, self._fields, self._env, self._rng = run, dict(fields), env, rng
        self._breaks = 0

    def train(self) -> None:
        """Trains to the end, with five interruptions."""
        with self._part() as training:
            self._expect(training, _SIGTERM_STATUS, "", stop=True)
        with self._part() as training:
            training.kill()
            self._expect(training, _SIGKILL_STATUS, "")
        with self._part() as training:
            ballast = live_runs.fill(self._run.parent)
            self._expect(training, _FAILED_STATUS, "No space left on device")
            ballast.unlink()
        with self._part() as training:
            training.kill()
            self._expect(training, _SIGKILL_STATUS, "")
            newest = checkpoints.latest_step(self._run / "checkpoints")
            live_runs.damage(self._run / "checkpoints" / str(newest))
        with self._part() as training:
            self._expect(training, _SIGTERM_STATUS, f"{newest} is damaged", stop=True)
        self._fields["inference.servers"] = 2
        with self._start() as training:
            self._expect(training, 0, "goes on from step")

    def _start(self) -> training_runs.Training:
        return training_runs.Training(
            f"{training_runs.DEMO}:classact",
            self._run,
            self._fields,
            launch="processes",
            env=self._env,
            log=self._log(),
            resume=True,
        )

    def _log(self) -> pathlib.Path:
        # Not on the disk that is filled.
        return self._run.parent.parent / f"{self._run.parent.name}_{self._breaks}.log"

    @contextlib.contextmanager
    def _part(self) -> Iterator[training_runs.Training]:
        """Starts it, or lets it go on; yields it at a random moment in the next sixth of its updates."""
        begin = max(live_runs.updates_of(self._run).examples, default=0)
        sixth = int(self._fields["steps"]) / 6
        until = begin + self._rng.uniform(sixth / 2, sixth)
        with self._start() as training:
            training_runs.wait_until(
                lambda: training.has_ended or self._step() >= until,
                _SECONDS,
                f"step {until:.0f} of {self._run}",
            )
            yield training

    def _step(self) -> int:
        lines = live_runs.metrics_of(self._run, "learner")
        return int(lines[-1]["step"]) if lines else 0

    def _expect(self, training: training_runs.Training, status: int, words: str, stop: bool = False) -> None:
        """Waits for the end of a part; fails if it is not as expected."""
        if stop:
            training.stop()
        found, said = training.end(_SECONDS)
        if found != status or words not in said or (self._breaks and "goes on from step" not in said):
            raise training_runs.RunFailedError(
                f"{self._log()}: status {found}, expected {status} and {words!r}:\n{said[-3000:]}"
            )
        step = max(live_runs.updates_of(self._run).examples, default=0)
        saved = checkpoints.latest_step(self._run / "checkpoints")
        print(
            f"{self._run.parent.name}: part {self._breaks} ended with {found} at {step}, saved {saved}",
            flush=True,
        )
        self._breaks += 1


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    folder = options.workdir / "interruptions"
    reference_steps, steps = (50, 120) if options.quick else (_REFERENCE_STEPS, options.steps)
    reference, env = folder / "reference", training_runs.compiled_in(folder / "xla")
    training_runs.train(
        f"{training_runs.DEMO}:reference", reference, {**_SMALL, "steps": reference_steps}, launch="processes"
    )
    whole, broken, repeated, missing = [], [], 0, 0
    for seed in map(int, options.seeds.split(",")):
        fields = {**_SMALL, **_RECORDED, "steps": steps, "seed": seed, "reference.checkpoint": reference}
        if options.quick:
            fields |= {"checkpoint_every": 10, "log_every": 5}
        run = folder / f"whole_{seed}"
        training_runs.train(f"{training_runs.DEMO}:classact", run, fields, launch="processes", env=env)
        whole.append(_accuracy(run))
        with _small_disk(folder / f"interrupted_{seed}") as disk:
            run = disk / "run"
            _Interrupted(run, fields, env, random.Random(seed)).train()
            broken.append(_accuracy(run))
            updates = live_runs.updates_of(run)
            repeated += updates.repeated
            missing += updates.missing + steps - max(updates.examples)
        print(f"seed {seed}: {whole[-1]:.2f} % left alone, {broken[-1]:.2f} % interrupted", flush=True)
    return [*_accuracy_figures(whole, broken), *_update_figures(repeated, missing)]


def _accuracy_figures(whole: list[float], broken: list[float]) -> Iterator[Figure]:
    for name, found in (("left alone", whole), ("interrupted", broken)):
        yield Figure(f"top-1, {name}: mean of {len(found)} seeds", statistics.mean(found), "%")
        for value in found:
            yield Figure("  each", value, "%")
    if len(whole) > 1:
        variances = (statistics.variance(found) / len(found) for found in (whole, broken))
        error = sum(variances) ** 0.5
        yield Figure("twice the standard error of the difference", 2 * error, "points")
        difference = statistics.mean(broken) - statistics.mean(whole)
        yield Figure("interrupted less left alone", difference, "points")
        yield Figure("  its size", abs(difference), "points", at_most=2 * error)


def _update_figures(repeated: int, missing: int) -> Iterator[Figure]:
    yield Figure("updates made again, of all interrupted runs", repeated)
    yield Figure("steps that are missing", missing, at_most=0)


def _accuracy(run: pathlib.Path) -> float:
    return 100 * json.loads((run / "result.json").read_text())["final"][_FINAL]


@contextlib.contextmanager
def _small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Mounts a file system of its own at a folder, and yields the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", default="0,1,2", help="of the runs, and of the moments")
    made.add_argument("--steps", type=int, default=3_000, help="updates of each run")
    return made


if __name__ == "__main__":
    figures.run("interruptions", parser(), measure)
