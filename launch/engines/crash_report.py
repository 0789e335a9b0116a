"""Finds in a task's log what it said when it crashed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

_READ_BYTES = 256 * 1024
_TAIL_LINES = 20
_LONGEST = 16_000

_HEADER = re.compile(r"^Traceback \(most recent call last\):\n(?P<frame>.*\n)?", re.MULTILINE)
# Python puts one of these between the tracebacks of chained exceptions.
_CHAINED = re.compile(
    r"\n(The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):\n\s*\Z"
)
# The outermost frame of an exception that ended a task's process, which is a `python -m`.
# A traceback without it was only printed on the way, or came as text from another node.
_OUTERMOST = "in _run_module_as_main"
# Before Python's "Fatal Python error" stands the reason that C++ gave for aborting.
_LINES_BEFORE_FATAL = 5


def describe_exit(exit_status: int) -> str:
    """Says in words how a process ended.

    Args:
      exit_status: as `subprocess` has it: -N if signal N ended the process.
    """
    if exit_status >= 0:
        return f"exit status {exit_status}"
    number = -exit_status
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    hint = ", as the kernel does when memory runs out" if number == signal.SIGKILL else ""
    return f"killed by signal {number} ({name}{hint})"


def crash_text(log_path: Path, offset: int = 0) -> str:
    """Returns what a task said when it crashed, or else the end of its log.

    That is the traceback that ended it, with those it is chained to and with
    what was printed after it, or what Python's fault handler printed; the middle
    of a very long text is left out.

    Args:
      log_path: the task's log; may be missing.
      offset: where in the log this life of the task began, in bytes.
    """
    try:
        with log_path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(offset, log.tell() - _READ_BYTES))
            text = log.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    start = _fatal_start(text)
    if start is None:
        start = _traceback_start(text)
    if start is None:
        return "\n".join(text.rstrip().splitlines()[-_TAIL_LINES:])
    return _shortened(text[start:].rstrip())


def _fatal_start(text: str) -> int | None:
    position = text.rfind("Fatal Python error: ")
    for _ in range(_LINES_BEFORE_FATAL if position >= 0 else 0):
        position = max(0, text.rfind("\n", 0, max(0, position - 1)) + 1)
    return position if position >= 0 else None


def _traceback_start(text: str) -> int | None:
    headers = list(_HEADER.finditer(text))
    if not headers:
        return None
    fatal = [i for i, header in enumerate(headers) if _OUTERMOST in (header["frame"] or "")]
    first = fatal[-1] if fatal else len(headers) - 1
    while first > 0 and _CHAINED.search(text, headers[first - 1].start(), headers[first].start()):
        first -= 1
    return headers[first].start()


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
