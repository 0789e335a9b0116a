"""The whole system on one page: which nodes there are, and who talks to whom.

For the data set: its replay, its inference servers with their run loops; one
learner; one evaluator. Later data sets are added in the same way.
"""

import pathlib

import launchpad as lp

from classact.experiments.config import ExperimentConfig
from classact.launch import factories, rpc
from classact.launch.parts import DataShape
from classact.launch.replay_node import ReplayNode
from classact.selection import policies

LEARNER = "learner"
EVALUATOR = "test"
# RPCs that may wait inside the learner at once: long polls of followers.
_LEARNER_RPC_THREADS = 16


def data_set_name(config: ExperimentConfig) -> str:
    """The data set's name in labels and files: the source's, without its path."""
    return config.train_data.split(":")[0].split("?")[0]


def build_program(config: ExperimentConfig, workdir: pathlib.Path, data: DataShape) -> lp.Program:
    """Builds the program of an experiment; nothing is started.

    Args:
        config: the resolved configuration.
        workdir: the run directory.
        data: shapes of the training data.

    Returns:
        Nodes labelled `replay/<data set>`, `inference/<data set>`,
        `run_loop/<data set>`, `learner` and `evaluator/test`.
    """
    policy = policies.get(config.policy)
    data_set = data_set_name(config)
    workdir = workdir.absolute()
    build = factories.Factories(config, workdir, data_set, data)
    program = lp.Program("classact")

    with program.group(f"replay/{data_set}"):
        checkpoints = str(workdir / "replay" / data_set)
        replay = program.add_node(ReplayNode(build.table_config, data.codec.num_bytes, checkpoints))

    with program.group(LEARNER):
        learner_node = lp.CourierNode(
            build.learner,
            replay,
            courier_kwargs={"thread_pool_size": _LEARNER_RPC_THREADS + config.inference.servers},
        )
        learner = program.add_node(learner_node)
        learner.set_client_kwargs(call_timeout=rpc.CALL_SECONDS)

    with_nodes = config.inference.run_loops_as_nodes
    servers = []
    if policy.scores:
        with program.group(f"inference/{data_set}"):
            for index in range(config.inference.servers):
                threads = 0 if with_nodes else config.inference.run_loops
                node = lp.CourierNode(build.inference, learner, replay, index, threads)
                server = program.add_node(node)
                server.set_client_kwargs(call_timeout=rpc.CALL_SECONDS)
                servers.append(server)
    if with_nodes:
        with program.group(f"run_loop/{data_set}"):
            for index in range(config.inference.servers * config.inference.run_loops):
                asked = servers[index % len(servers)] if servers else None
                program.add_node(lp.PyClassNode(build.run_loop, replay, asked, index))

    with program.group(f"evaluator/{EVALUATOR}"):
        program.add_node(lp.PyClassNode(build.evaluator, learner, EVALUATOR))
    return program
