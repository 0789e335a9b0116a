"""Turns a program into functions, for an engine that runs its nodes as threads of one process.

Not through `lp.launch`: there all nodes share one stop event, and the learner could not
save the tables of a replay that stops at the same moment; which node has failed is not
told; and signals are taken over for good.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from classact.launch.assembly.launchpad import lp, worker_manager
from classact.launch.assembly.tasks import bind, stop_program, task_names
from classact.launch.engines.ports import LOOPBACK


def make_threads(
    program: lp.Program, ports: Callable[[str], int], sockets: Callable[[str], str] | None = None
) -> dict[str, Callable[[threading.Event], Any]]:
    """Addresses every node of a program, and returns what to call in its thread.

    Afterwards the program's addresses are bound. It may be called again for the same
    program: nodes keep what they built, no more.

    Args:
      program: the program.
      ports: gives a free port of this machine at each call.
      sockets: gives the Unix address of a server from the node's name, where one can serve there.

    Returns:
      By the nodes' names, functions of an event that stops the node.

    Raises:
      LaunchError: if a label is unusable.
    """
    names = task_names(program)
    nodes = {key: program.groups[key[0]][key[1]] for key in names}
    for (label, index), node in nodes.items():
        node.launch_context.initialize(lp.LaunchType.LOCAL_MULTI_THREADING, None, stop_program)
        for handle in node.input_handles:
            handle.connect(node, label)
        bind(node, names[label, index], lambda: f"{LOOPBACK}:{ports(LOOPBACK)}", sockets)
    return {names[key]: functools.partial(_run, node.function) for key, node in nodes.items()}


def _run(function: Callable[[], Any], stop: threading.Event) -> Any:
    # There is no public way: it is where `lp.stop_event` looks, for this thread alone.
    worker_manager._WORKER_MANAGERS.manager = _OwnStop(stop)
    return function()


class _OwnStop:
    """What Launchpad's worker manager is to a node that runs alone: its stop event."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def stop_event(self) -> threading.Event:
        return self._stop

    def wait_for_stop(self, timeout_secs: float | None = None) -> bool:
        return self._stop.wait(timeout_secs)
