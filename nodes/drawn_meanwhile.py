"""What is drawn of the tables while they are being saved: kept, as it may be in none of what is saved."""

import collections
from collections.abc import Mapping

import numpy as np

# A data set and one of its tables.
Key = tuple[str, str]


class DrawnMeanwhile:
    """The records of batches that left the tables about when these were set aside.

    It is told of each batch that is drawn. Which of them had left a table when it was set aside
    nobody knows; that all of those are here is known once the tables have been set aside and, after
    that, what is read ahead of the learner has been drawn as well.
    """

    def __init__(self, before: Mapping[Key, np.ndarray]) -> None:
        """Begins with what was drawn before and is not trained on yet, uint8[n, bytes] by table."""
        self._records = {key: [records] for key, records in before.items()}
        self._drawn: collections.Counter[Key] = collections.Counter()
        # By table how many batches must have been drawn; None: the tables are not set aside yet.
        self._enough: dict[Key, int] | None = None

    @property
    def most(self) -> int:
        """Batches that have been drawn of the table of which most were."""
        return max(self._drawn.values(), default=0)

    @property
    def is_enough(self) -> bool:
        """Whether all is here that had left the tables when they were set aside."""
        return self._enough is not None and all(
            self._drawn[key] >= number for key, number in self._enough.items()
        )

    @property
    def knows_enough(self) -> bool:
        """Whether `set_aside` was called, or `give_up`."""
        return self._enough is not None

    def add(self, key: Key, records: np.ndarray) -> None:
        """Takes the records of a batch of a table, uint8[n, bytes]."""
        if not self.is_enough:
            self._records[key].append(records)
            self._drawn[key] += 1

    def set_aside(self, read_ahead: Mapping[Key, int]) -> None:
        """The tables have been set aside; of each so many batches may have left it and are not drawn yet."""
        self._enough = {key: self._drawn[key] + number for key, number in read_ahead.items()}

    def give_up(self) -> None:
        """Keeps nothing any more: what is saved goes without tables."""
        self._records, self._enough = {}, {}

    def records(self) -> dict[str, np.ndarray]:
        """All records in the order in which they were drawn, uint8[n, bytes] by "<data set>.<table>"."""
        return {".".join(key): np.concatenate(found) for key, found in self._records.items()}
