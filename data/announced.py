"""What may rightly take long is announced, so that a node which waits for it does not count as hanging.

`nodes.activity` hears it in a node; elsewhere nobody does.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

Announce = Callable[[str], contextlib.AbstractContextManager[None]]
Help = Callable[[], contextlib.AbstractContextManager[None]]


def _to_nobody(what: str) -> contextlib.AbstractContextManager[None]:
    del what
    return contextlib.nullcontext()


def _of_nobody() -> Help:
    return contextlib.nullcontext


# Who hears that a thread has got on, by the thread.
_progress: dict[int, tuple[Callable[[], None], ...]] = {}
_announce: Announce = _to_nobody
_helping: Callable[[], Help] = _of_nobody


def heard_by(announce: Announce, helping: Callable[[], Help]) -> None:
    """Tells who is to hear it in this process, and who gives `helping`."""
    global _announce, _helping
    _announce, _helping = announce, helping


def helping() -> Help:
    """What other threads enter while they work for the calling one, which waits for them.

    What they announce, and that they wait for a disk, then counts as the calling thread's.
    """
    return _helping()


def progressed() -> None:
    """Says that the calling thread has got on with opening data, whatever that takes in all."""
    for hear in _progress.get(threading.get_ident(), ()):
        hear()


@contextlib.contextmanager
def progress_heard_by(hear: Callable[[], None]) -> Iterator[None]:
    """Has `hear` called, while the context lasts, when the calling thread says that it has `progressed`."""
    thread = threading.get_ident()
    before = _progress.get(thread, ())
    _progress[thread] = (*before, hear)
    try:
        yield
    finally:
        if before:
            _progress[thread] = before
        else:
            del _progress[thread]


def waiting(what: str) -> contextlib.AbstractContextManager[None]:
    """Announces, while the context lasts, that the calling thread waits for something.

    Args:
        what: in words that follow "waiting for".
    """
    return _announce(what)
