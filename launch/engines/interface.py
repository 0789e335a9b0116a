"""What an engine is: what it declares of itself, what it gets, and what it answers."""

from __future__ import annotations

import abc
import dataclasses
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from classact.experiments.config import ExperimentConfig
from classact.launch.engines.outcome import Outcome
from classact.launch.engines.resources import Resources
from classact.launch.engines.task import Task
from classact.launch.engines.terms import Terms


class MakeTasks(Protocol):
    """Makes a task of every node, in the program's order; nothing is started."""

    def __call__(
        self,
        *,
        ports: Callable[[str], int],
        place: Callable[[str, int], str] = ...,
        address_of: Callable[[str], str] = ...,
        sockets: Callable[[str], str] | None = None,
        resources: Mapping[str, Resources] | None = None,
    ) -> list[Task]:
        """Places, addresses and serialises the nodes.

        Args:
          ports: gives a free port on a host at each call.
          place: host of a node, from its label and its index in the group; else this machine's
            loopback interface.
          address_of: where other hosts reach a host; its name by default.
          sockets: gives the Unix address of a node's server from the node's name, if all nodes
            are on this machine; those that cannot serve there get a port.
          resources: limits by label, or by first parts of labels; by default the compute threads
            that the configuration gives each kind of node.
        """


class MakeThreads(Protocol):
    """Makes a function of every node, for an engine that runs them in this process."""

    def __call__(
        self, ports: Callable[[str], int], sockets: Callable[[str], str] | None = None
    ) -> dict[str, Callable[[threading.Event], Any]]:
        """Returns the functions by the nodes' names; each runs its node until the event, or its own end."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run, as an engine gets it. What it does not know itself it can ask by a call.

    Attributes:
      config: the resolved configuration; engines read its fields on machines.
      workdir: the run directory, absolute.
      servers: by label, how many servers each node of the group has.
      terms: until when, how patiently, how often again.
      make_tasks: makes a command of every node.
      make_threads: makes a function of every node.
      labels: label of every node by its name.
      in_one_loop: trains in this process without any node; blocks until the end.
      command: of a configuration's file and an engine's name, what runs that configuration in
        this run's directory by that engine: for an engine that hands the run to another launcher.
      signals: signals to this process are put there, if the engine holds them, see
        `Engine.holds_signals`.
    """

    config: ExperimentConfig
    workdir: Path
    servers: Mapping[str, Sequence[int]]
    terms: Terms
    make_tasks: MakeTasks
    make_threads: MakeThreads
    labels: Mapping[str, str]
    in_one_loop: Callable[[], Outcome]
    command: Callable[[Path, str], Sequence[str]]
    signals: queue.SimpleQueue[Any] = dataclasses.field(default_factory=queue.SimpleQueue)


class Engine(abc.ABC):
    """A way to run a program, which `--launch` names.

    Attributes:
      one_process: whether nodes are threads of this process: nothing is started again, and the
        learner has one host.
      several_hosts: whether nodes may be on other hosts, which have other devices and memory.
      has_nodes: whether there are nodes at all, which others may join.
      resumes: whether it goes on with a run that was interrupted.
      holds_signals: whether a signal to this process must wait until the result is written.
    """

    one_process: ClassVar[bool] = False
    several_hosts: ClassVar[bool] = False
    has_nodes: ClassVar[bool] = True
    resumes: ClassVar[bool] = True
    holds_signals: ClassVar[bool] = False

    def check(self, config: ExperimentConfig) -> None:
        """Looks for what this engine cannot run, before anything else is.

        Raises:
          ConfigError: naming the field.
        """
        del config

    def submits(self) -> bool:
        """Whether the run is handed to another launcher by `submit`, instead of `run`."""
        return False

    def submit(self, job: Job) -> Outcome:
        """Hands the run to another launcher and follows it; blocks until that has ended.

        Raises:
          LaunchError: if it is not accepted; nothing is left of it then.
        """
        raise NotImplementedError(f"{type(self).__name__} submits nothing")

    @abc.abstractmethod
    def run(self, job: Job) -> Outcome:
        """Runs the program; blocks until all of it is over. Nothing outlives the call.

        Called in the main thread.

        Raises:
          LaunchError: before any node is started, if it cannot be done.
        """
