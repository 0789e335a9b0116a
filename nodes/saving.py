"""When and with what the learner saves its state, so that nothing of the data is lost."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from classact.nodes import batches as batches_lib
from classact.nodes import checkpoints, pending_save, training
from classact.nodes import clocks as clocks_lib
from classact.nodes import cursors as cursors_lib
from classact.nodes import selected as selected_lib

# How long a learner that is asked to stop waits for what it reads ahead.
_STOP_SECONDS = 2.0
# Batches of a table that are drawn while it is not known that it has been set aside; they are kept in
# memory, and may be trained on twice by a run that is resumed. Then the learner waits.
MOST_UNKNOWN = 8
# How long it waits for that, and when it stops for tables that are being written.
_TABLES_SECONDS = 120.0


class Snapshots(Protocol):
    """What is needed of `replay.snapshots.Snapshots`."""

    def begin(self, step: int) -> pending_save.TablesSaving:
        """Asks for a data set's tables to be saved, and waits for nothing."""


class Saver:
    """Saves a state together with where the data is, while the learner goes on.

    In this order: the models and the run loops' cursors at a moment T; the tables, which
    their servers set aside some milliseconds later and write while they go on to serve; what the
    learner draws from T on until everything is drawn that had left the tables when they were set aside;
    and when all of it is on disk, the models' checkpoint. So an example that a run loop had passed at T
    is in one of the tables, or among what was drawn since, or was trained on, or was evicted:
    none is lost. A process that is killed before the models' checkpoint appears leaves the one before it.

    Repeated is what run loops wrote between their report and the moment at which the tables were
    set aside (their last two batches), and what was drawn after it: what was read ahead (of each table
    up to one batch more than `replay.read_ahead`), and at most `MOST_UNKNOWN` batches in which nobody
    knew of that moment.

    One state is saved at a time.
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
            checkpointer: of the models; used by a thread of the saver's while `is_saving`.
            cursors: of the run loops.
            batches: what the learner draws from; None: no tables are saved.
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
        self._pending: pending_save.PendingSave | None = None

    @property
    def is_saving(self) -> bool:
        """Whether the last state still waits for its tables; another one cannot begin until then."""
        return self._pending is not None

    def begin(self, step: int, state: training.TrainState) -> float:
        """Begins to save a state in the middle of a run; `go_on` must be called after each update.

        Blocks while the models are copied to the host. Where there are no tables, it also waits
        for the save before this one, and with several hosts until all have called it.

        Args:
            step: of the state.
            state: what to save; may be donated afterwards.

        Returns:
            Seconds that it took.

        Raises:
            OSError, ValueError: if the disk refused this checkpoint or the one before it.
        """
        started = time.monotonic()
        # Before the tables are set aside, so that what is between is repeated and not left out.
        without_tables = self._data(step, self.cursors.all_before_tables())
        if self._batches is None or not self._snapshots:
            self._checkpointer.save(step, state, without_tables)
            return time.monotonic() - started
        data = dataclasses.replace(without_tables, cursors=self.cursors.all())
        tables = {name: snapshots.begin(step) for name, snapshots in self._snapshots.items()}
        drawn = self._batches.keep_drawn()
        write = functools.partial(self._checkpointer.save, step, checkpoints.on_host(state))
        self._pending = pending_save.PendingSave(
            step, tables, drawn, self._checkpointer, write, data, without_tables
        )
        return time.monotonic() - started

    def go_on(self) -> float:
        """Sees whether there is something to do for the state that is being saved; called after each update.

        Blocks only if so much was drawn without knowing that the tables have been set aside that
        the learner must wait for that, at most two minutes.

        Returns:
            Seconds that it took.

        Raises:
            OSError, ValueError: if the disk refused a checkpoint.
        """
        pending = self._pending
        if pending is None or self._batches is None:
            return 0.0
        started = time.monotonic()
        if pending.done.is_set():
            self._end(pending)
        elif not pending.is_writing:
            self._look(pending, self._batches, wait=pending.drawn.most >= MOST_UNKNOWN)
            if pending.drawn.is_enough or not pending.has_tables:
                pending.start_writing()
        return time.monotonic() - started

    def save(self, step: int, state: training.TrainState, read_seconds: float | None = None) -> None:
        """Saves a state; blocks until its tables are on disk, and what was read ahead is drawn.

        Args:
            step: of the state.
            state: what to save.
            read_seconds: how long to wait at most for what is read ahead; None: as long as it takes.

        Raises:
            OSError, ValueError: if the disk refused this checkpoint or the one before it.
        """
        self.begin(step, state)
        pending = self._pending
        if pending is None or self._batches is None:
            return
        self._look(pending, self._batches, wait=True)
        if pending.has_tables:
            self._batches.draw_ahead(pending.drawn, read_seconds)
        pending.start_writing(_TABLES_SECONDS)
        pending.done.wait()
        self._end(pending)

    def save_stopped(self, step: int, state: training.TrainState) -> None:
        """Saves a state at which the run is stopped; blocks until it is on disk.

        A state that still waits for its tables to be written is saved before it: who has
        little time is left with that one.
        """
        if self._pending is not None and self._pending.is_writing:
            self._pending.done.wait(_TABLES_SECONDS)
        self._give_up()
        if step not in self._checkpointer.kept():
            self.save(step, state, _STOP_SECONDS)
        self._checkpointer.wait()

    def save_finished(self, step: int, state: training.TrainState) -> None:
        """Saves the last state, for which no data is needed; blocks until it is on disk.

        One that still waits for its tables is given up.
        """
        self._give_up()
        if step not in self._checkpointer.kept():
            self._checkpointer.save(step, state, checkpoints.DataState(selected=self._trained_on(step)))
        self._checkpointer.wait()

    def _data(self, step: int, cursors: Mapping[str, list[cursors_lib.Cursor]]) -> checkpoints.DataState:
        clocks = {name: item.all() for name, item in self._clocks.items()}
        return checkpoints.DataState(cursors, {}, clocks, self._trained_on(step))

    def _trained_on(self, step: int) -> Mapping[str, np.ndarray]:
        """What was trained on, for a later process; writes it for the report as well."""
        if self._selected is None:
            return {}
        self._selected.write(step)
        return self._selected.state()

    def _look(self, pending: pending_save.PendingSave, batches: batches_lib.Batches, wait: bool) -> None:
        """Looks whether all tables have been set aside, or waits for it."""
        if not pending.drawn.knows_enough and pending.are_set_aside(_TABLES_SECONDS if wait else 0.0):
            pending.drawn.set_aside(batches.read_ahead())

    def _give_up(self) -> None:
        """Leaves out the state that is being saved, unless that is almost done."""
        if self._pending is not None:
            self._pending.give_up()
            self._end(self._pending)

    def _end(self, pending: pending_save.PendingSave) -> None:
        self._pending = None
        pending.raise_failure()
