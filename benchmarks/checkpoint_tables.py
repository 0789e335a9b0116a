"""How long a checkpoint holds up the learner for its tables, and what it costs those.

One process writes made-up records of 224 × 224 images, another serves the table that they fill, and a
learner without a model takes a batch of them an update, which takes a stated time. In turns it saves as a run
does (`Saver.begin` and `go_on`, while it goes on to draw) and waits for it as a run that is stopped
does (`Saver.save`). The share is of 250 updates.

The table's bytes are noise, which nothing compresses, so the server's writing takes as long as it can. With
`--gigabytes` what the table holds: the server needs three times as much memory.

Command:
    python benchmarks/checkpoint_tables.py --gigabytes=1
"""

import argparse
import contextlib
import pathlib
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import figures
import jax
import numpy as np
import psutil
import replay_server
from figures import Figure

from classact.nodes import batches, checkpoints, cursors, saving, training
from classact.replay import dataset, records, snapshots, tables, writer
from classact.replay.config import EXAMPLES_TABLE, TableConfig

_SIDE, _BATCH, _WRITTEN = 224, 256, 256
_RATIO = 0.5
_EVERY = 250
_TARGET = 0.01
_BESIDE = 20


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    codec = records.RecordCodec(_examples(np.arange(1)))
    gigabytes = 0.2 if options.quick else options.gigabytes
    capacity = max(int(gigabytes * 1e9 / codec.num_bytes), 4 * _BATCH)
    config = TableConfig(_BATCH, _RATIO, capacity)
    options.workdir.mkdir(parents=True, exist_ok=True)
    with (
        replay_server.serving(tables.make_tables(config, codec.num_bytes), options.workdir) as served,
        replay_server.process_of(_write, served.address, config),
        _Learner(served, codec, options) as learner,
    ):
        for _ in range(int(1.2 * capacity * _RATIO / _BATCH) + 1):
            learner.update(0.0)
        return [Figure("tables", capacity * codec.num_bytes / 1e9, "GB"), *learner.measure()]


class _Learner(contextlib.AbstractContextManager["_Learner"]):
    def __init__(
        self, served: replay_server.Served, codec: records.RecordCodec, options: argparse.Namespace
    ) -> None:
        self._server = psutil.Process(served.pid)
        self._seconds = options.update_seconds
        self._stop = threading.Event()
        self._table = dataset.ReplayDataset(
            [served.address],
            EXAMPLES_TABLE,
            codec,
            _BATCH,
            self._stop,
            _sampled,
            remembered=1,
        )
        self._batches = batches.Batches({"numbers": self._table}, {}, self._stop)
        self._folder = tempfile.TemporaryDirectory(dir=options.workdir)
        self._checkpointer = checkpoints.Checkpointer(pathlib.Path(self._folder.name).resolve())
        tables_of = {"numbers": snapshots.Snapshots([served.address], [served.folder], timeout=1800.0)}
        self._saver = saving.Saver(self._checkpointer, cursors.Cursors(), self._batches, tables_of)
        self._step = 0

    def update(self, seconds: float) -> float:
        """Makes one that takes so many seconds; returns what it took in all."""
        began = time.monotonic()
        self._batches.draw()
        time.sleep(seconds)
        self._step += 1
        return time.monotonic() - began

    def measure(self) -> list[Figure]:
        before = [self.update(self._seconds) for _ in range(_BESIDE)]
        memory, cpu = self._server.memory_info().rss, self._server.cpu_times()
        began = time.monotonic()
        held = [self._saver.begin(self._step, self._state())]
        during, most = [], memory
        while self._saver.is_saving:
            during.append(self.update(self._seconds))
            held.append(self._saver.go_on())
            most = max(most, self._server.memory_info().rss)
        took = time.monotonic() - began
        busy = sum(self._server.cpu_times()[:2]) - sum(cpu[:2])
        update = float(np.mean(before))
        slower = sum(max(0.0, each - update) for each in during) if during else 0.0
        found = [
            Figure("an update", update, "s"),
            Figure("held up by a checkpoint", sum(held), "s"),
            Figure("  share of 250 updates", sum(held) / (_EVERY * update), "", at_most=_TARGET),
            Figure("an update while tables are written", float(np.mean(during)), "s"),
            Figure("  all that they took longer", slower, "s"),
            Figure("until it is saved", took, "s"),
            Figure("the server's CPU meanwhile", busy, "s"),
            Figure("the server's memory before", memory / 1e9, "GB"),
            Figure("the server's memory at most", most / 1e9, "GB"),
        ]
        began = time.monotonic()
        self._saver.save(self._step, self._state())
        return [*found, Figure("who waits for it (a run that is stopped)", time.monotonic() - began, "s")]

    def _state(self) -> training.TrainState:
        return training.TrainState(np.int32(self._step), jax.random.key(0), {})  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._batches.close()
        self._checkpointer.close()
        self._folder.cleanup()


def _sampled(batch: dict[str, np.ndarray]) -> Any:
    return batches.Sampled({}, _BATCH, batch["scored_step"], None, batch["id"])


def _examples(ids: np.ndarray) -> dict[str, np.ndarray]:
    return {"id": ids, "image": np.zeros((len(ids), _SIDE, _SIDE, 3), np.uint8)}


def _write(link: Connection, address: str, config: TableConfig) -> None:
    """Writes noise until the other side closes the pipe."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_WRITTEN, _SIDE, _SIDE, 3), np.uint8)
    scored = {
        "id": np.arange(_WRITTEN),
        "image": noise,
        "score": np.zeros(_WRITTEN, np.float32),
        "scored_step": np.zeros(_WRITTEN, np.int64),
    }
    codec = records.RecordCodec(_examples(np.arange(1)))
    stop = threading.Event()
    out = writer.ReplayWriter(address, codec, config.table_names, stop)

    def write() -> None:
        while not stop.is_set():
            out.write(scored, lambda rows: rng.random(len(rows)), np.ones(_WRITTEN, bool))

    threading.Thread(target=write, daemon=True).start()
    replay_server.until_closed(link)
    stop.set()


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    figures.add_common_arguments(parser)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="what the table holds")
    parser.add_argument("--update_seconds", type=float, default=0.3, help="what an update takes without data")
    print(figures.format_table(measure(parser.parse_args())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
