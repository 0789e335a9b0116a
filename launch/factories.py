"""Builds each node inside its own process, from the configuration and its handles.

What a node needs is imported where it is built: a process must not pay for
TensorFlow or JAX if its node uses neither (5 s and 400 MB, 1 s and 150 MB).
"""

import dataclasses
import pathlib
import threading
from typing import TYPE_CHECKING, Any

import launchpad as lp

from classact.experiments.config import ExperimentConfig
from classact.launch import parts, rpc
from classact.nodes.metrics import MetricsWriter
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig
from classact.selection import policies, priorities

if TYPE_CHECKING:
    from classact.nodes import evaluator, inference_node, learner
    from classact.nodes.run_loop import RunLoop


@dataclasses.dataclass(frozen=True)
class Factories:
    """Constructors for Launchpad's nodes; each is called in the node's main thread.

    Attributes:
        config: the resolved configuration.
        workdir: the run directory, absolute.
        data_set: the data set's name in labels and files.
        data: its shapes.
    """

    config: ExperimentConfig
    workdir: pathlib.Path
    data_set: str
    data: parts.DataShape

    @property
    def table_config(self) -> TableConfig:
        """The tables of the data set."""
        return TableConfig(
            batch_size=self.config.batch_size,
            samples_per_insert=1.0 - self.config.filter_ratio,
            capacity=self.config.replay.capacity,
            super_batch=self.config.reference.super_batch,
        )

    def learner(self, replay: str) -> "learner.Learner":
        """Builds the learner; `replay` is the server's address."""
        from classact.nodes import checkpoints, learner, training
        from classact.replay import dataset

        config = self.config
        stop = lp.stop_event()
        trained = parts.trained_models(config, self.data)

        def sampled(table: str, batch_size: int) -> dataset.ReplayDataset:
            return dataset.ReplayDataset(replay, table, self.data.codec, batch_size, stop, learner.to_device)

        super_batches = None
        if config.reference.super_batch:
            stream = sampled(STREAM_TABLE, config.super_batch_size)
            super_batches = learner.SuperBatches(stream, config.reference.super_batch)
        return learner.Learner(
            learner.LearnerConfig(
                steps=config.steps,
                log_every=config.log_every,
                checkpoint_every=config.checkpoint_every,
                evaluators=("test",),
                no_data_seconds=config.no_data_seconds,
            ),
            trained,
            training.make_update(trained, parts.make_task(config)),
            training.init_state(trained, config.seed),
            sampled(EXAMPLES_TABLE, config.batch_size),
            super_batches,
            stop,
            MetricsWriter(self.workdir, "learner"),
            checkpoints.Checkpointer(self.workdir / "checkpoints"),
            dataset.TableStatistics(replay, EXAMPLES_TABLE),
        )

    def inference(
        self, learner: Any, replay: str, index: int, run_loops: int
    ) -> "inference_node.InferenceNode":
        """Builds inference server `index` with `run_loops` run loops as threads."""
        from classact.nodes import inference_node, inference_server, parameters, scoring

        config = self.config
        policy = policies.get(config.policy)
        stop = lp.stop_event()
        models = parts.role_models(config, self.data)
        roles = {scoring.published_name(policy, role): role for role in models}
        roles = {name: role for name, role in roles.items() if name in policy.published_models}
        follower = None
        if roles:
            follower = parameters.Follower(rpc.LearnerClient(learner), tuple(roles), stop)
        server = inference_server.InferenceServer(
            scoring.make_scorer(policy, parts.make_task(config), models),
            parts.fixed_variables(config),
            follower,
            roles,
            config.inference.batch_size,
            stop,
            MetricsWriter(self.workdir, f"inference-{self.data_set}-{index}"),
            config.inference.max_wait_seconds,
        )
        first = index * config.inference.run_loops
        loops = [self._make_run_loop(replay, server.score, first + i, stop) for i in range(run_loops)]
        return inference_node.InferenceNode(server, loops, stop)

    def run_loop(self, replay: str, server: Any, index: int) -> "RunLoop":
        """Builds run loop `index` as a node; `server` is None for a policy without scores."""
        score = rpc.InferenceClient(server) if server is not None else None
        return self._make_run_loop(replay, score, index, lp.stop_event())

    def evaluator(self, learner: Any, name: str) -> "evaluator.Evaluator":
        """Builds the evaluator of the held-out data."""
        from classact.nodes import evaluator

        config = self.config
        source = parts.open_eval_source(config)
        measure = evaluator.classification_accuracy(
            parts.make_models(config, self.data)["learner"],
            parts.make_task(config),
            evaluator.whole_data_set(source, config.evaluation.batch_size),
        )
        return evaluator.Evaluator(
            name,
            measure,
            rpc.LearnerClient(learner),
            config.evaluation.every,
            lp.stop_event(),
            MetricsWriter(self.workdir, f"evaluator-{name}"),
        )

    def _make_run_loop(self, replay: str, score: Any, index: int, stop: threading.Event) -> "RunLoop":
        from classact.data import stream
        from classact.nodes import run_loop
        from classact.replay import writer

        config = self.config
        inference = config.inference
        source = parts.open_train_source(config)
        return run_loop.RunLoop(
            stream.IIDStream(
                source,
                config.super_batch_size,
                config.seed,
                reader=index,
                num_readers=inference.servers * inference.run_loops,
            ),
            score,
            writer.ReplayWriter(replay, self.data.codec, self.table_config.table_names, stop),
            priorities.PriorityConfig(config.temperature, config.score_shift),
            stop,
            MetricsWriter(self.workdir, f"run_loop-{self.data_set}-{index}"),
            config.max_nonfinite_share,
            extremes_path=self.workdir / "scored_images.npz" if index == 0 else None,
            class_names=source.class_names or (),
        )
