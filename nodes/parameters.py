"""The flow of parameters from the learner to its followers.

`ParameterStore` is the learner's end: `offer` is called after every step and
never waits, `get` is what clients call, a long poll. `Follower` is the client's
end. Parameters travel as bytes (flax's msgpack), which is faster than arrays over
RPC and keeps bfloat16.
"""

import collections
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import flax.serialization
import jax
import jax.numpy as jnp

Variables = Any
# A model is followed for so long after a follower last asked for it.
_FOLLOWED_SECONDS = 30.0
# Copies that wait for their turn. A learner runs up to two updates ahead of its devices: with one,
# the version that is computed next would give way to one that is not, and every other one is published.
_MAX_PENDING = 2
# Between two tries to reach the learner.
_RETRY_SECONDS = 1.0


class Parameters(NamedTuple):
    """What a client gets.

    Attributes:
        step: learner step of the parameters.
        finished: whether the learner has made its last step, `step`.
        payload: the models as bytes, see `decode`; empty if none is newer than
            what the client has.
    """

    step: int
    finished: bool
    payload: Mapping[str, memoryview]


def encode(variables: Variables) -> bytes:
    """Serialises a nested dict of arrays."""
    return flax.serialization.msgpack_serialize(jax.device_get(variables))


def decode(data: bytes | memoryview) -> Variables:
    """Reads what `encode` wrote; a nested dict of numpy arrays."""
    # It takes whatever has bytes.
    return flax.serialization.msgpack_restore(cast(bytes, data))


class ParameterSource(Protocol):
    """What a client needs of the learner, as an object or through RPC."""

    def get_parameters(
        self, names: Sequence[str], newer_than: int, timeout: float, follow: bool = False
    ) -> tuple[int, bool, dict[str, memoryview]] | None:
        """Returns parameters newer than a step, or None after `timeout` seconds.

        `follow`: whether the client will want the versions after these as well.
        """

    def get_step(self) -> int:
        """Returns the step of the learner's newest parameters."""


class _Copy(NamedTuple):
    """Parameters of a step on the device, which may still compute them."""

    step: int
    models: dict[str, Variables]
    final: bool

    def overtakes(self, older: "_Copy") -> bool:
        """Whether all that an older one has is here, newer and computed."""
        return older.models.keys() <= self.models.keys() and all(
            array.is_ready() for array in jax.tree.leaves(self.models)
        )


@jax.jit
def _copy(tree: Variables) -> Variables:
    return jax.tree.map(jnp.copy, tree)


class ParameterStore:
    """Newest parameters by model name, copied to the host by a thread of its own.

    A model is copied after a step if a client follows it (has lately said so) or waits
    for a version that this step satisfies and no copy under way does; so one that
    nobody follows costs nothing, and an evaluator costs a copy per evaluation, however
    late it asks. A slow client skips versions: the newest wins.
    """

    def __init__(self, on_host: Callable[[Variables], Variables] = lambda models: models) -> None:
        """Starts the copying thread.

        Args:
            on_host: gives the models on devices of this host alone, without waiting;
                applied to those that are copied.
        """
        self._on_host = on_host
        self._condition = threading.Condition()
        # Requests in progress: (name, smallest step that would satisfy it).
        self._wanted: list[tuple[str, int]] = []
        # When a follower last asked for a model.
        self._followed: dict[str, float] = {}
        # The newest step of each model that is published or will be: its copy is under way.
        self._copied: dict[str, int] = {}
        self._offered = -1
        self._published: dict[str, tuple[int, memoryview]] = {}
        self._pending: collections.deque[_Copy] = collections.deque()
        self._finished = False
        self._closed = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._copy_to_host, name="parameter copy", daemon=True)
        self._thread.start()

    def offer(self, step: int, models: Mapping[str, Variables], final: bool = False) -> None:
        """Publishes the parameters of a step; never waits for a copy or a client.

        A copy on the device is dispatched, so the caller may donate the buffers
        to its next step.

        Args:
            step: learner step that the parameters are the result of.
            models: `{"params", "state"}` by model name.
            final: whether no step comes after this one; then, as at the first
                offer, everything is copied, wanted or not.

        Raises:
            RuntimeError: if an earlier copy failed.
        """
        now = time.monotonic()
        with self._condition:
            self._raise_failure()
            names = {name for name, at_least in self._wanted if step >= at_least > self._copied.get(name, -1)}
            names |= {name for name, asked in self._followed.items() if now - asked < _FOLLOWED_SECONDS}
            everything = final or self._offered < 0
            self._offered = step
            if names and len(self._pending) == _MAX_PENDING:
                # The last one is overtaken before it has begun: who waits for it gets this one.
                names |= set(self._pending[-1].models)
        chosen = {name: model for name, model in models.items() if everything or name in names}
        if not chosen and not final:
            return
        copies = _copy(self._on_host(chosen))
        with self._condition:
            self._copied.update(dict.fromkeys(chosen, step))
            if len(self._pending) == _MAX_PENDING:
                self._pending.pop()
            self._pending.append(_Copy(step, copies, final))
            self._condition.notify_all()

    @property
    def step(self) -> int:
        """The last step that was offered; -1: none."""
        with self._condition:
            return self._offered

    def get(
        self, names: Sequence[str], newer_than: int, timeout: float, follow: bool = False
    ) -> Parameters | None:
        """Waits for parameters newer than `newer_than`.

        Args:
            names: models that the client wants.
            newer_than: a step; -1 for any.
            timeout: seconds to block at most.
            follow: whether the client will want each later version too: they are then
                copied before it asks, for half a minute from now on.

        Returns:
            The newest parameters of these models; with an empty payload if the
            learner has finished and has none newer; None after the time-out.

        Raises:
            RuntimeError: if a copy failed.
        """
        deadline = time.monotonic() + timeout
        wanted = [(name, newer_than + 1) for name in names]
        with self._condition:
            if follow:
                self._followed.update(dict.fromkeys(names, time.monotonic()))
            self._wanted.extend(wanted)
            try:
                while True:
                    self._raise_failure()
                    found = {name: self._published[name] for name in names if name in self._published}
                    if len(found) == len(names) and min(step for step, _ in found.values()) > newer_than:
                        step = min(step for step, _ in found.values())
                        return Parameters(
                            step, self._finished, {name: data for name, (_, data) in found.items()}
                        )
                    if self._finished or self._closed:
                        steps = [step for step, _ in found.values()]
                        return Parameters(min(steps, default=newer_than), True, {})
                    if not self._condition.wait(deadline - time.monotonic()):
                        return None
            finally:
                for request in wanted:
                    self._wanted.remove(request)

    def close(self) -> None:
        """Ends the copying thread and wakes every client."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def _copy_to_host(self) -> None:
        try:
            self._copy_all()
        # Whatever it was: who offers or waits for parameters must hear of it.
        except Exception as error:
            with self._condition:
                self._error = error
                self._condition.notify_all()

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise RuntimeError("parameters could not be copied from the device") from self._error

    def _copy_all(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
                chosen = self._pending.popleft()
                while self._pending and self._pending[0].overtakes(chosen):
                    chosen = self._pending.popleft()
            # A view, because those are sent and received without a copy: once for all followers.
            encoded = {name: memoryview(encode(variables)) for name, variables in chosen.models.items()}
            with self._condition:
                for name, data in encoded.items():
                    self._published[name] = (chosen.step, data)
                self._finished = self._finished or chosen.final
                self._condition.notify_all()


class Follower:
    """Keeps the newest parameters of some models on this process's devices.

    Its thread polls the learner; `latest` never waits once the first version is
    there. A learner that is gone is waited for, and one that went back to a checkpoint is
    followed back.
    """

    def __init__(
        self,
        source: ParameterSource,
        names: Sequence[str],
        stop: threading.Event,
        poll_seconds: float = 5.0,
        place: Callable[[Variables], Variables] = jax.device_put,
        unreachable_seconds: float = 300.0,
    ) -> None:
        """Starts following.

        Args:
            source: the learner.
            names: models to follow.
            stop: ends the thread, within `poll_seconds`.
            poll_seconds: how long one request may wait.
            place: moves a model to where it is used.
            unreachable_seconds: how long a learner may refuse requests.
        """
        self._source = source
        self._place = place
        self._names = tuple(names)
        self._stop = stop
        self._poll_seconds = poll_seconds
        self._unreachable_seconds = unreachable_seconds
        self._condition = threading.Condition()
        self._latest: tuple[int, dict[str, Variables]] | None = None
        self._error: Exception | None = None
        self._updated_at = time.monotonic()
        self._thread = threading.Thread(target=self._follow, name="parameter follower", daemon=True)
        self._thread.start()

    def latest(self, timeout: float) -> tuple[int, dict[str, Variables]]:
        """Returns the newest step and variables by name.

        Args:
            timeout: seconds to wait for the first version.

        Raises:
            TimeoutError: if the first version did not come in time.
            RuntimeError: if the learner cannot be reached or refuses the request.
        """
        with self._condition:
            arrived = self._condition.wait_for(lambda: self._latest or self._error, timeout)
            if self._error is not None:
                raise RuntimeError("cannot follow the learner's parameters") from self._error
            if not arrived or self._latest is None:
                raise TimeoutError(f"no parameters of {', '.join(self._names)} came in {timeout} s")
            return self._latest

    @property
    def age_seconds(self) -> float:
        """Seconds since the last new version arrived."""
        return time.monotonic() - self._updated_at

    def _follow(self) -> None:
        step = -1
        reached = time.monotonic()
        while not self._stop.is_set():
            try:
                response = self._source.get_parameters(self._names, step, self._poll_seconds, follow=True)
                if response is None and self._source.get_step() < step:
                    step = -1
            except (RuntimeError, OSError) as error:
                if time.monotonic() - reached > self._unreachable_seconds:
                    self._fail(error)
                    return
                logging.warning("asking the learner for parameters again: %s", error)
                self._stop.wait(_RETRY_SECONDS)
                continue
            # It has an answer, and would not have another one.
            except ValueError as error:
                self._fail(error)
                return
            reached = time.monotonic()
            if response is None:
                continue
            step, finished, payload = response
            if payload:
                variables = {name: self._place(decode(data)) for name, data in payload.items()}
                with self._condition:
                    self._latest = (step, variables)
                    self._updated_at = time.monotonic()
                    self._condition.notify_all()
            if finished:
                return

    def _fail(self, error: Exception) -> None:
        with self._condition:
            self._error = error
            self._condition.notify_all()
