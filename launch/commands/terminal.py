"""What commands say on the terminal, and how they hear that they should stop."""

import re
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from classact.launch.commands.arguments import UsageError

if TYPE_CHECKING:
    from classact.launch.engines.outcome import Outcome

# What bad input is in the traceback of a node that was the first to see it.
_REFUSAL = re.compile(
    r"^classact\.(experiments\.checks\.ConfigError|data\.source\.DataError): (?P<said>.+)", re.MULTILINE
)


def complain(message: str) -> int:
    """Prints one line on what was wrong; returns the exit status of bad input."""
    print(f"classact: {' '.join(message.split())}", file=sys.stderr)
    return 2


def say_first(lines: Sequence[str]) -> None:
    """Prints what a command says before it starts anything."""
    for line in lines:
        print(f"classact: {line}", file=sys.stderr, flush=True)


def say_how_it_ended(outcome: "Outcome") -> None:
    """Prints what there is to say of a run.

    Raises:
        UsageError: if bad input has ended it, which only a node could find.
    """
    refusal = _REFUSAL.search(outcome.traceback)
    if refusal:
        raise UsageError(f"{refusal['said']} (found by task {outcome.failed_task})")
    # That numbers grow out of bounds is no fault at the place where it is found.
    if outcome.traceback and outcome.diverged is None:
        print(outcome.traceback, file=sys.stderr)
    if outcome.message:
        print(f"classact: {outcome.message}", file=sys.stderr)
    if outcome.stuck:
        print(f"classact: did not stop in time: {', '.join(outcome.stuck)}", file=sys.stderr)


def stop_on_signals() -> tuple[threading.Event, list[int]]:
    """An event that SIGINT, SIGTERM and SIGHUP (but under nohup) set, and the signals that came."""
    stopped: list[int] = []
    stop = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        del frame
        stopped.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    return stop, stopped
