"""A rehearsal: the whole program at 224² with an accelerator that takes its time and computes nothing.

Launchpad's processes, Reverb's server, run loops, inference servers, the learner and an evaluator are the
real ones. Only the models are made up (`made_up_accelerator.py`): an update lasts as long as the learner's on
`--chips` accelerators of `--tflops` that are used to `--utilisation`, a score as long as two forward passes
of the scorer on `--scoring-chips`, by the multiply-accumulates that `models/cost.py` counts. `--real-scorer`
scores with the model itself instead, on the CPU. Parameters of made-up models have a few bytes:
`parameter_fanout.py` measures those of real ones.

Images are JPEG files of 500×375 (scikit-learn's photographs, cut at random) in tar shards, read with
`inception+flip`, or pixels that lie ready in memory. Neither a run of few updates nor a busy machine says how
fast a cluster is. What holds is counted in processor time an image and in bytes; waits say who is the
slower one on this machine.

Commands (`--workdir=DIR` keeps the shards):
    python benchmarks/real_size.py                                 (8 H100: two cores do not keep up)
    python benchmarks/real_size.py --chips=0.1                     (a learner that two cores can feed)
    python benchmarks/real_size.py --images=pixels --batch-size=4096
    python benchmarks/real_size.py --policy=uniform --chips=0.1    (beside it, what selection adds:)
    python benchmarks/real_size.py --real-scorer=vit_mu_1_1 --chips=0.1

The table has, after the start: the learner's, run loops' and servers' shares of waiting; the age of scores
in updates; processor time by node and by its threads for each image that is scored ("native": gRPC's and
XLA's); the most memory of each node, pages that processes share counted in parts.
"""

import argparse
import collections
import json
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import figures
import made_up_accelerator
import replay_images
import training_runs
import wait_share
from figures import Figure
from training_runs import CLASSIFICATION, Training, TrainingRun

from classact.experiments import ledger
from classact.models import cost, registry

_SIDE, _CLASSES = 224, 2
_FILE_SIZE = (500, 375)
_PACED = "made_up_accelerator:paced"
_MEMORY_SECONDS = 2.0
# Of an image; threads that take less are not shown.
_SHOWN_SECONDS = 1e-5
_NODE_NUMBER = re.compile(r"-\d+")


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    if options.quick:
        options.batch_size, options.steps, options.photographs = 64, 8, 64
    data = _data(options)
    speed = _Speed(options)
    folder = options.workdir / "real_size"
    probes = folder / "probes"
    shutil.rmtree(folder, ignore_errors=True)
    probes.mkdir(parents=True)
    fields = {**data, **_program(options), **speed.fields()}
    if options.policy != "uniform":
        fields["reference.checkpoint"] = _reference(options, data, speed)
    training = Training(
        str(CLASSIFICATION),
        folder / "run",
        fields,
        launch="processes",
        env={**_environment(), made_up_accelerator.PROBES: str(probes)},
    )
    memory: collections.Counter[str] = collections.Counter()
    with training, futures.ThreadPoolExecutor(1) as pool:
        watched = pool.submit(training.watch)
        while not futures.wait([watched], timeout=_MEMORY_SECONDS).done:
            for node, size in training.shared_bytes().items():
                memory[node] = max(memory[node], size)
        run = watched.result()
    return [*speed.figures(), *_Found(run, probes).figures(options), *_memory(memory)]


class _Speed:
    """How long the made-up models take."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._real = options.real_scorer
        rate = options.tflops * 1e12 * options.utilisation / 2
        self._rates = {"learner": options.chips * rate, "scorer": options.scoring_chips * rate}
        names = {"learner": options.learner, "scorer": options.scorer}
        self._macs = {
            role: cost.forward_macs(_model(name), (_SIDE, _SIDE, 3)) for role, name in names.items()
        }
        passes = ledger.TRAINING_PASSES * options.batch_size
        self._update = passes * self._macs["learner"] / self._rates["learner"]
        self._images = options.batch_size / self._update

    def fields(self) -> dict[str, Any]:
        """Of the configuration: both models."""
        return {**self._of("learner"), **self.scorer("scorer")}

    def scorer(self, role: str) -> dict[str, Any]:
        """The fields by which a role of the run has the scorer's model."""
        if self._real:
            return {f"{role}.model": self._real, "patch_size": 16}
        # The online model has no time of its own in an update: next to the learner's it is small.
        return {f"{role}.model": _PACED, f"{role}.options": self._options("scorer")}

    def figures(self) -> list[Figure]:
        """What is assumed."""
        return [
            Figure("an update of the learner takes", 1e3 * self._update, "ms"),
            Figure("so it could train on", self._images, "images/s"),
        ]

    def _of(self, role: str) -> dict[str, Any]:
        return {f"{role}.model": _PACED, f"{role}.options": self._options(role)}

    def _options(self, role: str) -> dict[str, float]:
        return {"macs": float(self._macs[role]), "macs_per_second": self._rates[role]}


def _model(name: str) -> registry.Model:
    return registry.create(name, num_classes=1000, image_shape=(_SIDE, _SIDE, 3), patch_size=16)


def _data(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that say which images."""
    if options.images == "pixels":
        source = f"made_up_accelerator:pixels?side={_SIDE}"
        return {"train_data": f"{source}&count=1000000", "eval_data": f"{source}&count=64"}
    shards = options.workdir / f"photographs-{options.photographs}"
    if not shards.exists():
        # Whole or not at all.
        partial = shards.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        print(f"writing {options.photographs} photographs …", file=sys.stderr, flush=True)
        replay_images.write_shards(partial, _FILE_SIZE, options.photographs)
        partial.rename(shards)
    last = replay_images.SHARDS - 1
    source = f"made_up_accelerator:shards:{shards}"
    # So often that an epoch is longer than the run.
    factor = max(1, 4 * options.batch_size * options.steps // options.photographs)
    return {
        "train_data": f"{source}/{{0..{last}}}.tar?side={_SIDE}&factors={factor}",
        "eval_data": f"{source}/{last}.tar?side={_SIDE}",
        "augment": "inception+flip",
    }


def _program(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that say what runs, and for how long."""
    return {
        "policy": options.policy,
        "batch_size": options.batch_size,
        "filter_ratio": 0.5,
        "steps": options.steps,
        "warmup_steps": 1,
        "log_every": 1,
        "checkpoint_every": 0,
        "evaluation.every": 10 * options.steps,
        "replay.images": options.replay_images,
        "replay.shards": options.shards,
        "replay.read_ahead": options.read_ahead,
        "inference.servers": options.servers,
        "inference.run_loops_as_nodes": options.run_loops_as_nodes,
        "hung_seconds": 0,
    }


def _reference(options: argparse.Namespace, data: Mapping[str, Any], speed: _Speed) -> pathlib.Path:
    """Trains a reference of the scorer's size for one update, unless an earlier measurement has."""
    folder = options.workdir / f"reference-{options.images}-{options.real_scorer or 'made-up'}"
    if (folder / "result.json").exists():
        return folder
    few = {"batch_size": 8, "steps": 1, "warmup_steps": 0, "evaluation.every": 10, "policy": "uniform"}
    fields = {**data, **few, **speed.scorer("learner")}
    return training_runs.train(
        str(CLASSIFICATION), folder, fields, launch="synchronous", env=_environment()
    ).workdir


def _environment() -> dict[str, str]:
    """In which a run finds the made-up models."""
    return {"PYTHONPATH": str(pathlib.Path(__file__).parent)}


class _Found:
    """What a run has left, between its first updates and its last."""

    def __init__(self, run: TrainingRun, probes: pathlib.Path) -> None:
        self._run = run
        inserts = wait_share.read_metric(run.workdir, "replay/inserts")
        # The first updates are made from what was inserted before them.
        first = max(2, max(inserts) // 4)
        self._first, self._last = run.window(min(s for s in inserts if s >= first), max(inserts))
        self._updates = self._last.step - self._first.step
        self._images = inserts[self._last.step] - inserts[self._first.step]
        seconds = self._last.time - self._first.time
        self._rate = self._images / seconds
        # Samples are of another clock than what nodes note.
        start, end = (time.time() - time.monotonic() + sample.time for sample in (self._first, self._last))
        self._probes = [_passed(path, start, end) for path in probes.glob("*.jsonl")]

    def figures(self, options: argparse.Namespace) -> list[Figure]:
        """Rates, waits, ages and processor time."""
        found = [
            Figure("updates that are counted", self._updates),
            Figure("images scored on this machine", self._rate, "images/s"),
            Figure("images trained on", options.batch_size / self._seconds_an_update(), "images/s"),
            *wait_share.figures_of(self._run.workdir),
            *self._waits(),
        ]
        return found + self._processors()

    def _seconds_an_update(self) -> float:
        """By the learner's own clock: lines of metrics wait until tables are counted."""
        spent = [
            seconds
            for name in ("train/data_wait_seconds", "train/step_seconds")
            for step, seconds in wait_share.read_metric(self._run.workdir, name).items()
            if self._first.step < step <= self._last.step
        ]
        return sum(spent) / self._updates

    def _waits(self) -> list[Figure]:
        seen: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for _, _, own in self._probes:
            for part, counts in own.items():
                seen[part].update(counts)
        return [
            Figure(f"{part} waits for {wait}", count / sum(seen[part].values()))
            for part in sorted(seen)
            if part in ("run loop", "reading ahead", "scoring")
            for wait, count in seen[part].most_common()
            if wait
        ]

    def _processors(self) -> list[Figure]:
        found = []
        by_node: collections.Counter[str] = collections.Counter()
        for node, seconds in self._last.cpu_seconds.items():
            by_node[_NODE_NUMBER.sub("", node)] += seconds - self._first.cpu_seconds.get(node, 0.0)
        threads: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for node, cpu, _ in self._probes:
            kind = _NODE_NUMBER.sub("", node)
            # What measures is no part of it.
            by_node[kind] -= cpu.get(made_up_accelerator.PROBE, 0.0)
            threads[kind].update(
                {name: part for name, part in cpu.items() if name != made_up_accelerator.PROBE}
            )
        for node, seconds in by_node.most_common():
            found.append(Figure(f"processor time: {node}", 1e3 * seconds / self._images, "ms/image"))
            for thread, part in threads.get(node, collections.Counter()).most_common():
                if part / self._images > _SHOWN_SECONDS:
                    found.append(Figure(f"  {thread}", 1e3 * part / self._images, "ms/image"))
        total = 1e3 * sum(by_node.values()) / self._images
        return [*found, Figure("processor time of an image that is scored", total, "ms/image")]


def _passed(
    path: pathlib.Path, start: float, end: float
) -> tuple[str, dict[str, float], dict[str, dict[str, int]]]:
    """What a probe noted between two times: node, CPU seconds, and looks."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    within = [line for line in lines if start <= line["time"] <= end]
    if len(within) < 2:
        return (lines[0]["node"] if lines else "", {}, {})
    before, after = within[0], within[-1]
    cpu = {name: seconds - before["cpu"].get(name, 0.0) for name, seconds in after["cpu"].items()}
    seen = {
        part: {wait: count - before["seen"].get(part, {}).get(wait, 0) for wait, count in counts.items()}
        for part, counts in after["seen"].items()
    }
    return after["node"], cpu, seen


def _memory(memory: Mapping[str, int]) -> list[Figure]:
    return [Figure(f"memory: {node}", size / 1e6, "MB") for node, size in sorted(memory.items())]


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--batch-size", type=int, default=1024, help="b, images of an update")
    made.add_argument("--steps", type=int, default=8, help="updates")
    made.add_argument("--policy", default="classact", choices=("classact", "uniform"))
    made.add_argument("--images", default="jpeg", choices=("jpeg", "pixels"))
    made.add_argument("--photographs", type=int, default=1024, help="JPEG files that are written")
    made.add_argument("--learner", default="vit_b", help="whose time an update takes")
    made.add_argument("--scorer", default="vit_ti", help="whose time a score takes")
    made.add_argument("--real-scorer", default="", help="a model that scores itself, on the CPU")
    made.add_argument("--chips", type=float, default=8.0, help="accelerators of the learner")
    made.add_argument("--scoring-chips", type=float, default=1.0, help="of each inference server")
    made.add_argument("--tflops", type=float, default=989.0, help="of one; an H100's dense bfloat16")
    made.add_argument("--utilisation", type=float, default=0.4, help="the share of it that is reached")
    made.add_argument("--replay-images", default="pixels", choices=("pixels", "encoded", "ids"))
    made.add_argument("--shards", type=int, default=1, help="replay servers")
    made.add_argument("--read-ahead", type=int, default=1, help="see replay.read_ahead")
    made.add_argument("--servers", type=int, default=1, help="inference servers")
    made.add_argument("--run-loops-as-nodes", action="store_true", help="each a process of its own")
    return made


if __name__ == "__main__":
    figures.run("real_size", parser(), measure)
