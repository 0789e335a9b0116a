"""Metrics of a node: one JSON line at a time, and the same scalars for TensorBoard."""

import json
import math
import os
import pathlib
import re
import threading
import time
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Optional, Union

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

Number = Union[int, float]

RESERVED_NAMES = ("step", "time")
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class MetricsWriter:
    """Appends a node's scalars to its metrics file and to its TensorBoard events.

    Each `write` adds one line `{"step": int, "time": seconds, "<name>": number}`
    to `<workdir>/metrics/<node>.jsonl` and one event to
    `<workdir>/tensorboard/<node>/`. JSON has no NaN and no infinity: a
    non-finite value is left out and counted as `"<name>/nonfinite": 1`, so that
    every value in the file is a number.

    A line reaches the operating system in one call before `write` returns, so
    a reader in another process sees it, and a crash of this one loses nothing.
    Only the last line can be cut short, by a full disk or a dead machine; a new
    writer on the same file then starts on a line of its own.

    Any number of threads may write. There is no thread or queue behind this
    class (tensorboardX's own `SummaryWriter` has both, and a process can hang on
    them at exit): it uses tensorboardX's record writer directly.
    """

    def __init__(self, workdir: Union[str, "os.PathLike[str]"], node: str) -> None:
        """Opens both files, and makes their directories.

        Args:
            workdir: the run directory.
            node: the node's name, for instance `learner` or `inference-train-0`.

        Raises:
            ValueError: if `node` cannot be a file's name.
            OSError: if the files cannot be made.
        """
        if not _NODE_NAME.fullmatch(node):
            raise ValueError(
                f"node={node!r} cannot name a metrics file: expected letters, digits, '.', '_' and '-', "
                "the first a letter or a digit"
            )
        root = pathlib.Path(workdir)
        self._path = root / "metrics" / f"{node}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        events = root / "tensorboard" / node
        events.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._lines = _open_for_lines(self._path)
        # The suffix keeps a restarted node from opening its former file, which
        # is named by the second.
        self._events = EventsWriter(str(events / "events"), f".{os.getpid()}.{time.monotonic_ns()}")
        self._events.flush()
        self._closed = False

    @property
    def path(self) -> pathlib.Path:
        """The metrics file."""
        return self._path

    def write(self, step: int, metrics: Mapping[str, Any], at: Optional[float] = None) -> None:
        """Appends one line and one event, and flushes both.

        Args:
            step: the learner step that the values belong to.
            metrics: name to number; a scalar array of NumPy or JAX counts as
                one (for a JAX array this blocks until it is computed).
            at: the line's time, unix seconds; None: now.

        Raises:
            ValueError: if a name is "step" or "time", or the writer is closed.
            TypeError: if a value is not one number.
            OSError: if the disk refuses the line.
        """
        now = time.time() if at is None else at
        numbers = _finite_numbers(metrics)
        record = {"step": int(step), "time": now, **numbers}
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        event = Event(wall_time=now, step=int(step))
        for name, number in numbers.items():
            clipped = max(-_FLOAT32_MAX, min(_FLOAT32_MAX, number))
            event.summary.value.append(Summary.Value(tag=name, simple_value=clipped))
        with self._lock:
            if self._closed:
                raise ValueError(f"the metrics writer of {self._path} is closed")
            _append(self._lines, line)
            self._events.write_event(event)
            self._events.flush()

    def close(self) -> None:
        """Closes both files; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lines.close()
            self._events.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()


class ExampleRecorder:
    """Appends which examples each update was made from to `trained_examples.jsonl`, a JSON line an update."""

    def __init__(self, workdir: pathlib.Path, scored: Collection[str] = ()) -> None:
        """Opens the file in a run directory.

        Args:
            workdir: the run directory.
            scored: the data sets of which scores are recorded too.

        Raises:
            OSError: if it cannot be made.
        """
        self._scored = frozenset(scored)
        self._lines = _open_for_lines(workdir / "trained_examples.jsonl")

    def __call__(
        self, step: int, ids: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray | None] | None = None
    ) -> None:
        """Writes `{"step": int, "<data set>": [ids], "score/<data set>": [numbers]}`.

        The last of them only of data sets that are scored. A run that went back repeats steps.

        Args:
            step: of the update.
            ids: int64[b] by data set.
            scores: float32[b] by data set, in the same order; None where there are none.

        Raises:
            OSError: if the disk refuses the line.
        """
        record: dict[str, Any] = {"step": step}
        for data_set, array in ids.items():
            record[data_set] = array.tolist()
            values = (scores or {}).get(data_set)
            if values is not None and data_set in self._scored:
                # As few digits as tell one float32 from the next.
                record[f"score/{data_set}"] = [float(str(value)) for value in values]
        _append(self._lines, (json.dumps(record) + "\n").encode())


def _open_for_lines(path: pathlib.Path) -> Any:
    """Opens a file for unbuffered appending, at the start of a line; a pipe has no end to look at."""
    file = open(path, "ab", buffering=0)  # noqa: SIM115 (its owner closes it)
    if file.seekable() and file.tell() > 0:
        with open(path, "rb") as existing:
            existing.seek(-1, os.SEEK_END)
            if existing.read(1) != b"\n":
                file.write(b"\n")
    return file


def _append(file: Any, line: bytes) -> None:
    """Writes all of a line: on a disk that is nearly full one call writes what fits, and says nothing."""
    while line:
        line = line[file.write(line) :]


def _finite_numbers(metrics: Mapping[str, Any]) -> dict[str, Number]:
    """Returns the metrics as Python numbers, non-finite ones replaced by their marker."""
    numbers: dict[str, Number] = {}
    for name, value in metrics.items():
        if name in RESERVED_NAMES:
            raise ValueError(f"a metric cannot be named {name!r}: every line has that field already")
        number = _as_number(name, value)
        if math.isfinite(number):
            numbers[name] = number
        else:
            numbers[f"{name}/nonfinite"] = 1
    return numbers


def _as_number(name: str, value: Any) -> Number:
    """Converts a Python, NumPy or JAX scalar; whole numbers stay whole."""
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, float):
        return float(value)
    array = np.asarray(value)
    if array.ndim or array.dtype.kind in "OSUVMmc":
        raise TypeError(f"metric {name!r} is {value!r}, expected one number")
    return int(array) if array.dtype.kind in "biu" else float(array)
