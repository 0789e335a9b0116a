"""The learner of a run as those call it who join the run from outside."""

import json
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from classact import calls
from classact.calls import keys
from classact.launch.assembly import joined_run, rpc

# How long a call may take beyond what it was asked to wait.
_CALL_SECONDS = 20.0


class Learner:
    """The learner of a running experiment; its calls end when the experiment does."""

    def __init__(self, workdir: pathlib.Path, stop: threading.Event) -> None:
        """Takes the run directory, and what ends a wait for a learner that is silent."""
        self._workdir = workdir
        self._stop = stop
        self._client: rpc.LearnerClient | None = None

    def get_parameters(
        self, names: Sequence[str], newer_than: int, timeout: float, follow: bool = False
    ) -> tuple[int, bool, dict[str, memoryview]] | None:
        """See `Learner.get_parameters`; asks again for three minutes where nobody answers.

        Raises:
            joined_run.EndedError: if nobody answers and the run has ended, or `stop` is set.
            joined_run.AttachError: if nobody answers for three minutes.
        """
        return self._ask(timeout, lambda client: client.get_parameters(names, newer_than, timeout, follow))

    def get_step(self) -> int:
        """See `Learner.get_step`; asks again, and raises, as `get_parameters`."""
        return self._ask(_CALL_SECONDS, lambda client: client.get_step())

    def get_clock(self, data_set: str, shard: int) -> str:
        """See `Learner.get_clock`; asks once.

        Raises:
            RuntimeError, OSError: if nobody answers.
        """
        try:
            return self._connected(_CALL_SECONDS).get_clock(data_set, shard)
        except rpc.RpcError:
            # As in `_ask`: an actor whose models never change asks for nothing else.
            self._client = None
            raise

    def _ask(self, timeout: float, ask: Callable[[rpc.LearnerClient], Any]) -> Any:
        silent_since = time.monotonic()
        while True:
            try:
                return ask(self._connected(timeout))
            except (rpc.RpcError, FileNotFoundError) as error:
                if self._stop.is_set() or joined_run.has_ended(self._workdir):
                    raise joined_run.EndedError("the experiment has ended") from None
                if time.monotonic() - silent_since > joined_run.SILENT_SECONDS:
                    raise joined_run.AttachError(
                        f"{joined_run.silence(self._workdir)}: {str(error).splitlines()[0]}"
                    ) from None
            # It may have been started again at another address.
            self._client = None
            self._stop.wait(1.0)

    def report_evaluation(self, evaluator: str, step: int) -> None:
        """Tells nobody: the experiment does not wait for an evaluator that joined it."""

    def _connected(self, timeout: float) -> rpc.LearnerClient:
        # Another thread may forget it meanwhile.
        client = self._client
        if client is None:
            # Of several hosts the first one answers; behind it is where they find each other.
            address, *_ = json.loads((self._workdir / "endpoints.json").read_text())["learner"]
            client = rpc.LearnerClient(
                calls.Client(address, _keys(self._workdir, address), timeout=timeout + _CALL_SECONDS),
                self._stop,
            )
            self._client = client
        return client


def greets(workdir: pathlib.Path, address: str, timeout: float) -> bool:
    """Whether a node of a run is there, at its address; blocks for `timeout` seconds at most.

    Raises:
        joined_run.AttachError: if the run's keys cannot be used.
    """
    try:
        return calls.Client(address, _keys(workdir, address)).greets(timeout)
    except OSError:  # The keys go with the run.
        return False


def check_keys(workdir: pathlib.Path, addresses: Sequence[str]) -> None:
    """Checks that what serves at some addresses of a run can be called from here.

    Raises:
        joined_run.AttachError: if it takes keys that this user cannot read.
    """
    try:
        for address in addresses:
            _keys(workdir, address)
    except OSError as error:
        raise joined_run.AttachError(f"{workdir}: the run's keys cannot be used: {error}") from None


def _keys(workdir: pathlib.Path, address: str) -> calls.Keys | None:
    try:
        return keys.for_address(address, workdir)
    except (PermissionError, ValueError) as error:
        raise joined_run.AttachError(f"{workdir}: the run's keys cannot be used: {error}") from None
