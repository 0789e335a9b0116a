"""Actors that join a running experiment: more inference servers and run loops.

They are a program of their own, which runs on this machine and knows the
experiment's servers by the addresses in the run directory. The experiment does
not know them: they write into its tables as its own do, and the rate limiter
keeps the ratio of samples to inserts whoever writes.
"""

import dataclasses
import json
import pathlib
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from classact.calls import addresses, keys
from classact.data.classes import Classes
from classact.data.source import DataError
from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.assembly import actors_program, joined_devices, joined_learner, joined_run, tasks
from classact.launch.assembly.actors_program import JoiningActors
from classact.launch.assembly.joined_run import AttachError
from classact.launch.assembly.parts import (
    class_meaning,
    identity,
    joint_shapes,
    networks,
    references,
    shapes,
    sources,
)
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.assembly.run_spec import RunSpec
from classact.launch.engines import ports, resources
from classact.launch.engines.local import processes
from classact.launch.engines.outcome import Outcome
from classact.launch.engines.restarts import Restarts
from classact.launch.engines.terms import Patience, Terms

_POLL_SECONDS = 1.0


def prepare(workdir: pathlib.Path, data_set: str, count: int) -> JoiningActors:
    """Checks actors against the experiment, and opens its data at this place.

    Args:
        workdir: the run directory.
        data_set: the experiment's name for it; may be empty if there is only one.
        count: how many actors to run, at least 1.

    Raises:
        AttachError: if the directory holds no running experiment, its servers cannot
            be reached from here, it has no such data set, or the data or the reference
            are not here or are others than the experiment's.
    """
    fields, config = joined_run.read_fields(workdir), joined_run.read_config(workdir)
    if joined_run.has_ended(workdir):
        raise AttachError(f"{workdir}: the run has ended, there is nothing to join")
    if fields.get("launch") == "synchronous":
        raise AttachError(f"{workdir}: a synchronous run is one loop; it has no servers to join")
    known = ", ".join(config.data_sets)
    if not data_set and len(config.data_sets) > 1:
        raise AttachError(f"the experiment has several data sets: name one of {known}")
    name = data_set or next(iter(config.data_sets))
    if name not in config.data_sets:
        raise AttachError(f"dataset={name!r}: the experiment has {known}")
    if not config.data_sets[name].has_replay:
        raise AttachError(
            f"dataset={name!r}: its learner reads a recorded order by itself, there is no replay to fill"
        )
    try:
        started = fields["started"]
        host, directory, theirs = started["host"], started["directory"], started["data"][name]
    except (KeyError, TypeError):
        raise AttachError(f"{workdir / 'config.json'} is of another version of classact") from None
    learner, replays = _addresses(workdir, name, host)
    joined_run.check_network(workdir, fields)
    said = FirstLines()
    shape = _checked_here(config, name, theirs, directory, said)
    spec = RunSpec(config, workdir.absolute(), {name: shape})
    joining = JoiningActors(spec, name, _call_name(), count, learner, replays, said.lines())
    if joining.num_readers > shape.num_examples:
        raise AttachError(
            f"count={count}: {shape.name} has {shape.num_examples} examples, too few for "
            f"{joining.num_readers} run loops"
        )
    return joining


def _addresses(workdir: pathlib.Path, data_set: str, host: str) -> tuple[str, tuple[str, ...]]:
    """The learner's address, and those of a data set's replay servers."""
    path = workdir / "endpoints.json"
    try:
        found = json.loads(path.read_text())
        learner, replays = found["learner"][0], tuple(found[f"replay/{data_set}"])
    except FileNotFoundError:
        raise AttachError(f"{workdir}: the run has not started its servers yet (no endpoints.json)") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise AttachError(f"{path} cannot be read: {error!r}") from None
    here = all(_host(address) in (None, ports.LOOPBACK) for address in (learner, *replays))
    if here and host != platform.node():
        raise AttachError(f"{workdir}: the run's servers can be called on {host} alone; join it from there")
    return learner, replays


def _host(address: str) -> str | None:
    """The host of an address; None for a socket of this machine."""
    return None if addresses.unix_path(address) is not None else addresses.host_and_port(address)[0]


def _checked_here(
    config: ExperimentConfig, data_set: str, theirs: Mapping[str, Any], directory: str, said: FirstLines
) -> shapes.DataShape:
    """Opens a data set and its reference at this place, and compares them with the experiment's."""
    own = config.data_sets[data_set]
    try:
        opened = sources.open_train_source(config, own, images=own.carried)
        shape = joint_shapes.with_embeddings(config, own, shapes.data_shape(config, opened, own.carried))
        known = Classes.from_json(theirs)
        if known is not None:
            shape = class_meaning.mapped(config, shape, known, "the experiment", said)
        changed = identity.change(theirs, shape)
        if changed:
            raise AttachError(
                f"data set {data_set}: {own.train_data} is not the experiment's at this place: {changed}"
            )
        for key, ours in shape.described().items():
            # Compared already; a run of an older version has not recorded them.
            compared = key in ("class_names", "fingerprint", "held_out_examples")
            if not compared and theirs.get(key) != ours:
                raise AttachError(
                    f"data set {data_set}: {own.train_data} is not the experiment's at this place: "
                    f"its {key} is {ours}, there {theirs.get(key)}"
                )
        references.check_reference(config, own, shape, said)
        networks.role_models(config, own, shape)
    except (ConfigError, DataError) as error:
        raise AttachError(f"{error}{joined_run.elsewhere(directory)}") from None
    return shape


def _call_name() -> str:
    """Names a call so that its files are its own, whoever else joins and from where."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", platform.node().split(".")[0]).strip("-") or "host"
    return f"{host}-{secrets.token_hex(3)}"


def run(joining: JoiningActors, stop: threading.Event, report: Callable[[str], None]) -> Outcome:
    """Runs actors on this machine until their experiment ends; blocks, in the main thread.

    They are watched and ended as `run_processes` does it: one that dies is started again
    as the experiment's own nodes are, or ends all; a signal stops them within the
    experiment's notice, and none outlives this process.

    Args:
        joining: of `prepare`.
        stop: ends the wait for the experiment's servers, which may only just have been
            started; once the actors run, signals do.
        report: takes a line for the user for each actor that has started.

    Returns:
        How they ended: "completed" if the experiment did, however that went.

    Raises:
        AttachError: if the run has no result although one of its servers cannot be
            reached for three minutes: any at the beginning, the learner later; or if this user
            cannot read its keys.
    """
    for address in (joining.learner, *joining.replays):
        if not _wait_for(address, joining.workdir, stop):
            return Outcome("interrupted" if stop.is_set() else "completed")
    joined_learner.check_keys(joining.workdir, (joining.learner, *joining.replays))
    with ports.LoopbackPorts() as free_ports:
        own = _devices(joining, report)
        made = [
            dataclasses.replace(task, hung_seconds=joining.run.config.hung_seconds)
            for task in tasks.make_tasks(
                actors_program.build_program(joining),
                workdir=joining.workdir,
                ports=free_ports,
                resources={label: _resources(joining, label) for label in joining.labels},
                own_environment=lambda label, index: own.get(label, {}),
            )
        ]

        def say_what_has_started() -> None:
            for task in made:
                report(f"{task.name} starts; its log: {task.log_path}")

        config = joining.run.config
        terms = Terms(
            joining.labels,
            Patience(stop_notice=config.stop_notice_seconds),
            Restarts(config.restarts_per_hour),
            say_what_has_started,
        )
        outcome = processes.run_processes(made, terms)
    if outcome.status == "completed" and not joined_run.has_ended(joining.workdir):
        raise AttachError(joined_run.silence(joining.workdir))
    return outcome


def _resources(joining: JoiningActors, label: str) -> resources.Resources:
    """As the experiment's own actors; they need its keys, and gRPC must reach its hosts without a proxy."""
    hosts = [host for address in (joining.learner, *joining.replays) if (host := _host(address))]
    env = resources.proxy_exceptions(hosts)
    if hosts:
        env[keys.VARIABLE] = str(joining.workdir / keys.FILE_NAME)
    threads = getattr(joining.run.config.threads, label.split("/")[0])
    return resources.Resources(threads=threads or None, env=env)


def _devices(joining: JoiningActors, report: Callable[[str], None]) -> Mapping[str, Mapping[str, str]]:
    """Which GPUs those have that score; the user is told."""
    said = FirstLines()
    found = joined_devices.environments(joining.labels if joining.scores else (), said)
    for line in said.lines():
        report(line)
    return found


def _wait_for(address: str, workdir: pathlib.Path, stop: threading.Event) -> bool:
    """Waits until a server of the experiment answers; False if it has ended or `stop` is set."""
    silent_since = time.monotonic()
    while not addresses.answers(address):
        if joined_run.has_ended(workdir) or stop.wait(_POLL_SECONDS):
            return False
        if time.monotonic() - silent_since > joined_run.SILENT_SECONDS:
            raise AttachError(
                f"{workdir}: nothing answered at {address} for {joined_run.SILENT_SECONDS:.0f} s, and the "
                "run has no result.json"
            )
    return True
