"""When and with what the learner saves its state, so that nothing of the data is lost."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from classact.nodes import batches as batches_lib
from classact.nodes import checkpoints, training
from classact.nodes import clocks as clocks_lib
from classact.nodes import cursors as cursors_lib
from classact.nodes import selected as selected_lib

# How long a learner that is asked to stop waits for what it reads ahead.
_STOP_SECONDS = 2.0


class Snapshots(Protocol):
    """What is needed of `replay.snapshots.Snapshots`."""

    def save(self, step: int, kept: Sequence[int]) -> None:
        """Saves a data set's tables; raises RuntimeError if that fails."""

    def discard(self, step: int) -> None:
        """Removes the tables that were saved at a step."""


class Saver:
    """Saves a state together with where the data is.

    In this order: the run loops' cursors, the tables, what has left the tables and is not
    yet trained on, the models. So an example that a run loop had passed is in one of the
    tables, or was read ahead, or was trained on, or was evicted: none is lost. Repeated
    is what run loops wrote between their report and the saving of the tables (their last
    two batches, and what they write while the tables are saved), and what is read ahead after it
    (up to two batches of each table).
    """

    def __init__(
        self,
        checkpointer: checkpoints.Checkpointer,
        cursors: cursors_lib.Cursors,
        batches: batches_lib.Batches | None = None,
        snapshots: Mapping[str, Snapshots] | None = None,
        clocks: Mapping[str, clocks_lib.Clocks] | None = None,
        selected: selected_lib.Selected | None = None,
    ) -> None:
        """Saves nothing yet.

        Args:
            checkpointer: of the models.
            cursors: of the run loops.
            batches: what the learner draws from; None: what was read ahead is not saved.
            snapshots: of the tables by data set; where there are none, a run that is
                resumed begins with empty tables, and its run loops so far back that they
                read again what the tables held.
            clocks: of the tables by data set.
            selected: what the learner has trained on; its files are written with each state.
        """
        self.cursors = cursors
        self._checkpointer = checkpointer
        self._batches = batches
        self._snapshots = dict(snapshots or {})
        self._clocks = dict(clocks or {})
        self._selected = selected

    def save(self, step: int, state: training.TrainState, read_seconds: float | None = None) -> float:
        """Saves a state in the middle of a run.

        Blocks until the tables are on disk and two batches of each are drawn (see
        `Batches.read_ahead`), and while the models are copied to the host.

        Args:
            step: of the state.
            state: what to save.
            read_seconds: how long to wait for these batches at most; None: as long as it takes.

        Returns:
            Seconds that it took.

        Raises:
            OSError, ValueError: if the disk refused this checkpoint or the one before it.
        """
        started = time.monotonic()
        # Before the tables are saved, so that what is between is repeated and not left out.
        cursors = self.cursors.all()
        clocks = {name: item.all() for name, item in self._clocks.items()}
        read_ahead: dict[str, np.ndarray] = {}
        if self._batches is None or not self._save_tables(step):
            cursors = self.cursors.all_before_tables()
        else:
            found = self._batches.read_ahead(read_seconds)
            read_ahead = {
                f"{data_set}.{table}": records
                for data_set, tables in found.items()
                for table, records in tables.items()
            }
        data = checkpoints.DataState(cursors, read_ahead, clocks, self._trained_on(step))
        self._checkpointer.save(step, state, data)
        return time.monotonic() - started

    def save_stopped(self, step: int, state: training.TrainState) -> None:
        """Saves a state at which the run is stopped; blocks until it is on disk."""
        if step not in self._checkpointer.kept():
            self.save(step, state, _STOP_SECONDS)
        self._checkpointer.wait()

    def save_finished(self, step: int, state: training.TrainState) -> None:
        """Saves the last state, for which no data is needed; blocks until it is on disk."""
        if step not in self._checkpointer.kept():
            self._checkpointer.save(step, state, checkpoints.DataState(selected=self._trained_on(step)))
        self._checkpointer.wait()

    def _trained_on(self, step: int) -> dict[str, np.ndarray]:
        """What was trained on, for a later process; writes it for the report as well."""
        if self._selected is None:
            return {}
        self._selected.write(step)
        return self._selected.state()

    def _save_tables(self, step: int) -> bool:
        """Saves all data sets' tables; False if one could not be saved, and then none is there."""
        kept = self._checkpointer.kept()
        try:
            for snapshots in self._snapshots.values():
                snapshots.save(step, kept)
        except RuntimeError as error:
            logging.warning("checkpoint %d goes without tables: %s", step, error)
            # The run loops of all data sets go back to before what their tables held.
            for snapshots in self._snapshots.values():
                snapshots.discard(step)
            return False
        return True
