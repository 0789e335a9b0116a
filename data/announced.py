"""What may rightly take long is announced, so that a node which waits for it does not count as hanging.

`nodes.activity` hears it in a node; elsewhere nobody does.
"""

import contextlib
from collections.abc import Callable

Announce = Callable[[str], contextlib.AbstractContextManager[None]]


def _to_nobody(what: str) -> contextlib.AbstractContextManager[None]:
    del what
    return contextlib.nullcontext()


_announce: Announce = _to_nobody


def heard_by(announce: Announce) -> None:
    """Tells who is to hear it in this process."""
    global _announce
    _announce = announce


def waiting(what: str) -> contextlib.AbstractContextManager[None]:
    """Announces, while the context lasts, that the calling thread waits for something.

    Args:
        what: in words that follow "waiting for".
    """
    return _announce(what)
