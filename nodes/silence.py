"""When a data set has delivered nothing for so long that the run cannot go on."""

import logging
import time
from collections.abc import Callable

from classact.nodes import opening
from classact.nodes.errors import NoDataError

# Between two lines about a data set that is being opened.
_SAY_SECONDS = 60.0


class Silence:
    """How long a data set has delivered nothing although it is open."""

    def __init__(self, data_set: str, limit: float, opening_seconds: Callable[[str], float | None]) -> None:
        self._data_set = data_set
        self._limit = limit
        self._opening_seconds = opening_seconds
        self._seconds = 0.0
        self._since = self._said = time.monotonic()

    def goes_on(self, error: TimeoutError) -> None:
        """Counts what has passed; raises NoDataError past the limit."""
        now = time.monotonic()
        passed, self._since = now - self._since, now
        opening_for = self._opening_seconds(self._data_set)
        opens = ""
        if opening_for is not None:
            opens = f"; its run loops are opening their data, and last got on {opening_for:.0f} s ago"
            if now - self._said > _SAY_SECONDS:
                self._said = now
                logging.warning("no batch of %s yet%s", self._data_set, opens)
            if opening_for <= opening.LIMIT_SECONDS:
                return
        self._seconds += passed
        if self._seconds > self._limit:
            raise NoDataError(
                self._data_set,
                f"delivered no batch for {self._limit} s ({error}){opens}; "
                "see the logs of the run loops and inference servers",
            ) from None
