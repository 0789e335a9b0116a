"""Builds an inference server with its run loops in their own process, the program's or one that joins."""

import functools
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from classact.launch.assembly import rpc, run_loop_node
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.parts import learning, networks, references
from classact.launch.assembly.run_loop_node import Reader
from classact.launch.assembly.run_spec import RunSpec
from classact.nodes import clocks, heap, inference_node, inference_server, parameters, scoring, tally
from classact.nodes import mesh as mesh_lib
from classact.nodes.metrics import MetricsWriter


class Learner(parameters.ParameterSource, clocks.ClockSource, Protocol):
    """What an inference server's process needs of the learner."""


def build_inference(
    run: RunSpec, data_set: str, learner: Any, replays: Sequence[str], index: int, run_loops: int
) -> inference_node.InferenceNode:
    """Builds inference server `index` of a data set with `run_loops` run loops as threads."""
    first = index * run.config.data_sets[data_set].inference.run_loops
    readers = [run_loop_node.own_reader(run, data_set, first + i) for i in range(run_loops)]
    client = rpc.LearnerClient(learner)
    stop = lp.stop_event()
    return make_inference_node(run, data_set, f"{data_set}-{index}", client, replays, readers, stop, client)


def make_inference_node(
    run: RunSpec,
    data_set: str,
    name: str,
    learner: Learner,
    replays: Sequence[str],
    readers: Sequence[Reader],
    stop: threading.Event,
    progress: rpc.LearnerClient | None = None,
) -> inference_node.InferenceNode:
    """Builds an inference server, the program's own or one that joins, with its run loops.

    `progress`: see `make_run_loop`.
    """
    heap.give_back_after_compiling()
    mesh = mesh_lib.local_mesh()
    config, own = run.config, run.config.data_sets[data_set]
    policy = config.policy_of(own)
    models = networks.role_models(config, own, run.data[data_set])
    roles = {scoring.published_name(policy, role): role for role in models}
    roles = {name: role for name, role in roles.items() if name in policy.published_models}
    follower = None
    if roles:
        place = functools.partial(mesh_lib.everywhere, mesh)
        follower = parameters.Follower(learner, tuple(roles), stop, place=place)
    server = inference_server.InferenceServer(
        scoring.make_scorer(
            policy,
            learning.make_task(config),
            models,
            learning.online_weight(config, own),
            bool(own.reference.scores),
        ),
        references.fixed_variables(own),
        follower,
        roles,
        own.inference.batch_size,
        stop,
        MetricsWriter(run.workdir, f"inference-{name}"),
        own.inference.max_wait_seconds,
        mesh=mesh,
        counts=tally.Tally(
            run.workdir,
            f"inference-{name}",
            kind="scoring",
            data_set=data_set,
            devices=mesh.size if mesh is not None else 1,
        ),
    )
    loops = [
        run_loop_node.make_run_loop(run, data_set, replays, server.score, reader, stop, progress, learner)
        for reader in readers
    ]
    return inference_node.InferenceNode(server, loops, stop)
