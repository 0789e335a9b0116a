"""A state that is being saved while the learner goes on: it waits for its tables to be on disk."""

import dataclasses
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from classact.nodes import checkpoints, drawn_meanwhile

# How long tables may take to be written behind the learner's back: Reverb compresses them, some 20 MB/s
# of pixels on one core.
WRITE_SECONDS = 1800.0


class TablesSaving(Protocol):
    """What is needed of `replay.snapshots.Saving`."""

    def is_set_aside(self) -> bool:
        """Whether it is settled what is saved; RuntimeError if it cannot be."""

    def wait_set_aside(self, timeout: float) -> None:
        """Waits for that; RuntimeError if it cannot be, or after `timeout` seconds."""

    def finish(self, kept: Collection[int], timeout: float) -> None:
        """Waits until the tables are saved; raises RuntimeError if they are not, or too late."""

    def give_up(self) -> None:
        """Removes what was saved, or will be."""


class Checkpointer(Protocol):
    """What is needed of `checkpoints.Checkpointer`."""

    def kept(self) -> list[int]:
        """Steps that are there."""


class PendingSave:
    """First the tables, then what was drawn meanwhile, then the models: a checkpoint is whole or not there.

    Of the thread that trains; its own thread waits for the tables and then writes the models.

    Attributes:
        drawn: what is drawn meanwhile.
        done: set when the models are handed to Orbax, or when they never will be.
    """

    def __init__(
        self,
        step: int,
        tables: Mapping[str, TablesSaving],
        drawn: drawn_meanwhile.DrawnMeanwhile,
        checkpointer: Checkpointer,
        write: Callable[[checkpoints.DataState], None],
        data: checkpoints.DataState,
        without_tables: checkpoints.DataState,
    ) -> None:
        """Waits for the tables to be set aside.

        Args:
            step: of the state.
            tables: that were asked to save, by data set.
            drawn: see the class.
            checkpointer: asked for its steps by the thread.
            write: saves the models, with where the data was; called by the thread.
            data: to save with tables, but for what was drawn.
            without_tables: to save if the tables could not be.
        """
        self.drawn = drawn
        self.done = threading.Event()
        self._step = step
        self._tables = dict(tables)
        self._checkpointer = checkpointer
        self._write = write
        self._data, self._without_tables = data, without_tables
        self._lock = threading.Lock()
        self._given_up = self._writes_models = False
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def is_writing(self) -> bool:
        """Whether only disks are waited for."""
        return self._thread is not None

    @property
    def has_tables(self) -> bool:
        """Whether the tables are, or may yet be, part of it."""
        return bool(self._tables)

    def are_set_aside(self, wait: float = 0.0) -> bool:
        """Whether all tables are set aside; if one cannot be, it goes on without tables.

        Args:
            wait: seconds after which one counts as such that is still not set aside; 0: does not wait.
        """
        try:
            if wait:
                for tables in self._tables.values():
                    tables.wait_set_aside(wait)
            # Of all, so that a failure of the last one is seen before the first is set aside.
            return all([tables.is_set_aside() for tables in self._tables.values()])
        except RuntimeError as error:
            self._go_without(error)
            return False

    def start_writing(self, timeout: float = WRITE_SECONDS) -> None:
        """Has the thread wait up to `timeout` seconds for the tables, and then write the models."""
        self._thread = threading.Thread(
            target=self._finish, args=(timeout,), name="saving a checkpoint", daemon=True
        )
        self._thread.start()

    def raise_failure(self) -> None:
        """Raises what the models' writing has raised: OSError or ValueError, as a rule."""
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """Leaves this checkpoint out; if the models are being written already, waits until they are."""
        with self._lock:
            self._given_up = True
        if self._writes_models:
            self.done.wait()
            return
        for tables in self._tables.values():
            tables.give_up()

    def _finish(self, timeout: float) -> None:
        try:
            self._finish_tables(timeout)
            with self._lock:
                if self._given_up:
                    return
                self._writes_models = True
            self._write(self._data)
        # Whatever it was: the learner must hear of it.
        except Exception as error:
            self._error = error
        finally:
            self.done.set()

    def _finish_tables(self, timeout: float) -> None:
        try:
            for tables in self._tables.values():
                tables.finish(self._checkpointer.kept(), timeout)
            if self._tables:
                self._data = dataclasses.replace(self._data, read_ahead=self.drawn.records())
        except RuntimeError as error:
            self._go_without(error)

    def _go_without(self, error: RuntimeError) -> None:
        if not self._given_up:
            logging.warning("checkpoint %d goes without tables: %s", self._step, error)
        # The run loops of all data sets go back to before what their tables held.
        for tables in self._tables.values():
            tables.give_up()
        self._tables = {}
        self._data = self._without_tables
        # Else it would be told of all that is drawn until the next state is saved.
        self.drawn.give_up()
