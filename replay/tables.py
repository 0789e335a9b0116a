"""The Reverb tables of one data set."""

import dataclasses

import reverb
import tensorflow as tf

# Holds scored examples; the learner's sub-batches come from it.
EXAMPLES_TABLE = "examples"
# Holds the same examples in the order of arrival, unfiltered: the IID stream of
# Algorithm 2. Both tables refer to one copy of the data.
STREAM_TABLE = "stream"


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """The tables of one data set.

    Attributes:
        batch_size: b, examples that the learner takes per update.
        samples_per_insert: b/B; 1 − samples_per_insert of the examples leave
            unsampled. 1 makes a plain queue of the prioritized table.
        capacity: items that the table holds; the oldest leaves when one more
            comes. It bounds staleness: an item is at most
            capacity · samples_per_insert / batch_size updates in the table.
        super_batch: examples of the IID super-batch that the learner takes from
            the stream table (Algorithm 2); 0: no stream table.
    """

    batch_size: int
    samples_per_insert: float
    capacity: int
    super_batch: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: must be at least 1")
        if not 0.0 < self.samples_per_insert <= 1.0:
            raise ValueError(f"samples_per_insert={self.samples_per_insert}: must be above 0 and at most 1")
        if self.capacity < 2 * self.inserts_per_update:
            raise ValueError(
                f"replay capacity {self.capacity} is too small: it must hold two super-batches, "
                f"{2 * self.inserts_per_update} examples"
            )

    @property
    def inserts_per_update(self) -> int:
        """B, examples that are scored per update."""
        return round(self.batch_size / self.samples_per_insert)

    @property
    def table_names(self) -> tuple[str, ...]:
        """The tables that a writer inserts into."""
        return (EXAMPLES_TABLE, STREAM_TABLE) if self.super_batch else (EXAMPLES_TABLE,)


def make_tables(config: TableConfig, record_bytes: int) -> list[reverb.Table]:
    """Builds the tables, empty.

    Inserts block while they are more than the rate limiter's error buffer ahead
    of the ratio, samples block while the table holds too few items; neither
    drops anything.

    Args:
        config: sizes and ratio.
        record_bytes: size of one packed record, see `records.RecordCodec`.

    Returns:
        The prioritized table and, if asked for, the stream table.
    """
    signature = tf.TensorSpec((record_bytes,), tf.uint8)
    filters = config.samples_per_insert < 1.0
    # Two sub-batches of slack let writers and learner work at the same time.
    slack = 2.0 * config.batch_size + 2.0
    # Whichever table stops the writer starves the learner of the other one, so
    # each lets it run ahead by all that the learner may wait for in the other.
    stream_slack = float(config.capacity + 2 * config.super_batch + 4 * config.inserts_per_update)
    if config.super_batch:
        slack = max(slack, config.samples_per_insert * stream_slack)
    tables = [
        reverb.Table(
            name=EXAMPLES_TABLE,
            # Without filtering each example is wanted once, in any order.
            sampler=reverb.selectors.Prioritized(1.0) if filters else reverb.selectors.Fifo(),
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


def make_checkpointer(directory: str) -> reverb.checkpointers.CheckpointerBase:
    """Where the server keeps its checkpoints; without one it makes a temporary directory."""
    return reverb.checkpointers.DefaultCheckpointer(directory)
