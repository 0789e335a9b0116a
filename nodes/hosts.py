"""How the hosts of one learner leave together, and share what one of them had read."""

import collections
import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from classact.nodes import activity


class Hosts[Drawn]:
    """Makes several hosts leave after the same update; `Drawn` is what a host trains on in one.

    An update waits for all hosts, so none may leave by itself. With each update a
    host tells whether it is stopped, and reads what all told with the last one, so
    that it does not wait. One that is stopped without a new batch trains once or
    twice more on its last one: the run is over, and its parameters are nobody's
    result.
    """

    def __init__(self, any_host: Callable[[bool], Any]) -> None:
        """Starts with the first update.

        Args:
            any_host: of `mesh.any_host`.
        """
        self._any_host = any_host
        self._told: collections.deque[Any] = collections.deque()
        self._last: Drawn | None = None

    def agree(self, drawn: Drawn | None) -> Drawn | None:
        """What to train on, given what was drawn (None: stopped); None if all leave.

        Blocks until every host has called it as often as this one, but for the last
        call; the first time, when there is no last batch, also for that.
        """
        self._told.append(self._any_host(drawn is None))
        if (self._last is None or len(self._told) > 1) and bool(self._told.popleft()):
            return None
        self._last = self._last if drawn is None else drawn
        return self._last

    def part(self) -> None:
        """Blocks until all hosts have called it: JAX ends a host whose others are gone."""
        bool(self._any_host(True))


def waiting(hosts: Hosts[Any] | None) -> contextlib.AbstractContextManager[None]:
    """Announces that all hosts may be waited for; does nothing with one alone."""
    return contextlib.nullcontext() if hosts is None else activity.waiting("the other hosts")


def of_host(records: np.ndarray, batch_size: int, hosts: int, host: int) -> np.ndarray:
    """One host's rows of what a learner on a single host had read ahead.

    Args:
        records: uint8[n · batch_size, bytes].
        batch_size: of all hosts together.
        hosts: how many train together now.
        host: which of them.

    Returns:
        uint8[n · batch_size / hosts, bytes], other rows for each host.
    """
    parts = records.reshape(-1, hosts, batch_size // hosts, records.shape[-1])
    return parts[:, host].reshape(-1, records.shape[-1])
