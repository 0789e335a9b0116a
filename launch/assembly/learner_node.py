"""Builds the learner in its own process, from the run and the handles of the other nodes."""

import functools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from classact.data.carried.kinds import ENCODED, IDS, PIXELS
from classact.data.carried.opening import FromFiles, FromSource, Opener
from classact.data.decoding import pool
from classact.experiments.config import ConfigError
from classact.launch.assembly import rpc, selector_node
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.parts import choosing, class_meaning, learning, ordered, sources, starts
from classact.launch.assembly.run_spec import RunSpec
from classact.nodes import (
    batches,
    checkpoints,
    clocks,
    compiled_ahead,
    cursors,
    heap,
    image_opening,
    learner,
    opening,
    ordered_batches,
    saving,
    selected,
    starting,
    stream_balance,
    tally,
    training,
)
from classact.nodes import mesh as mesh_lib
from classact.nodes.hosts import of_host
from classact.nodes.metrics import ExampleRecorder, MetricsWriter
from classact.replay import dataset, snapshots, tables
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE


def build_learner(
    run: RunSpec, *replays: Sequence[str], host: int = 0, coordinator: str = "", first_host: Any = None
) -> learner.Learner:
    """Builds the learner, or one host's part of it, as the newest checkpoint left it.

    May block until all hosts do.

    Args:
        run: that it belongs to.
        *replays: the addresses of each data set's shards, in the order of the data sets.
        host: which of the hosts that train together.
        coordinator: where the first of them listens for the others.
        first_host: the learner there, of the other hosts.
    """
    heap.give_back_after_compiling()
    config = run.config
    hosts = config.mesh.hosts
    if hosts > 1:
        mesh_lib.join_hosts(coordinator, hosts, host)
    try:
        mesh = mesh_lib.make_mesh(config.mesh.fsdp)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    learning.check_batches(config, mesh.size if mesh is not None else 1)
    trained = learning.trained_models(config, run.shape)
    update = compiled_ahead.CompiledAhead(
        learning.make_update(config, trained, mesh),
        training.state_shapes(trained, mesh),
        *_batch_shapes(run, mesh),
    )
    state = training.init_state(trained, config.seed, mesh)
    checkpointer = checkpoints.Checkpointer(
        run.workdir / "checkpoints", classes=class_meaning.of_head(config, run.shape)
    )
    data_state = checkpoints.DataState()
    restored = checkpointer.restore(state)
    if restored is not None:
        state, data_state = restored
    else:
        state = starting.start_from(state, starts.variables_of(config, run.shape))
    # None of a data set that comes in a recorded order.
    addresses = {name: own for name, own in zip(config.data_sets, replays, strict=True) if own}
    races = {
        name: clocks.Clocks(len(addresses[name]), data_state.clocks.get(name, ()))
        for name in addresses
        if run.table_config(name).filters
    }
    openings = opening.Openings()
    opening_seconds: Callable[[str], float | None] = openings.seconds
    if host:
        opening_seconds = opening.here_or_there(openings, rpc.LearnerClient(first_host).get_opening_seconds)
    in_order = functools.partial(_in_order, run, int(state.step), mesh, openings, host)
    transfers = {name: _transfer(run, name, mesh, openings) for name in addresses}
    sub_batches = _batches(
        run, addresses, data_state, transfers, mesh, races, in_order, opening_seconds, host
    )
    first = host == 0
    counted = None
    if hosts == 1:
        names = {name: run.data[name].class_names for name in config.data_sets}
        counted = selected.Selected(run.workdir, names, None if restored is None else data_state.selected)
    saver = _saver(run, checkpointer, data_state, sub_batches, addresses, races, counted)
    statistics = {
        name: transfers[name].counted(_statistics(run, name, shards, sub_batches.super_batches.get(name)))
        for name, shards in addresses.items()
        if first
    }
    evaluating = tuple(config.evaluation.evaluators) if first else ()
    return selector_node.make_learner(
        learner.LearnerConfig(
            steps=config.steps,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            evaluators=evaluating,
        ),
        trained,
        update,
        state,
        selector_node.drawn_from(run, sub_batches),
        lp.stop_event(),
        MetricsWriter(run.workdir, "learner") if first else None,
        saver,
        statistics,
        mesh,
        mesh_lib.any_host(mesh) if hosts > 1 and mesh is not None else None,
        {name: run.evaluated(name) for name in evaluating},
        _recorder(run, mesh) if first else None,
        races,
        openings,
        counted,
    )


def _recorder(
    run: RunSpec, mesh: jax.sharding.Mesh | None
) -> Callable[[int, Mapping[str, Any], Mapping[str, Any]], None]:
    """Counts the updates, and writes what they were made from if that is asked for."""
    devices = mesh.size if mesh is not None else 1
    counts = tally.Tally(run.workdir, "learner", kind="training", devices=devices)
    record = ExampleRecorder(run.workdir, run.config.scored) if run.config.record_examples else None

    def on_update(step: int, ids: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
        counts.add({"step": step}, updates=1)
        if record is not None:
            record(step, ids, scores)

    return on_update


def _batch_shapes(run: RunSpec, mesh: jax.sharding.Mesh | None) -> list[compiled_ahead.Shapes]:
    """Of the sub-batches and the super-batches of all data sets."""
    found: list[compiled_ahead.Shapes] = [{}, {}]
    for name, own in run.config.data_sets.items():
        record = run.data[name].examples(1)
        for shapes, size in zip(found, (own.batch_size, own.reference.super_batch), strict=True):
            if size:
                shapes[name] = compiled_ahead.batch_shapes(record, size, mesh)
    return found


def _saver(
    run: RunSpec,
    checkpointer: checkpoints.Checkpointer,
    data_state: checkpoints.DataState,
    sub_batches: batches.Batches,
    addresses: Mapping[str, Sequence[str]],
    races: Mapping[str, clocks.Clocks],
    counted: selected.Selected | None,
) -> saving.Saver:
    # Of several hosts none knows what the others have read ahead.
    whole = run.config.mesh.hosts == 1
    held = {name: _table_batches(run, name) for name in addresses}
    saved = {
        name: snapshots.Snapshots(shards, run.replay_folders(name)) for name, shards in addresses.items()
    }
    return saving.Saver(
        checkpointer,
        cursors.Cursors(data_state.cursors, held),
        sub_batches if whole else None,
        saved if whole else {},
        races,
        counted,
    )


def _statistics(
    run: RunSpec, data_set: str, shards: Sequence[str], windows: batches.SuperBatches | None
) -> stream_balance.Ask:
    """What gives the counts of a data set's table."""
    own = run.config.data_sets[data_set]
    examples = dataset.TableStatistics(shards, EXAMPLES_TABLE)
    # Several hosts save no tables, so nothing adds up over resumes.
    if windows is None or run.config.mesh.hosts > 1:
        return examples
    return stream_balance.StreamBalance(
        examples,
        dataset.TableStatistics(shards, STREAM_TABLE),
        windows,
        own.batch_size,
        own.super_batch_size,
        own.reference.super_batch,
        own.replay.read_ahead,
    )


def _table_batches(run: RunSpec, data_set: str) -> int:
    """How many requests of one run loop may be in a data set's tables and in what reads them."""
    own = run.config.data_sets[data_set]
    held = own.replay.capacity + own.reference.super_batch + _ahead(run) * own.super_batch_size
    # The writer's unfinished one, and one that it has not reported yet.
    return math.ceil(held / own.inference.request_size) + 2


def _ahead(run: RunSpec) -> int:
    """In how many batches of each table all is that has left it, see `batches.Batches`."""
    return 1 + max(own.replay.read_ahead for own in run.config.data_sets.values())


def _in_order(
    run: RunSpec,
    step: int,
    mesh: jax.sharding.Mesh | None,
    openings: opening.Openings,
    host: int,
    data_set: str,
    stop: threading.Event,
) -> ordered_batches.OrderedBatches:
    """Starts reading a data set that comes in a recorded order, after so many updates."""
    config, own = run.config, run.config.data_sets[data_set]
    rows = ordered.host_rows(own.batch_size, config.mesh.hosts, host)

    def open_stream() -> Iterator[Mapping[str, np.ndarray]]:
        with opening.told_here(openings, data_set):
            return ordered.open_stream(config, data_set, own, run.data[data_set], step, rows)

    transfer = functools.partial(batches.to_device, mesh=mesh)
    return ordered_batches.OrderedBatches(open_stream, transfer, stop, data_set)


def _transfer(
    run: RunSpec, data_set: str, mesh: jax.sharding.Mesh | None, openings: opening.Openings
) -> image_opening.Transfer:
    """What moves a data set's batches to the devices, after it has made images of what was carried."""
    config, own = run.config, run.config.data_sets[data_set]
    pool.use_threads(config.threads.decoding)
    to_device = functools.partial(batches.to_device, mesh=mesh)

    def from_files() -> Opener:
        shape = run.data[data_set]
        return FromFiles(shape.name, shape.image_shape, own.augment, config.seed)

    def from_source() -> Opener:
        with opening.told_here(openings, data_set):
            return FromSource(sources.open_carried_images(config, own))

    makers = {PIXELS: None, ENCODED: from_files, IDS: from_source}
    return selector_node.transfer_kind(run, data_set)(data_set, makers[own.carried], to_device)


def _batches(
    run: RunSpec,
    addresses: Mapping[str, Sequence[str]],
    data_state: checkpoints.DataState,
    transfers: Mapping[str, image_opening.Transfer],
    mesh: jax.sharding.Mesh | None,
    races: Mapping[str, clocks.Clocks],
    in_order: Callable[[str, threading.Event], batches.Dataset],
    opening_seconds: Callable[[str], float | None],
    host: int,
) -> batches.Batches:
    """Starts reading the tables of all data sets, after what an earlier process had read ahead."""
    config = run.config
    stop_reading = threading.Event()
    chosen = {name: choosing.chosen_first(config, name, transfer) for name, transfer in transfers.items()}

    # One: that of an update of which another data set's batch is not there when the run is stopped.
    def sampled(data_set: str, table: str, batch_size: int, remembered: int = 1) -> dataset.ReplayDataset:
        race = races.get(data_set) if table == EXAMPLES_TABLE else None
        ahead = data_state.read_ahead.get(f"{data_set}.{table}")
        if ahead is not None:
            ahead = of_host(ahead, batch_size, config.mesh.hosts, host)
        return dataset.ReplayDataset(
            addresses[data_set],
            table,
            run.data[data_set].codec,
            # An item is sampled once, so that no two hosts read the same.
            batch_size // config.mesh.hosts,
            stop_reading,
            chosen[data_set] if table == EXAMPLES_TABLE else transfers[data_set],
            # Several hosts save no tables, see `_saver`.
            remembered=remembered if config.mesh.hosts == 1 else 0,
            first=ahead,
            drawn=race.drawn if race is not None else None,
            read_ahead=config.data_sets[data_set].replay.read_ahead,
        )

    return batches.Batches(
        {
            name: sampled(name, EXAMPLES_TABLE, own.drawn_size)
            if name in addresses
            else in_order(name, stop_reading)
            for name, own in config.data_sets.items()
        },
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
                tables.updates_between(run.table_config(name)),
            )
            for name, own in config.data_sets.items()
            if own.reference.super_batch
        },
        lp.stop_event(),
        config.no_data_seconds,
        stop_reading,
        opening_seconds,
        _ahead(run),
    )
