"""How much a node has computed: exact counts that outlive the process, for the run's ledger.

Metrics are written now and then, and a process that is killed takes the rest with it. A tally is
one short line of JSON in a file of its own, overwritten in place with each batch: the operating
system has it when `add` returns. Each process has a file of its own, so that a node that is started
again, a run that is resumed and a node that joins all count on; the sum of the files is what was computed.
"""

import json
import logging
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import jax

FOLDER = "tallies"
# A line is padded to this, so that a shorter one leaves nothing of the one before.
_BYTES = 1024


class Tally:
    """Counts of one process's node. Any number of threads may add."""

    def __init__(self, workdir: "str | os.PathLike[str]", node: str, **what: Any) -> None:
        """Says where; the file is made when something is first added.

        It is `tallies/<node>.<number>.json`, with the first number that is free.

        Args:
            workdir: the run directory.
            node: the node's name, as of its metrics.
            **what: which work it is, as JSON has it: `kind`, `devices` that share it (1 if not
                said), and what tells it from others. `platform` is added: JAX's name for them.
        """
        self._folder = pathlib.Path(workdir) / FOLDER
        self._node = node
        self._what = dict(what)
        self._file: int | None = None
        self._counts: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, newest: Mapping[str, float] | None = None, **more: float) -> None:
        """Adds to counts, and writes all of them.

        Args:
            newest: values to take in place of those before.
            **more: what is added, by name.

        Raises:
            OSError: if the disk refuses it.
        """
        with self._lock:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = _new_file(self._folder, self._node)
                self._what["platform"] = jax.default_backend()
            for name, value in more.items():
                self._counts[name] = self._counts.get(name, 0) + value
            self._counts.update(newest or {})
            line = json.dumps({**self._what, **self._counts}).ljust(_BYTES - 1) + "\n"
            os.pwrite(self._file, line.encode(), 0)


def _new_file(folder: pathlib.Path, node: str) -> int:
    number = 0
    while True:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            return os.open(folder / f"{node}.{number}.json", flags, 0o644)
        except FileExistsError:
            number += 1


def read(workdir: "str | os.PathLike[str]") -> list[dict[str, Any]]:
    """The tallies of a run, of all processes that it has ever had.

    Returns:
        `kind` and the counts of each, in the order in which its node had them; none of a
        run that was made before there were tallies. One that is damaged is left out, with a warning.
    """

    def number(path: pathlib.Path) -> tuple[str, int]:
        node, _, count = path.stem.rpartition(".")
        return node, int(count) if count.isdecimal() else 0

    found = []
    for path in sorted((pathlib.Path(workdir) / FOLDER).glob("*.json"), key=number):
        try:
            tally = json.loads(path.read_text())
            if not isinstance(tally, dict) or "kind" not in tally:
                raise ValueError("it names no kind of work")
        # The latter of the machine's death while it was written.
        except (OSError, ValueError) as error:
            logging.warning("%s is left out of the ledger: %s", path, error)
            continue
        found.append(tally)
    return found
