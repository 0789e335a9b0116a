"""A program as engines get it: a `Job`, whose calls make its nodes' commands or functions."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from classact.experiments.config import ExperimentConfig
from classact.launch.assembly.in_threads import make_threads
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.parts import shapes
from classact.launch.assembly.synchronous import run_synchronous
from classact.launch.assembly.tasks import endpoints, make_tasks, on_this_machine, task_names
from classact.launch.engines.interface import Job
from classact.launch.engines.resources import Resources
from classact.launch.engines.restarts import Restarts
from classact.launch.engines.task import Task
from classact.launch.engines.terms import Patience, Terms
from classact.nodes import opening

_HOUR = 3600.0

Endpoints = Mapping[str, list[str]]


def make_job(
    program: lp.Program,
    config: ExperimentConfig,
    workdir: Path,
    data: Mapping[str, shapes.DataShape],
    until: Iterable[str],
    on_start: Callable[[Endpoints], None],
    command_module: str,
    own_environment: Callable[[str, int], Mapping[str, str]],
) -> Job:
    """Describes the run of a program for whatever engine; nothing is started or written.

    Args:
      program: of `program.build_program`.
      config: the resolved configuration.
      workdir: the run directory, absolute.
      data: shapes of each data set.
      until: labels whose nodes' success is the run's.
      on_start: told where the servers are, once all nodes are started.
      command_module: name of the module that runs a saved configuration, with its file, the run
        directory and the engine's name as arguments.
      own_environment: what a node's process has in its environment, from its label and its index.
    """
    terms = Terms(
        tuple(until),
        Patience(stop_notice=config.stop_notice_seconds),
        Restarts(config.restarts_per_hour),
        # What is opened all the time is missed only after this.
        lack_seconds=_HOUR + opening.LIMIT_SECONDS + config.no_data_seconds,
        on_start=lambda: on_start(endpoints(program)),
    )
    return Job(
        config=config,
        workdir=workdir,
        servers={label: [len(node.addresses) for node in nodes] for label, nodes in program.groups.items()},
        terms=terms,
        make_tasks=functools.partial(_make_tasks, program, config, workdir, own_environment),
        make_threads=functools.partial(make_threads, program),
        labels={name: label for (label, _), name in task_names(program).items()},
        in_one_loop=lambda: run_synchronous(config, workdir, data),
        command=lambda file, engine: (sys.executable, "-m", command_module, str(file), str(workdir), engine),
    )


def _make_tasks(
    program: lp.Program,
    config: ExperimentConfig,
    workdir: Path,
    own_environment: Callable[[str, int], Mapping[str, str]],
    *,
    ports: Callable[[str], int],
    place: Callable[[str, int], str] = on_this_machine,
    address_of: Callable[[str], str] = lambda host: host,
    sockets: Callable[[str], str] | None = None,
    resources: Mapping[str, Resources] | None = None,
) -> list[Task]:
    if resources is None:
        resources = _compute_threads(config, program.groups)
    made = make_tasks(
        program,
        workdir=workdir,
        ports=ports,
        place=place,
        address_of=address_of,
        sockets=sockets,
        resources=resources,
        own_environment=own_environment,
    )
    return [dataclasses.replace(task, hung_seconds=config.hung_seconds) for task in made]


def _compute_threads(config: ExperimentConfig, labels: Iterable[str]) -> dict[str, Resources]:
    """Thread limits by the first part of each label."""
    kinds = {label.split("/")[0] for label in labels}
    limits = dataclasses.asdict(config.threads)
    return {kind: Resources(threads=limits[kind] or None) for kind in kinds}
