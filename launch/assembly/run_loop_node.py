"""Builds a run loop in its own process, the program's or one that joins."""

import dataclasses
import json
import threading
from collections.abc import Sequence
from typing import Any

from classact.data import shard_stream
from classact.data.carried.sealing import Sealer
from classact.launch.assembly import rpc
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.parts import identity, kept, sources
from classact.launch.assembly.run_spec import RunSpec
from classact.nodes import clocks, cursors, opening, read_ahead, run_loop, scoring
from classact.nodes.errors import FatalError
from classact.nodes.metrics import MetricsWriter
from classact.replay import writer
from classact.selection import policies


@dataclasses.dataclass(frozen=True)
class Reader:
    """What one run loop reads of its data set; see `data.stream.Stream`.

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


def build_run_loop(
    run: RunSpec, data_set: str, learner: Any, replays: Sequence[str], server: Any, index: int
) -> run_loop.RunLoop:
    """Builds run loop `index` as a node; `server` is None where no server scores."""
    score = rpc.InferenceClient(server) if server is not None else None
    reader = own_reader(run, data_set, index)
    client = rpc.LearnerClient(learner)
    return make_run_loop(run, data_set, replays, score, reader, lp.stop_event(), client, client)


def own_reader(run: RunSpec, data_set: str, index: int) -> Reader:
    """What run loop `index` of the program reads: they split each epoch among them."""
    own = run.config.data_sets[data_set].inference
    # One file a run: that of its first data set.
    shown = index == 0 and data_set == next(iter(run.config.data_sets))
    return Reader(f"{data_set}-{index}", run.config.seed, index, own.servers * own.run_loops, shown)


def make_run_loop(
    run: RunSpec,
    data_set: str,
    replays: Sequence[str],
    score: Any,
    reader: Reader,
    stop: threading.Event,
    progress: rpc.LearnerClient | None = None,
    learner: clocks.ClockSource | None = None,
) -> run_loop.RunLoop:
    """Builds a run loop, the program's own or one that joins.

    Args:
        run: whose data it reads.
        data_set: its name.
        replays: addresses of the data set's shards; the loop writes to the one
            that its reader's number is, modulo how many there are.
        score: asks an inference server; None for IID data, or where score files say all.
        reader: what it reads.
        stop: ends it.
        progress: knows where the data set's readers are, and is told that this one opens
            its data and how far it gets; None: it begins an epoch of its own. Blocks
            until it answers.
        learner: knows the clocks of the data set's tables, where they filter.
    """
    config, own = run.config, run.config.data_sets[data_set]
    shard = reader.reader % len(replays)
    clock = None
    if learner is not None and run.table_config(data_set).filters:
        clock = clocks.ClockFollower(learner, data_set, shard, stop)
    shape = run.data[data_set]
    with opening.told(progress, data_set):
        source = sources.open_train_source(
            config, own, shape.held_out, known=shape.classes, images=own.carried
        )
        identity.check_here(source, shape)
    losses = kept.reference_losses(own)
    if score is None and policies.get(own.policy).scores:
        score = run_loop.scored_here(scoring.make_file_scorer(policies.get(own.policy)))
    cursors_found = json.loads(progress.get_cursors(data_set)) if progress is not None else None
    try:
        examples = shard_stream.make_stream(
            source, own.inference.request_size, reader.seed, reader.reader, reader.num_readers, cursors_found
        )
    except ValueError as error:
        # Of other data, or of another run: they stay that, however often the node is started.
        raise FatalError(str(error)) from error
    return run_loop.RunLoop(
        examples,
        score,
        writer.ReplayWriter(
            replays[shard],
            run.data[data_set].codec,
            run.table_config(data_set).table_names,
            stop,
            compression=own.replay.compression,
        ),
        own.temperature,
        stop,
        MetricsWriter(run.workdir, f"run_loop-{reader.name}"),
        config.max_nonfinite_share,
        extremes_path=run.workdir / "scored_images.npz" if reader.shown else None,
        class_names=source.class_names or (),
        decode=sources.make_tokenizer(config).decode if config.task == "contrastive" else None,
        report_cursor=cursors.Reporter(progress, data_set, stop) if progress is not None else None,
        clock=clock,
        reference_losses=losses,
        damaged=lambda: source.skipped,
        read_ahead_bytes=read_ahead.MAX_BYTES,
        seal=Sealer(own.carried),
    )
