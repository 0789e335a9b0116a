"""The whole system on one page: which nodes there are, and who talks to whom.

For each data set: its replay, one server or several shards; its inference servers
with their run loops, spread over the shards. One learner, on one host or on several,
which reads from all; any number of evaluators. More evaluators and actors may join a running program from
outside (`attach`, `attach_actors`); they are no part of it.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from classact.experiments.config import DataSetConfig, ExperimentConfig
from classact.launch.assembly import rpc
from classact.launch.assembly.evaluator_node import build_evaluator
from classact.launch.assembly.inference_node import build_inference
from classact.launch.assembly.launchpad import address as lp_address
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.learner_node import build_learner
from classact.launch.assembly.parts.shapes import DataShape
from classact.launch.assembly.replay_node import AddressHandle, ReplayNode
from classact.launch.assembly.run_loop_node import build_run_loop
from classact.launch.assembly.run_spec import RunSpec

LEARNER = "learner"
# RPCs that may wait inside the learner at once: long polls of followers.
_LEARNER_RPC_THREADS = 16


def build_program(
    config: ExperimentConfig, workdir: pathlib.Path, data: Mapping[str, DataShape]
) -> lp.Program:
    """Builds the program of an experiment; nothing is started.

    Args:
        config: the resolved configuration.
        workdir: the run directory.
        data: shapes of each data set.

    Returns:
        Nodes labelled `replay/<data set>`, `inference/<data set>`,
        `run_loop/<data set>`, `learner` and `evaluator/<name>`.
    """
    workdir = workdir.absolute()
    run = RunSpec(config, workdir, data)
    program = lp.Program("classact")

    replays: dict[str, list[Any]] = {}
    for data_set in config.data_sets:
        tables, record_bytes = run.table_config(data_set), data[data_set].codec.num_bytes
        # The learner itself reads what comes in a recorded order.
        replays[data_set] = []
        if not config.data_sets[data_set].has_replay:
            continue
        with program.group(f"replay/{data_set}"):
            replays[data_set] = [
                program.add_node(ReplayNode(tables, record_bytes, folder))
                for folder in run.replay_folders(data_set)
            ]

    followers = sum(item.inference.servers for item in config.data_sets.values())
    followers += len(config.evaluation.evaluators)
    with program.group(LEARNER):
        # Of several hosts that train together the first one serves; the others find it,
        # as it finds itself, by an address of its own.
        coordinator = lp_address.Address("coordinator")
        several = {"coordinator": AddressHandle(coordinator)} if config.mesh.hosts > 1 else {}
        learner_node = lp.CourierNode(
            build_learner,
            run,
            *replays.values(),
            **several,
            courier_kwargs={"thread_pool_size": _LEARNER_RPC_THREADS + followers},
        )
        if several:
            learner_node.allocate_address(coordinator)
        learner = program.add_node(learner_node)
        learner.set_client_kwargs(call_timeout=rpc.CALL_SECONDS)
        for host in range(1, config.mesh.hosts):
            program.add_node(
                lp.PyClassNode(
                    build_learner, run, *replays.values(), host=host, first_host=learner, **several
                )
            )

    for data_set, own in config.data_sets.items():
        if not own.has_replay:
            continue
        _add_actors(program, run, data_set, own, learner, replays[data_set])

    for name in config.evaluation.evaluators:
        with program.group(f"evaluator/{name}"):
            program.add_node(lp.PyClassNode(build_evaluator, run, learner, name))
    return program


def _add_actors(
    program: lp.Program,
    run: RunSpec,
    data_set: str,
    own: DataSetConfig,
    learner: Any,
    replays: Sequence[Any],
) -> None:
    """Adds what fills a data set's replay: inference servers, run loops as threads or as nodes."""
    with_nodes = own.inference.run_loops_as_nodes
    servers = []
    if own.has_servers:
        with program.group(f"inference/{data_set}"):
            for index in range(own.inference.servers):
                threads = 0 if with_nodes else own.inference.run_loops
                node = lp.CourierNode(build_inference, run, data_set, learner, replays, index, threads)
                server = program.add_node(node)
                server.set_client_kwargs(call_timeout=rpc.CALL_SECONDS)
                servers.append(server)
    if with_nodes:
        with program.group(f"run_loop/{data_set}"):
            for index in range(own.inference.servers * own.inference.run_loops):
                asked = servers[index % len(servers)] if servers else None
                program.add_node(
                    lp.PyClassNode(build_run_loop, run, data_set, learner, replays, asked, index)
                )
