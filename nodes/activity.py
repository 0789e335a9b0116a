"""What a node is doing now: that its process lives does not mean that it gets on.

A thread that has to get on is a `part` of its node, and says so whenever it has `progressed`.
Whoever watches over the process (`launch/engines/heartbeat.py`) ends and restarts it when a
part has not for too long. What may rightly take long is announced:

    with activity.busy("building an index"): …         the work itself takes long
    with activity.waiting("the other hosts"): …        others have to do something first

Both may be used in code of your own, such as a data source or a model: where no part of a node
runs them, they do nothing. XLA's compilation, and a thread that waits for a disk, are seen
without being announced.
"""

import contextlib
import dataclasses
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from classact.data import announced

# In whose frames JAX hands a program to XLA, and reads its cache of compiled ones.
_COMPILER = "jax/_src/compiler.py"
# A part that has not got on for so long says where in its code it is.
_PLACE_SECONDS = 3.0
# Between two times that somebody else's server is asked whether it is alive.
_ASK_SECONDS = 2.0


class _Part:
    """A thread that has to get on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.thread = threading.get_ident()
        self.native_id = threading.get_native_id()
        self.count = 0
        self.since = time.monotonic()
        # What it has announced, the innermost last, and since when.
        self.announced: list[tuple[str, float]] = []
        # Threads that work for it while it waits for them.
        self.helpers: set[int] = set()

    def progressed(self) -> None:
        self.count += 1
        self.since = time.monotonic()


@dataclasses.dataclass(frozen=True)
class Report:
    """What a node says of itself.

    Attributes:
        stuck_seconds: for how long a part of it has not got on although it had work; of several
            parts the longest.
        doing: what each part does, in words.
    """

    stuck_seconds: float
    doing: str


_lock = threading.Lock()
_parts: dict[int, _Part] = {}
# By the thread that works for it.
_helped: dict[int, _Part] = {}


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Makes the calling thread a part of its node as long as the context lasts.

    Args:
        name: what the part does, for people.
    """
    own = _Part(name)
    with _lock:
        before = _parts.get(own.thread)
        _parts[own.thread] = own
    try:
        yield
    finally:
        with _lock:
            if before is None:
                del _parts[own.thread]
            else:
                _parts[own.thread] = before


def progressed() -> None:
    """Says that the calling thread has got on; cheap, and nothing where it is no part of a node."""
    own = _parts.get(threading.get_ident())
    if own is not None:
        own.progressed()


def busy(what: str) -> contextlib.AbstractContextManager[None]:
    """Announces work of the calling thread that may take long, and during which it does not get on.

    Args:
        what: in words that follow "it is", for instance "saving a checkpoint".
    """
    return _announced(what)


def waiting(what: str) -> contextlib.AbstractContextManager[None]:
    """Announces that the calling thread waits for something that others have to do.

    Args:
        what: in words that follow "waiting for".
    """
    return _announced(f"waiting for {what}")


@contextlib.contextmanager
def _announced(what: str) -> Iterator[None]:
    thread = threading.get_ident()
    own = _parts.get(thread) or _helped.get(thread)
    if own is None:
        yield
        return
    said = (what, time.monotonic())
    own.announced.append(said)
    try:
        yield
    finally:
        # Not the last one: several threads may have announced something for one part.
        own.announced.remove(said)
        own.since = time.monotonic()


def helping() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """See `data.announced.helping`."""
    own = _parts.get(threading.get_ident())
    return contextlib.nullcontext if own is None else functools.partial(_helps, own)


@contextlib.contextmanager
def _helps(own: _Part) -> Iterator[None]:
    thread, native_id = threading.get_ident(), threading.get_native_id()
    with _lock:
        _helped[thread] = own
        own.helpers.add(native_id)
    try:
        yield
    finally:
        with _lock:
            del _helped[thread]
            own.helpers.discard(native_id)


def attend(
    name: str, alive: Callable[[], bool], stop: threading.Event, seconds: float = _ASK_SECONDS
) -> None:
    """Is a part of the node that gets on as long as something else is alive; blocks until `stop`.

    Args:
        name: of what is alive, for instance "the server of the tables".
        alive: asks it, within seconds; False if it did not answer.
        stop: ends this.
        seconds: between two times that it is asked.
    """
    with part(name):
        while not stop.wait(seconds):
            if alive():
                progressed()


def excuse(seconds: float) -> None:
    """Forgives all parts some of the time in which they have not got on; nothing if it is negative."""
    now = time.monotonic()
    with _lock:
        for own in _parts.values():
            own.since = min(now, own.since + max(0.0, seconds))


def report() -> Report:
    """Says what the parts of this process do; called by a thread that is none of them."""
    with _lock:
        parts = list(_parts.values())
    frames = sys._current_frames()
    now = time.monotonic()
    stuck, said = 0.0, []
    for own in parts:
        doing, seconds = _doing(own, frames.get(own.thread), now)
        stuck = max(stuck, seconds)
        said.append(f"{own.name}: {doing}")
    return Report(stuck, "; ".join(said) or "starting or ending")


def _doing(own: _Part, frame: FrameType | None, now: float) -> tuple[str, float]:
    """What a part does in words, and for how long it has not got on with it."""
    # Its thread may take it back at any moment.
    announced = own.announced[-1:]
    if announced:
        what, since = announced[0]
        return f"{what} for {now - since:.0f} s", 0.0
    if _compiles(frame):
        own.since = now
        return "compiling", 0.0
    with _lock:
        threads = (own.native_id, *own.helpers)
    if any(map(_waits_for_a_disk, threads)):
        own.since = now
        return "waiting for a disk", 0.0
    seconds = max(0.0, now - own.since)
    where = ""
    if frame is not None and seconds >= _PLACE_SECONDS:
        code = frame.f_code
        where = f", in {code.co_filename}, line {frame.f_lineno} ({code.co_name})"
    return f"working, {own.count} done, the last {seconds:.0f} s ago{where}", seconds


def _compiles(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith(_COMPILER):
            return True
        frame = frame.f_back
    return False


def _waits_for_a_disk(native_id: int) -> bool:
    try:
        with open(f"/proc/self/task/{native_id}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "D"
    # The thread has ended.
    except (OSError, IndexError):
        return False


# Data are below nodes; they fetch what is far away, and decode in threads of their own.
announced.heard_by(waiting, helping)
