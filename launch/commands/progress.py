"""Shows how a run gets on, from the metrics files that its nodes write.

The launcher reads what is on disk and asks no node anything, so the display is
the same for threads, processes and clusters, and cannot disturb the run: a
file that is missing, half-written or odd only means that less is shown.
"""

import contextlib
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Optional, Union

import rich.console
import rich.live
import rich.panel
import rich.progress_bar
import rich.table
import rich.text

_REFRESH_SECONDS = 0.5
_PLAIN_SECONDS = 10.0
# A run of days should not print a line every ten seconds: at most about twenty
# lines while the elapsed time grows by a factor of e.
_PLAIN_SHARE_OF_ELAPSED = 1 / 20
_RECENT_RATES = 5
# Without news of the learner for so long, something may hang, a file system for instance.
_SILENT_SECONDS = 60.0
_JOIN_SECONDS = 5.0
# One metric of each kind of evaluator, and what follows the evaluator's name.
_SHOWN = {"top1": "", "zero_shot_top1": "", "i2t_r1": " R@1"}


class Tail:
    """The records of a metrics file, as they are appended."""

    def __init__(self, path: Union[str, "os.PathLike[str]"], *, skip_existing: bool = False) -> None:
        """Starts at the beginning of the file, which need not exist yet, or at its present end."""
        self._path = pathlib.Path(path)
        self._rest = b""
        self._offset = 0
        if skip_existing:
            with contextlib.suppress(OSError):
                self._offset = self._path.stat().st_size

    def read(self) -> list[dict[str, Any]]:
        """Returns the whole records since the last call; never raises for what is in the file.

        A file that has become shorter was begun anew, and is read from its start.
        """
        try:
            with open(self._path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset, self._rest = 0, b""
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [record for record in map(_parse, lines) if record is not None]


def _parse(line: bytes) -> Optional[dict[str, Any]]:
    """Returns a line's record, or None if it is not one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _number(record: Mapping[str, Any], name: str) -> Optional[float]:
    """Returns a metric, or None if the record lacks it."""
    value = record.get(name)
    return float(value) if isinstance(value, (int, float)) else None


class RunState:
    """What the records so far say about the run; no input, no output."""

    def __init__(self, total_steps: int) -> None:
        """Starts at step 0 of `total_steps`."""
        self.total_steps = total_steps
        self.step = 0
        self.evaluations: dict[str, tuple[int, float]] = {}
        self._latest: dict[str, float] = {}
        self._seconds_per_step: list[float] = []

    @property
    def share(self) -> float:
        """The share of the steps that is done, from 0 to 1."""
        return min(1.0, self.step / self.total_steps) if self.total_steps > 0 else 0.0

    @property
    def examples_per_second(self) -> Optional[float]:
        """Examples trained on a second in the latest interval."""
        seconds, examples = self._interval_seconds(), self._latest.get("train/examples")
        return examples / seconds if seconds and examples is not None else None

    @property
    def wait_share(self) -> Optional[float]:
        """The share of the latest interval in which the learner waited for data."""
        seconds, wait = self._interval_seconds(), self._latest.get("train/data_wait_seconds")
        return wait / seconds if seconds and wait is not None else None

    @property
    def seconds_left(self) -> Optional[float]:
        """Time to the last step at the pace of the last few intervals."""
        if not self._seconds_per_step:
            return None
        pace = sum(self._seconds_per_step) / len(self._seconds_per_step)
        return max(0, self.total_steps - self.step) * pace

    def add_learner_record(self, record: Mapping[str, Any]) -> None:
        """Takes in a record of the learner."""
        step = _number(record, "step")
        if step is None:
            return
        numbers = {name: value for name in record if (value := _number(record, name)) is not None}
        self._latest = {**self._latest, **numbers}
        if "train/loss" in numbers:
            self._latest.pop("train/loss/nonfinite", None)
        elif "train/loss/nonfinite" in numbers:
            self._latest.pop("train/loss", None)
        seconds = self._interval_seconds()
        if step > self.step and self.step > 0 and "train/step_seconds" in numbers and seconds:
            self._seconds_per_step.append(seconds / (step - self.step))
            del self._seconds_per_step[:-_RECENT_RATES]
        self.step = int(step)

    def add_evaluation(self, record: Mapping[str, Any]) -> None:
        """Takes in a record of an evaluator."""
        step = _number(record, "step")
        for name in record:
            value = _number(record, name)
            parts = name.split("/")
            shown = len(parts) == 3 and parts[0] == "eval" and parts[2] in _SHOWN
            if shown and step is not None and value is not None:
                trained_on = record.get(f"eval/{parts[1]}/on_training_data")
                where = " (training data)" if trained_on else ""
                self.evaluations[f"{parts[1]}{_SHOWN[parts[2]]}{where}"] = (int(step), value)

    def facts(self) -> list[str]:
        """The run's figures as short phrases, those that are known."""
        latest = self._latest
        phrases: list[str] = []
        if self.examples_per_second is not None:
            phrases.append(f"{self.examples_per_second:,.0f} examples/s")
        if "train/loss/nonfinite" in latest:
            phrases.append("loss not finite")
        elif "train/loss" in latest:
            phrases.append(f"loss {latest['train/loss']:.3f}")
        if "train/top1" in latest:
            phrases.append(f"train {100 * latest['train/top1']:.1f} %")
        for evaluator, (step, value) in sorted(self.evaluations.items()):
            phrases.append(f"{evaluator} {100 * value:.1f} % (step {step:,})")
        if self.wait_share is not None:
            phrases.append(f"learner waits {100 * self.wait_share:.0f} %")
        if "selection/staleness_steps" in latest:
            phrases.append(f"staleness {latest['selection/staleness_steps']:.1f} steps")
        return phrases

    def _interval_seconds(self) -> Optional[float]:
        """The latest interval's length, by the learner's own clock."""
        step = self._latest.get("train/step_seconds")
        return None if step is None else step + self._latest.get("train/data_wait_seconds", 0.0)


class Progress:
    """Shows a run's progress while the context lasts.

    On a terminal one live panel; elsewhere plain lines, one for each tenth of
    the steps and one every ten seconds (more seldom as the run goes on).

    A thread reads the files twice a second. It ends when the context does, and
    nothing that it meets (a file that cannot be read, a terminal that has gone)
    reaches the run.
    """

    def __init__(
        self,
        workdir: Union[str, "os.PathLike[str]"],
        total_steps: int,
        console: Optional[rich.console.Console] = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Notes where the metrics files end now: what is in them is an earlier attempt's.

        Args:
            workdir: the run directory; it need not exist yet.
            total_steps: learner steps of the whole run.
            console: where to show it; standard output by default.
            clock: seconds, for tests.
        """
        self.state = RunState(total_steps)
        self._metrics = pathlib.Path(workdir) / "metrics"
        self._title = pathlib.Path(workdir).name
        self._console = console or rich.console.Console()
        self._clock = clock
        self._start = self._heard_at = clock()
        self._learner = Tail(self._metrics / "learner.jsonl", skip_existing=True)
        self._evaluators: dict[str, Tail] = {}
        self._find_evaluators(skip_existing=True)
        self._live: Optional[rich.live.Live] = None
        self._printed_at, self._printed_line, self._printed_tenth = self._start, "", 0
        # Left by an error before anything was heard of: there is no run to show.
        self._unstarted = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._unstarted = kind is not None and self.state.step == 0
        self._stop.set()
        self._thread.join(_JOIN_SECONDS)

    def poll(self, last: bool = False) -> None:
        """Reads what is new and shows it, if it is time to; `last` shows it in any case."""
        self._find_evaluators()
        for record in self._learner.read():
            self.state.add_learner_record(record)
            self._heard_at = self._clock()
        for tail in self._evaluators.values():
            for record in tail.read():
                self.state.add_evaluation(record)
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)
        else:
            self._print_when_due(last)

    def line(self) -> str:
        """The progress as one line of text."""
        state = self.state
        parts = [f"step {state.step:,}/{state.total_steps:,} ({100 * state.share:.0f} %)"]
        return " | ".join([*parts, *self._facts(), self._times()])

    def _run(self) -> None:
        """Polls until the context ends; a terminal that has gone ends the display alone.

        All writing to the console happens on this thread, since rich answers a
        broken pipe with SystemExit, which must not end the launcher.
        """
        # ValueError: the stream was closed. There is nowhere left to say so.
        with contextlib.suppress(OSError, ValueError, SystemExit), contextlib.ExitStack() as stack:
            if self._console.is_terminal:
                live = rich.live.Live(self._panel(), console=self._console, auto_refresh=False)
                self._live = stack.enter_context(live)
            while not self._stop.wait(_REFRESH_SECONDS):
                self.poll()
            if self._live is not None:
                self._live.transient = self._unstarted
            self.poll(last=not self._unstarted)

    def _find_evaluators(self, skip_existing: bool = False) -> None:
        """Follows the evaluators' files; one that appears later is read from its start."""
        for path in sorted(self._metrics.glob("evaluator-*.jsonl")):
            if path.name not in self._evaluators:
                self._evaluators[path.name] = Tail(path, skip_existing=skip_existing)

    def _print_when_due(self, last: bool) -> None:
        """Prints a line at each tenth of the steps, or when the last one is long ago."""
        now = self._clock()
        tenth = int(10 * self.state.share)
        interval = max(_PLAIN_SECONDS, (now - self._start) * _PLAIN_SHARE_OF_ELAPSED)
        due = tenth > self._printed_tenth or now - self._printed_at >= interval
        line = self.line()
        if (due or last) and line != self._printed_line:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._printed_at, self._printed_line, self._printed_tenth = now, line, tenth

    def _panel(self) -> rich.console.RenderableType:
        """The live display: a bar with the steps and the times, and the figures below it."""
        state = self.state
        head = rich.table.Table.grid(padding=(0, 2), expand=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        bar = rich.progress_bar.ProgressBar(total=max(1, state.total_steps), completed=state.step)
        head.add_row(bar, f"step {state.step:,}/{state.total_steps:,}  {self._times()}")
        facts = rich.text.Text(" | ".join(self._facts()))
        return rich.panel.Panel(
            rich.console.Group(head, facts), title=self._title, title_align="left", border_style="dim"
        )

    def _facts(self) -> list[str]:
        """The run's figures, and that there is no news of the learner where that is so."""
        facts = self.state.facts()
        if not facts:
            return ["waiting for the learner"]
        silent = self._clock() - self._heard_at
        return (
            facts if silent < _SILENT_SECONDS else [*facts, f"no news of the learner for {_duration(silent)}"]
        )

    def _times(self) -> str:
        """How long the run has taken, and how long it will."""
        elapsed = _duration(self._clock() - self._start)
        left = self.state.seconds_left
        return elapsed if left is None else f"{elapsed}, {_duration(left)} left"


def _duration(seconds: float) -> str:
    """Formats a time as 0:42 or 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
