"""The Reverb tables of one shard of a data set."""

import pathlib
import threading

import reverb
import tensorflow as tf

from classact.replay import snapshots
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig


def make_tables(config: TableConfig, record_bytes: int) -> list[reverb.Table]:
    """Builds the tables, empty.

    Inserts block while they are more than the rate limiter's error buffer ahead
    of the ratio, samples block while the table holds too few items; neither
    drops anything.

    Args:
        config: sizes and ratio.
        record_bytes: size of one packed record, see `records.RecordCodec`.

    Returns:
        The table that gives out the item with the smallest priority first and, if asked
        for, the stream table.
    """
    signature = tf.TensorSpec((record_bytes,), tf.uint8)
    filters = config.filters
    # Two sub-batches of slack let writers and learner work at the same time. With the
    # default capacity it is also what must be there before the first sample, so that
    # samples never lead the ratio.
    slack = 2.0 * config.batch_size if filters else 2.0 * config.batch_size + 2.0
    # Whichever table stops the writer starves the learner of the other one, so
    # each lets it run ahead by all that the learner may wait for in the other.
    stream_slack = float(config.capacity + 2 * config.super_batch + 4 * config.inserts_per_update)
    if config.super_batch:
        slack = max(slack, config.samples_per_insert * stream_slack)
    tables = [
        reverb.Table(
            name=EXAMPLES_TABLE,
            # Without filtering each example is wanted once, in any order.
            sampler=reverb.selectors.MinHeap() if filters else reverb.selectors.Fifo(),
            remover=reverb.selectors.Fifo(),
            max_size=config.capacity,
            max_times_sampled=1,
            rate_limiter=reverb.rate_limiters.SampleToInsertRatio(
                samples_per_insert=config.samples_per_insert,
                min_size_to_sample=config.capacity // 2 if filters else 1,
                error_buffer=slack,
            ),
            signature=signature,
        )
    ]
    if config.super_batch:
        tables.append(
            reverb.Table(
                name=STREAM_TABLE,
                sampler=reverb.selectors.Fifo(),
                remover=reverb.selectors.Fifo(),
                # The rate limiter keeps it smaller: nothing is removed unseen.
                max_size=int(2 * stream_slack),
                max_times_sampled=1,
                rate_limiter=reverb.rate_limiters.SampleToInsertRatio(
                    samples_per_insert=1.0, min_size_to_sample=1, error_buffer=stream_slack
                ),
                signature=signature,
            )
        )
    return tables


def serve(
    config: TableConfig, record_bytes: int, port: int, folder: pathlib.Path, stop: threading.Event
) -> None:
    """Serves the tables on a port; blocks until `stop`.

    Begins with what `snapshots.Snapshots` saved last in the folder, and empty if there
    is nothing.
    """
    server = reverb.Server(
        make_tables(config, record_bytes), port=port, checkpointer=snapshots.checkpointer(folder)
    )
    stop.wait()
    server.stop()
