"""For `real_size.py`: models that take an accelerator's time and compute nothing, and images of no content.

It is a user's module, which every node of the program imports by the names of the model or of the source.
Where `CLASSACT_PROBES` names a folder, it also notes there what the node's threads do.
"""

import collections
import functools
import json
import os
import pathlib
import re
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import training_runs
from jax.experimental import io_callback

from classact.data import specs
from classact.data.source import Batch, Source, checked_indices
from classact.models import registry
from classact.nodes import activity

PROBES, PROBE = "CLASSACT_PROBES", "probe"
_LOOK_SECONDS = 0.05
_LOOKS_A_LINE = 20
# Of a training step: forward, and backward.
_TRAINING_PASSES = 3
_POOL = 256
_PART = re.compile(r"^(?P<part>[^:]+): (?:waiting for (?P<wait>.+) for \d+ s$)?")
# Of threads of a kind, and of what follows where one listens.
_NUMBER = re.compile(r"[ _-]\d+( \(.*\))?$| at .*$")


def paced(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    patch_size: int,
    *,
    macs: float,
    macs_per_second: float,
) -> registry.Model:
    """A model of a pixel of each image, whose passes last as long as another's on an accelerator.

    Args:
        name: see `registry.register`.
        num_classes: the same.
        image_shape: the same.
        patch_size: not looked at.
        macs: multiply-accumulates of the other model's forward pass, for one image.
        macs_per_second: how many the accelerator makes.
    """
    del patch_size

    def init(key: jax.Array) -> dict[str, Any]:
        kernel = jax.random.normal(key, (image_shape[-1], num_classes), jnp.float32)
        return {"params": {"kernel": kernel}, "state": {}}

    def apply(variables: Any, batch: Any, *, train: bool, rng: Any = None) -> tuple[registry.Outputs, Any]:
        del rng
        image = batch["image"]
        seconds = len(image) * macs * (_TRAINING_PASSES if train else 1) / macs_per_second
        # Of the images, which have to be there; XLA must neither leave the call out nor know its result.
        wait = functools.partial(_wait, seconds)
        nothing = io_callback(wait, jax.ShapeDtypeStruct((), jnp.float32), image[0, 0, 0, 0])
        logits = image[:, 0, 0].astype(jnp.float32) / 255.0 @ variables["params"]["kernel"] + nothing
        return {"logits": logits, "embedding": logits}, variables["state"]

    return registry.Model(name, init, apply)


def _wait(seconds: float, byte: Any) -> np.ndarray:
    """Passes the time in which the device would be busy; Python's lock is free meanwhile."""
    del byte
    time.sleep(seconds)
    return np.zeros((), np.float32)


class Pixels(Source):
    """Images that lie ready in memory: `count` of them, which are a few again and again."""

    num_classes = 2
    has_splits = False

    def __init__(self, count: int, side: int) -> None:
        self.num_examples = count
        self.image_shape = (side, side, 3)
        self.label_of = np.arange(count) % 2
        self._pool = np.random.default_rng(0).integers(0, 256, (_POOL, *self.image_shape), np.uint8)

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`."""
        indices = checked_indices(indices, self.num_examples)
        labels = (indices % 2).astype(np.int32)
        return {"id": indices, "image": self._pool[indices % _POOL], "label": labels}


def pixels(argument: str, split: str, *, count: str = "65536", side: str = "224") -> Pixels:
    """`made_up_accelerator:pixels?count=N&side=N`, see `Pixels`."""
    del argument, split
    return Pixels(int(count), int(side))


def shards(argument: str, split: str, *, side: str = "224", factors: str = "1") -> Source:
    """`made_up_accelerator:shards:PATTERN`: as `tar:PATTERN?label=cls`, by a name of this module."""
    return specs.open_source(f"tar:{argument}?label=cls&size={side}&factors={factors}", split)


class _Probe:
    """Notes a process's CPU seconds by thread, and how often its parts were seen to wait, and for what.

    A line of JSON a second, `{"node", "time", "cpu": {thread: seconds}, "seen": {part: {wait: looks}}}`, all
    since the beginning. Threads that Python does not know, as those of gRPC and XLA, are "native".
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._process = psutil.Process()
        node = training_runs.node_name(self._process.cmdline())
        self._node = training_runs.LAUNCHER if node == "other" else node
        self._path = folder / f"{self._node.replace('/', '-')}.{self._process.pid}.jsonl"
        self._names: dict[int, str] = {}
        self._cpu: dict[int, float] = {}
        self._seen: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def run(self) -> None:
        """Notes until the process ends."""
        never = threading.Event()
        with self._path.open("a") as file:
            while True:
                for _ in range(_LOOKS_A_LINE):
                    never.wait(_LOOK_SECONDS)
                    self._look()
                file.write(json.dumps(self._line()) + "\n")
                file.flush()

    def _look(self) -> None:
        for said in activity.report().doing.split("; "):
            found = _PART.match(said)
            if found:
                self._seen[found["part"]][found["wait"] or ""] += 1

    def _line(self) -> dict[str, Any]:
        names = {thread.native_id: thread.name for thread in threading.enumerate() if thread.native_id}
        for thread in self._process.threads():
            self._names.setdefault(thread.id, _NUMBER.sub("", names.get(thread.id, "native")))
            self._cpu[thread.id] = thread.user_time + thread.system_time
        cpu: collections.Counter[str] = collections.Counter()
        for number, seconds in self._cpu.items():
            cpu[self._names[number]] += seconds
        return {"node": self._node, "time": time.time(), "cpu": cpu, "seen": self._seen}


_folder = os.environ.get(PROBES)
if _folder:
    threading.Thread(target=_Probe(pathlib.Path(_folder)).run, name=PROBE, daemon=True).start()
