"""What the tables of one shard of a data set do, said so that any Python can serve them."""

import dataclasses
import math

from classact.replay import protocol
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig

# By how many sub-batches more may have been drawn of one table than of the other, as the learner's
# updates go: of each some are drawn ahead, and a run that is resumed counts from what was drawn of both when
# they were saved. The learner brings them together again long before (`nodes/stream_balance.py`). For each
# batch more that is read ahead: what a resumption may add, what reading ahead may hide, and is usual.
DRIFT, _DRIFT_AHEAD = 8, 3


@dataclasses.dataclass(frozen=True)
class Table:
    """A Reverb table whose items are given out once; the oldest leaves when there is no room.

    Inserts block while they are so far ahead that inserts · samples_per_insert − samples would be above
    `max_diff`; samples block while it would be below `min_diff`, or the table holds too few
    items. Neither drops anything.

    Attributes:
        name: of the table.
        record_bytes: size of one packed record, see `records.RecordCodec`.
        smallest_first: whether the item of the smallest priority is drawn first; else the oldest.
        max_size: items that it holds.
        samples_per_insert: see above.
        min_size_to_sample: items that have to be there.
        error_buffer: how far the difference may be from samples_per_insert · min_size_to_sample.
    """

    name: str
    record_bytes: int
    smallest_first: bool
    max_size: int
    samples_per_insert: float
    min_size_to_sample: int
    error_buffer: float

    def __post_init__(self) -> None:
        least = max(1.0, self.samples_per_insert)
        if self.error_buffer < least:
            raise ValueError(
                f"error_buffer={self.error_buffer}: must be at least {least}, "
                "or the table could come to block inserts and samples at once"
            )

    def for_server(self) -> dict[str, object]:
        """What `server_program` needs to know of it, as values of JSON."""
        centre = self.samples_per_insert * self.min_size_to_sample
        signature = protocol.Signature()
        signature.tensor_spec.dtype = protocol.UINT8
        signature.tensor_spec.shape.dim.add(size=self.record_bytes)
        return {
            "name": self.name,
            "smallest_first": self.smallest_first,
            "max_size": self.max_size,
            "samples_per_insert": self.samples_per_insert,
            "min_size_to_sample": self.min_size_to_sample,
            "min_diff": centre - self.error_buffer,
            "max_diff": centre + self.error_buffer,
            "signature": signature.SerializeToString().hex(),
        }


def updates_between(config: TableConfig) -> int:
    """After how many updates another one may do without a batch of the stream.

    Writers that the stream holds back put nothing into the examples' table meanwhile, and of those that wait
    there to be drawn there may be few. So many updates let them put in what one draws.
    """
    more = config.inserts_per_update - config.batch_size
    return math.ceil(config.batch_size / more) if more else 1


def make_tables(config: TableConfig, record_bytes: int) -> list[Table]:
    """Describes the tables.

    Args:
        config: sizes and ratio.
        record_bytes: size of one packed record.

    Returns:
        The table that gives out the item with the smallest priority first and, if asked
        for, the stream table.
    """
    filters = config.filters
    least = config.capacity // 2 if filters else 1
    # Two sub-batches of slack let writers and learner work at the same time. With the
    # default capacity it is also what must be there before the first sample, so that
    # samples never lead the ratio.
    slack = 2.0 * config.batch_size if filters else 2.0 * config.batch_size + 2.0
    # Whichever table stops the writer starves the learner of the other one. So each lets it run ahead by
    # what the learner may wait for in the other: in the examples for `least` of them and a sub-batch, which
    # it draws before it draws from the stream; in the stream for a first super-batch.
    drift = float((DRIFT + _DRIFT_AHEAD * (config.read_ahead - 1)) * config.batch_size)
    stream_slack = least + config.batch_size + drift
    if config.super_batch:
        slack = max(slack, config.samples_per_insert * config.super_batch) + drift
    examples = Table(
        name=EXAMPLES_TABLE,
        record_bytes=record_bytes,
        # Without filtering each example is wanted once, in any order.
        smallest_first=filters,
        # Nothing leaves unseen where nothing is filtered: the rate limiter keeps it smaller.
        max_size=config.capacity if filters else max(config.capacity, int(slack) + 2),
        samples_per_insert=config.samples_per_insert,
        min_size_to_sample=least,
        error_buffer=slack,
    )
    if not config.super_batch:
        return [examples]
    stream = Table(
        name=STREAM_TABLE,
        record_bytes=record_bytes,
        smallest_first=False,
        # The rate limiter keeps it smaller: nothing is removed unseen.
        max_size=int(2 * stream_slack) + 2,
        samples_per_insert=1.0,
        min_size_to_sample=1,
        error_buffer=stream_slack,
    )
    return [examples, stream]
