"""What the tables of a shard are, and how examples come into them; free of Reverb and gRPC."""

import dataclasses

# Holds scored examples; the learner's sub-batches come from it.
EXAMPLES_TABLE = "examples"
# Holds the same examples in the order of arrival, unfiltered: the IID stream of
# Algorithm 2. Both tables refer to one copy of the data.
STREAM_TABLE = "stream"

# What writers do with records: see `compression.Compressor`.
COMPRESSIONS = ("auto", "none", "snappy")


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """The tables of one shard of a data set: of all of it, if there is only one.

    Attributes:
        batch_size: b, examples that the learner takes of the shard per update.
        samples_per_insert: b/B; 1 − samples_per_insert of the examples leave
            unsampled. 1 makes a plain queue of the prioritized table.
        capacity: items that the table holds; the oldest leaves when one more
            comes. It bounds staleness: an item is at most
            capacity · samples_per_insert / batch_size updates in the table.
        super_batch: examples of the IID super-batch that the learner takes from
            the shard's stream table (Algorithm 2); 0: no stream table.
        read_ahead: batches of each table that the learner reads ahead at most.
    """

    batch_size: int
    samples_per_insert: float
    capacity: int
    super_batch: int = 0
    read_ahead: int = 1

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
    def filters(self) -> bool:
        """Whether some examples leave unsampled, so that it matters which are drawn first."""
        return self.samples_per_insert < 1.0

    @property
    def table_names(self) -> tuple[str, ...]:
        """The tables that a writer inserts into."""
        return (EXAMPLES_TABLE, STREAM_TABLE) if self.super_batch else (EXAMPLES_TABLE,)
