"""Whether a replay server is alive."""

import time
from pathlib import Path

from classact.replay.server_calls import ReplayError, ServerCalls

_ANSWER_SECONDS = 2.0
# Of one core, in the time between two looks. A server that waits takes less, one that is at it more.
_BUSY_SHARE = 0.05
_TICKS = 100  # USER_HZ, of the clock in /proc, is 100 on every Linux.


class Alive:
    """Asks a server whether it is there; call it again and again.

    While it saves its tables or loads some it does not answer, but computes or waits for a disk.
    """

    def __init__(self, address: str, pid: int) -> None:
        """Takes where the server answers, and its process."""
        self._calls = ServerCalls(address)
        self._pid = pid
        self._looked = time.monotonic()
        self._cpu_seconds = 0.0

    def __call__(self) -> bool:
        """Blocks for two seconds at most."""
        try:
            self._calls.tables(_ANSWER_SECONDS)
        except ReplayError:
            return self._is_at_it()
        return True

    def _is_at_it(self) -> bool:
        ticks, disk = 0, False
        for stat in Path(f"/proc/{self._pid}/task").glob("*/stat"):
            try:
                fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            # The thread has ended.
            except OSError:
                continue
            disk = disk or fields[0] == "D"
            ticks += int(fields[11]) + int(fields[12])
        now, before, computed = time.monotonic(), self._looked, ticks / _TICKS - self._cpu_seconds
        self._looked, self._cpu_seconds = now, ticks / _TICKS
        return disk or computed > _BUSY_SHARE * (now - before)
