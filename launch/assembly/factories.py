"""Builds each node inside its own process, from the configuration and its handles.

What a node needs is imported where it is built: a process must not pay for
TensorFlow or JAX if its node uses neither (5 s and 400 MB, 1 s and 150 MB).
"""

import dataclasses
import functools
import json
import math
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from classact.experiments import curves
from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.assembly import rpc
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.parts import (
    class_meaning,
    evaluators,
    identity,
    learning,
    networks,
    references,
    shapes,
    sources,
)
from classact.nodes.errors import FatalError
from classact.nodes.metrics import ExampleRecorder, MetricsWriter
from classact.replay import folders
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig
from classact.selection import policies

if TYPE_CHECKING:
    import jax

    from classact.nodes import batches, checkpoints, clocks, evaluator, inference_node, learner
    from classact.nodes.parameters import ParameterSource
    from classact.nodes.run_loop import RunLoop

    class _Learner(ParameterSource, clocks.ClockSource, Protocol):
        """What an inference server's process needs of the learner."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """What one run loop reads of its data set; see `data.stream.IIDStream`.

    Attributes:
        name: of its metrics, after "run_loop-".
        seed: of the permutations.
        reader: its number among those of that seed.
        num_readers: how many these are.
        shown: whether it leaves its most and least wanted examples for the report.
    """

    name: str
    seed: int
    reader: int
    num_readers: int
    shown: bool = False


@dataclasses.dataclass(frozen=True)
class Factories:
    """Constructors for Launchpad's nodes; each is called in the node's main thread.

    Attributes:
        config: the resolved configuration.
        workdir: the run directory, absolute.
        data: the shapes of each data set.
    """

    config: ExperimentConfig
    workdir: pathlib.Path
    data: Mapping[str, shapes.DataShape]

    @property
    def _shape(self) -> shapes.DataShape:
        """What the models are built for: the data sets agree in it."""
        return next(iter(self.data.values()))

    def table_config(self, data_set: str) -> TableConfig:
        """The tables of each shard of a data set."""
        own = self.config.data_sets[data_set]
        shards = own.replay.shards
        return TableConfig(
            batch_size=own.batch_size // shards,
            # Not 1 − filter_ratio, which differs if B was rounded: then the learner would
            # take more, or less, from the stream table than this ratio lets in.
            samples_per_insert=own.batch_size / own.super_batch_size,
            capacity=own.replay.capacity // shards,
            super_batch=own.reference.super_batch // shards,
        )

    def replay_folders(self, data_set: str) -> list[pathlib.Path]:
        """Where the tables of each shard of a data set are saved."""
        return folders.shard_folders(self.workdir, data_set, self.config.data_sets[data_set].replay.shards)

    def learner(
        self, *replays: Sequence[str], host: int = 0, coordinator: str = "", first_host: Any = None
    ) -> "learner.Learner":
        """Builds the learner, or one host's part of it, as the newest checkpoint left it.

        May block until all hosts do.

        Args:
            *replays: the addresses of each data set's shards, in the order of the data sets.
            host: which of the hosts that train together.
            coordinator: where the first of them listens for the others.
            first_host: the learner there, of the other hosts.
        """
        from classact.nodes import checkpoints, clocks, cursors, learner, opening, saving, training
        from classact.nodes import mesh as mesh_lib
        from classact.replay import dataset, snapshots

        config = self.config
        hosts = config.mesh.hosts
        if hosts > 1:
            mesh_lib.join_hosts(coordinator, hosts, host)
        try:
            mesh = mesh_lib.make_mesh(config.mesh.fsdp)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        learning.check_batches(config, mesh.size if mesh is not None else 1)
        trained = learning.trained_models(config, self._shape)
        state = training.init_state(trained, config.seed, mesh)
        checkpointer = checkpoints.Checkpointer(
            self.workdir / "checkpoints", classes=class_meaning.of_head(config, self._shape)
        )
        data_state = checkpoints.DataState()
        restored = checkpointer.restore(state)
        if restored is not None:
            state, data_state = restored
        addresses = dict(zip(config.data_sets, replays, strict=True))
        races = {
            name: clocks.Clocks(len(addresses[name]), data_state.clocks.get(name, ()))
            for name in config.data_sets
            if self.table_config(name).filters
        }
        openings = opening.Openings()
        # Run loops tell the first host's learner.
        opening_seconds = rpc.LearnerClient(first_host).get_opening_seconds if host else openings.seconds
        batches = self._batches(addresses, data_state, mesh, races, opening_seconds, host)
        first = host == 0
        # Of several hosts none knows what the others have read ahead.
        whole = hosts == 1
        saver = saving.Saver(
            checkpointer,
            cursors.Cursors(data_state.cursors, {name: self._table_batches(name) for name in addresses}),
            batches if whole else None,
            {
                name: snapshots.Snapshots(shards, self.replay_folders(name))
                for name, shards in addresses.items()
                if whole
            },
            races,
        )
        statistics = {
            name: dataset.TableStatistics(shards, EXAMPLES_TABLE)
            for name, shards in addresses.items()
            if first
        }
        evaluating = tuple(config.evaluation.evaluators) if first else ()
        return learner.Learner(
            learner.LearnerConfig(
                steps=config.steps,
                log_every=config.log_every,
                checkpoint_every=config.checkpoint_every,
                evaluators=evaluating,
            ),
            trained,
            training.make_update(
                trained, learning.make_task(config, mesh), mesh, config.gradient_accumulation
            ),
            state,
            batches,
            lp.stop_event(),
            MetricsWriter(self.workdir, "learner") if first else None,
            saver,
            statistics,
            mesh,
            mesh_lib.any_host(mesh) if hosts > 1 and mesh is not None else None,
            {name: self._evaluated(name) for name in evaluating},
            ExampleRecorder(self.workdir) if config.record_examples and first else None,
            races,
            openings,
        )

    def _batches(
        self,
        addresses: Mapping[str, Sequence[str]],
        data_state: "checkpoints.DataState",
        mesh: "jax.sharding.Mesh | None",
        races: "Mapping[str, clocks.Clocks]",
        opening_seconds: Callable[[str], float | None],
        host: int,
    ) -> "batches.Batches":
        """Starts reading the tables of all data sets, after what an earlier process had read ahead."""
        from classact.nodes import batches
        from classact.replay import dataset

        config = self.config
        stop_reading = threading.Event()

        def sampled(data_set: str, table: str, batch_size: int, window: int = 0) -> dataset.ReplayDataset:
            race = races.get(data_set) if table == EXAMPLES_TABLE else None
            ahead = data_state.read_ahead.get(f"{data_set}.{table}")
            if ahead is not None:
                ahead = batches.of_host(ahead, batch_size, config.mesh.hosts, host)
            return dataset.ReplayDataset(
                addresses[data_set],
                table,
                self.data[data_set].codec,
                # An item is sampled once, so that no two hosts read the same.
                batch_size // config.mesh.hosts,
                stop_reading,
                functools.partial(batches.to_device, mesh=mesh),
                remembered=batches.REMEMBERED + window,
                first=ahead,
                drawn=race.drawn if race is not None else None,
            )

        return batches.Batches(
            {name: sampled(name, EXAMPLES_TABLE, own.batch_size) for name, own in config.data_sets.items()},
            {
                name: batches.SuperBatches(
                    sampled(
                        name,
                        STREAM_TABLE,
                        own.super_batch_size,
                        own.reference.super_batch // own.super_batch_size,
                    ),
                    own.reference.super_batch,
                    mesh,
                )
                for name, own in config.data_sets.items()
                if own.reference.super_batch
            },
            lp.stop_event(),
            config.no_data_seconds,
            stop_reading,
            opening_seconds,
        )

    def _table_batches(self, data_set: str) -> int:
        """How many batches of one run loop may be in a data set's tables and in what reads them."""
        from classact.nodes import batches

        own = self.config.data_sets[data_set]
        held = own.replay.capacity + own.reference.super_batch
        # The writer's unfinished batch, and one that it has not reported yet.
        return math.ceil(held / own.super_batch_size) + batches.READ_AHEAD + 2

    def _evaluated(self, name: str) -> int:
        """The last step that an evaluator has measured, in this process or an earlier one; -1: none."""
        lines = curves.history(curves.read_metrics(self.workdir / "metrics" / f"evaluator-{name}.jsonl"))
        return lines[-1]["step"] if lines else -1

    def inference(
        self, data_set: str, learner: Any, replays: Sequence[str], index: int, run_loops: int
    ) -> "inference_node.InferenceNode":
        """Builds inference server `index` of a data set with `run_loops` run loops as threads."""
        first = index * self.config.data_sets[data_set].inference.run_loops
        readers = [self._own_reader(data_set, first + i) for i in range(run_loops)]
        client = rpc.LearnerClient(learner)
        stop = lp.stop_event()
        return self.inference_node(data_set, f"{data_set}-{index}", client, replays, readers, stop, client)

    def inference_node(
        self,
        data_set: str,
        name: str,
        learner: "_Learner",
        replays: Sequence[str],
        readers: Sequence[Reader],
        stop: threading.Event,
        progress: rpc.LearnerClient | None = None,
    ) -> "inference_node.InferenceNode":
        """Builds an inference server, the program's own or one that joins, with its run loops.

        `progress`: see `make_run_loop`.
        """
        from classact.nodes import inference_node, inference_server, parameters, scoring
        from classact.nodes import mesh as mesh_lib

        mesh = mesh_lib.local_mesh()
        config, own = self.config, self.config.data_sets[data_set]
        policy = policies.get(own.policy)
        models = networks.role_models(config, own, self.data[data_set])
        roles = {scoring.published_name(policy, role): role for role in models}
        roles = {name: role for name, role in roles.items() if name in policy.published_models}
        follower = None
        if roles:
            place = functools.partial(mesh_lib.everywhere, mesh)
            follower = parameters.Follower(learner, tuple(roles), stop, place=place)
        server = inference_server.InferenceServer(
            scoring.make_scorer(policy, learning.make_task(config), models),
            references.fixed_variables(own),
            follower,
            roles,
            own.inference.batch_size,
            stop,
            MetricsWriter(self.workdir, f"inference-{name}"),
            own.inference.max_wait_seconds,
            mesh=mesh,
        )
        loops = [
            self.make_run_loop(data_set, replays, server.score, reader, stop, progress, learner)
            for reader in readers
        ]
        return inference_node.InferenceNode(server, loops, stop)

    def run_loop(
        self, data_set: str, learner: Any, replays: Sequence[str], server: Any, index: int
    ) -> "RunLoop":
        """Builds run loop `index` as a node; `server` is None for a policy without scores."""
        score = rpc.InferenceClient(server) if server is not None else None
        reader = self._own_reader(data_set, index)
        client = rpc.LearnerClient(learner)
        return self.make_run_loop(data_set, replays, score, reader, lp.stop_event(), client, client)

    def evaluator(self, learner: Any, name: str) -> "evaluator.Evaluator":
        """Builds an evaluator."""
        from classact.nodes import evaluator

        config = self.config
        return evaluator.Evaluator(
            name,
            evaluators.in_run(config, name, self.data),
            rpc.LearnerClient(learner),
            config.evaluation.every,
            lp.stop_event(),
            MetricsWriter(self.workdir, f"evaluator-{name}"),
            evaluated=max(self._evaluated(name), 0),
        )

    def _own_reader(self, data_set: str, index: int) -> Reader:
        """What run loop `index` of the program reads: they split each epoch among them."""
        own = self.config.data_sets[data_set].inference
        # One file a run: that of its first data set.
        shown = index == 0 and data_set == next(iter(self.config.data_sets))
        return Reader(f"{data_set}-{index}", self.config.seed, index, own.servers * own.run_loops, shown)

    def make_run_loop(
        self,
        data_set: str,
        replays: Sequence[str],
        score: Any,
        reader: Reader,
        stop: threading.Event,
        progress: rpc.LearnerClient | None = None,
        learner: "clocks.ClockSource | None" = None,
    ) -> "RunLoop":
        """Builds a run loop, the program's own or one that joins.

        Args:
            data_set: its name.
            replays: addresses of the data set's shards; the loop writes to the one
                that its reader's number is, modulo how many there are.
            score: asks an inference server; None for IID data.
            reader: what it reads.
            stop: ends it.
            progress: knows where the data set's readers are, and is told that this one opens
                its data and how far it gets; None: it begins an epoch of its own. Blocks
                until it answers.
            learner: knows the clocks of the data set's tables, where they filter.
        """
        from classact.data import stream
        from classact.nodes import clocks, cursors, opening, run_loop
        from classact.replay import writer

        config, own = self.config, self.config.data_sets[data_set]
        shard = reader.reader % len(replays)
        clock = None
        if learner is not None and self.table_config(data_set).filters:
            clock = clocks.ClockFollower(learner, data_set, shard, stop)
        shape = self.data[data_set]
        with opening.told(progress, data_set):
            source = sources.open_train_source(config, own, shape.held_out, known=shape.classes)
            identity.check_here(source, shape)
        cursors_found = json.loads(progress.get_cursors(data_set)) if progress is not None else None
        try:
            examples = stream.IIDStream(
                source, own.super_batch_size, reader.seed, reader.reader, reader.num_readers, cursors_found
            )
        except ValueError as error:
            # Of other data, or of another run: they stay that, however often the node is started.
            raise FatalError(str(error)) from error
        return run_loop.RunLoop(
            examples,
            score,
            writer.ReplayWriter(
                replays[shard],
                self.data[data_set].codec,
                self.table_config(data_set).table_names,
                stop,
            ),
            own.temperature,
            stop,
            MetricsWriter(self.workdir, f"run_loop-{reader.name}"),
            config.max_nonfinite_share,
            extremes_path=self.workdir / "scored_images.npz" if reader.shown else None,
            class_names=source.class_names or (),
            decode=sources.make_tokenizer(config).decode if config.task == "contrastive" else None,
            report_cursor=cursors.Reporter(progress, data_set, stop) if progress is not None else None,
            clock=clock,
        )
