"""The parts of `accelerator.py`: models, made-up images, and what is timed of them."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import device_timing
import jax
import numpy as np
from device_timing import Budget, Timing

from classact.experiments import ledger
from classact.models import cost, registry, vit
from classact.nodes import scoring, synchronous, training
from classact.selection import losses, policies

_NAME = "made_up"
_CLASSACT = policies.get("classact")
# Of the learner, whose parameters score.
_STEP = np.int32(0)
# Updates of the loop before those that count: compilation, and a pipeline that fills.
_LOOP_WARM_UP = 3
# Super-batches that the host gives out in turn.
_POOL = 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured; see `parser`."""

    learner: str
    scorers: tuple[str, ...]
    image_size: int
    patch_size: int
    classes: int
    batch_size: int
    filter_ratio: float
    sweep: tuple[int, ...]
    dtype: str
    remat: bool
    peak_tflops: float | None
    part_seconds: float

    @property
    def super_batch_size(self) -> int:
        """B, images that are scored for an update."""
        return round(self.batch_size / (1.0 - self.filter_ratio))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of an image."""
        return (self.image_size, self.image_size, 3)


@dataclasses.dataclass
class Row:
    """One measured part.

    Attributes:
        part: what was measured.
        model: whose; of a scorer's parts the scorer's.
        batch: examples that one call takes: those trained on, or those scored where nothing is trained.
        seconds: of a call, the median; None if it did not fit the device's memory.
        low: of the fastest repeat.
        high: of the slowest one.
        macs: multiply-accumulates of a call.
        examples_per_second: by the median.
        mfu: share of the peak rate; None if that is unknown.
        compile_seconds: until the function was compiled.
        memory_bytes: that it needs; None if unknown.
        not_the_devices: of `loop`, the share of its time in which the device had nothing to do.
        note: what is to be known.
    """

    part: str
    model: str
    batch: int
    macs: float
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    examples_per_second: float | None = None
    mfu: float | None = None
    compile_seconds: float | None = None
    memory_bytes: int | None = None
    not_the_devices: float | None = None
    note: str = ""


class Benchmark:
    """One measurement: its models, its rows so far, and what was left out."""

    def __init__(self, sizes: Sizes, budget: Budget) -> None:
        """Builds the models; computes nothing."""
        self.rows: list[Row] = []
        self.skipped: list[str] = []
        self.device = jax.devices()[0]
        self.peak_tflops = sizes.peak_tflops or device_timing.peak_tflops(self.device.device_kind)
        self._sizes = sizes
        self._budget = budget
        self._task = losses.Classification()
        self._models = {name: self._model(name) for name in (sizes.learner, *sizes.scorers)}
        self._macs = {
            name: cost.forward_macs(model, sizes.image_shape) for name, model in self._models.items()
        }

    def run(self) -> None:
        """Measures all, as long as there is time."""
        self._part("update", self._sizes.learner, self._update)
        for scorer in self._sizes.scorers:
            self._part("score", scorer, self._score)
            self._part("update + online", scorer, self._update)
            self._part("loop", scorer, self._loop)
        for scorer in self._sizes.scorers:
            for batch in self._sizes.sweep:
                self._part("forward", scorer, self._forward, batch)

    def report(self, cut: str = "") -> dict[str, Any]:
        """All that was found, for JSON.

        Args:
            cut: what was not finished in time.
        """
        return {
            "device": self.device.device_kind,
            "platform": self.device.platform,
            "devices": jax.device_count(),
            "jax": jax.__version__,
            "peak_tflops": self.peak_tflops,
            "sizes": dataclasses.asdict(self._sizes),
            "forward_macs": self._macs,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "process_memory": device_timing.memory_seen(self.device),
            "left_out": [*([cut] if cut else []), *self.skipped],
        }

    def _part(self, part: str, model: str, measure: Callable[[Row], None], batch: int = 0) -> None:
        """Makes a row of a part, if there is time, and whether it fits the device's memory or not."""
        row = Row(part, model, batch or self._batch_of(part), self._macs_of(part, model, batch))
        kind = "score" if part in ("score", "forward") else "train"
        if not self._budget.allows(kind):
            self.skipped.append(f"{part} {model} {row.batch}")
            return
        print(f"{part} {model} {row.batch} …", file=sys.stderr, flush=True)
        try:
            self._budget.spend(kind, lambda: measure(row))
        except jax.errors.JaxRuntimeError as error:
            if not device_timing.out_of_memory(error):
                raise
            row.note = "does not fit the device's memory"
        self.rows.append(row)

    def _update(self, row: Row) -> None:
        trained = self._trained(None if row.part == "update" else row.model)
        batches = {_NAME: self._images(row.batch)}
        # As in the loop, whose update it is: an argument that is not used is not there.
        read = {_NAME: self._images(self._sizes.super_batch_size)}
        state = training.init_state(trained, 0)
        compiled = self._compiled(row, training.make_update(trained, self._task), state, batches, read)

        def call() -> Any:
            nonlocal state
            # The state before has been given away.
            state, metrics = compiled(state, batches, read)
            return metrics

        self._time(row, call)

    def _score(self, row: Row) -> None:
        model, batch = self._models[row.model], self._images(row.batch)
        score = scoring.make_scorer(_CLASSACT, self._task, {"online": model, "reference": model})
        variables = {
            role: self._variables(row.model, seed) for seed, role in enumerate(("online", "reference"))
        }
        compiled = self._compiled(row, score, variables, batch, _STEP)
        self._time(row, lambda: compiled(variables, batch, _STEP))

    def _forward(self, row: Row) -> None:
        batch = self._images(row.batch)
        policy = policies.get("easy_reference")
        score = scoring.make_scorer(policy, self._task, {"reference": self._models[row.model]})
        variables = {"reference": self._variables(row.model, 0)}
        compiled = self._compiled(row, score, variables, batch, _STEP)
        self._time(row, lambda: compiled(variables, batch, _STEP))

    def _loop(self, row: Row) -> None:
        """The synchronous launch's own loop; each of its updates waits for the metrics of the one before."""
        times: list[float] = []
        deadline = time.monotonic() + max(self._sizes.part_seconds, 0.0)

        def on_step(*step: Any) -> None:
            del step
            times.append(time.perf_counter())
            counted = len(times) - _LOOP_WARM_UP
            if counted == 0:
                nonlocal deadline
                deadline = time.monotonic() + min(self._sizes.part_seconds, self._budget.left)
            if counted > 1 and time.monotonic() > deadline:
                raise _EnoughError

        started = time.perf_counter()
        data_set = synchronous.DataSet(
            _CLASSACT,
            self._stream(),
            self._sizes.batch_size,
            temperature=1.0,
            fixed={"reference": (self._models[row.model], self._variables(row.model, 1))},
        )
        trained = self._trained(row.model)
        with contextlib.suppress(_EnoughError):
            synchronous.train(
                {_NAME: data_set}, self._task, trained, steps=_optimizer().steps, seed=0, on_step=on_step
            )
        steps = np.diff(times[_LOOP_WARM_UP - 1 :])
        row.compile_seconds = times[0] - started
        self._fill(row, Timing(float(np.median(steps)), steps.min(), steps.max(), len(steps), 1))
        alone = [self._found(part, row.model) for part in ("score", "update + online")]
        if row.seconds is not None and all(alone):
            row.not_the_devices = 1.0 - sum(seconds for seconds in alone if seconds) / row.seconds

    def _compiled(self, row: Row, function: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        compiled = function.lower(*arguments).compile()
        row.compile_seconds = time.perf_counter() - started
        row.memory_bytes = device_timing.memory_of(compiled)
        return compiled

    def _time(self, row: Row, call: Callable[[], Any]) -> None:
        seconds = max(0.0, min(self._sizes.part_seconds, self._budget.left))
        self._fill(row, device_timing.time_calls(call, seconds))

    def _fill(self, row: Row, timing: Timing) -> None:
        row.seconds, row.low, row.high = timing.median, float(timing.low), float(timing.high)
        row.examples_per_second = row.batch / timing.median
        if self.peak_tflops is not None:
            row.mfu = 2 * row.macs / timing.median / (self.peak_tflops * 1e12)

    def _found(self, part: str, model: str) -> float | None:
        return next((row.seconds for row in self.rows if (row.part, row.model) == (part, model)), None)

    def _batch_of(self, part: str) -> int:
        return self._sizes.super_batch_size if part == "score" else self._sizes.batch_size

    def _macs_of(self, part: str, model: str, batch: int) -> float:
        """Multiply-accumulates of a call, as the ledger counts them."""
        sizes = self._sizes
        learner, own = self._macs[sizes.learner], self._macs[model]
        scored = ledger.acting_cost(_CLASSACT, learner, own) * sizes.super_batch_size
        update = ledger.TRAINING_PASSES * learner * sizes.batch_size
        online = ledger.TRAINING_PASSES * own * sizes.batch_size
        found = {
            "update": update,
            "update + online": update + online,
            "score": scored,
            "loop": update + online + scored,
            "forward": own * batch,
        }
        return float(found[part])

    def _model(self, name: str) -> registry.Model:
        sizes = self._sizes
        # Not `registry.create`, which imports every family of models.
        return vit.build(
            name,
            sizes.classes,
            sizes.image_shape,
            sizes.patch_size,
            dtype=sizes.dtype,
            remat=sizes.remat and name == sizes.learner,
        )

    def _variables(self, name: str, seed: int) -> Any:
        return self._models[name].init(jax.random.key(seed))

    def _trained(self, scorer: str | None) -> dict[str, training.TrainedModel]:
        names = {"learner": self._sizes.learner, **({"online": scorer} if scorer else {})}
        return {
            role: training.TrainedModel(self._models[name], _optimizer(), {_NAME: 1.0})
            for role, name in names.items()
        }

    def _images(self, number: int) -> dict[str, jax.Array]:
        """Random images and labels, made on the device."""
        shape, classes = (number, *self._sizes.image_shape), self._sizes.classes
        image, label = jax.random.split(jax.random.key(0))
        return {
            "image": jax.jit(lambda: jax.random.bits(image, shape, np.uint8))(),
            "label": jax.random.randint(label, (number,), 0, classes, np.int32),
        }

    def _stream(self) -> Iterator[dict[str, np.ndarray]]:
        """Super-batches of random images, made on the host beforehand."""
        rng = np.random.default_rng(0)
        number, shape = self._sizes.super_batch_size, self._sizes.image_shape
        pool = [
            {
                "id": np.arange(number, dtype=np.int64),
                "image": rng.integers(0, 256, (number, *shape), np.uint8),
                "label": rng.integers(0, self._sizes.classes, number, np.int32),
            }
            for _ in range(_POOL)
        ]
        while True:
            yield from pool


class _EnoughError(Exception):
    """Enough updates have been timed."""


def _optimizer() -> training.OptimizerConfig:
    # So low that noise is not learned by heart, and nothing diverges.
    return training.OptimizerConfig(learning_rate=1e-5, steps=1_000_000, warmup_steps=0)
