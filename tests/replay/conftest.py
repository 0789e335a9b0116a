"""An in-process Reverb server with the tables of a data set."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import reverb

from classact.launch.engines import ports
from classact.replay import dataset, records, snapshots, tables, writer

EXAMPLE = {"id": np.zeros(1, np.int64), "image": np.zeros((1, 2, 2, 1), np.uint8)}


class Replay:
    """A server with writers and readers, closed together."""

    def __init__(self, config, folder=None):
        self.config = config
        self._folder = folder
        self.codec = records.RecordCodec(EXAMPLE)
        self.stop = threading.Event()
        self._server = self._serve(None)
        self.address = f"localhost:{self._server.port}"
        self.client = reverb.Client(self.address)
        self._opened = []

    def _serve(self, port):
        checkpointer = snapshots.checkpointer(self._folder) if self._folder is not None else None
        return reverb.Server(
            tables.make_tables(self.config, self.codec.num_bytes), port=port, checkpointer=checkpointer
        )

    def restart(self):
        """Ends the server, and starts it again on its port."""
        port = self._server.port
        self._server.stop()
        self._server = self._serve(port)

    def writer(self):
        opened = writer.ReplayWriter(self.address, self.codec, self.config.table_names, self.stop)
        self._opened.append(opened)
        return opened

    def dataset(self, table, batch_size=None, others=(), **options):
        """Reads this server's table and, as further shards, those of `others`."""
        batch_size = batch_size or self.config.batch_size
        addresses = [self.address, *(other.address for other in others)]
        opened = dataset.ReplayDataset(addresses, table, self.codec, batch_size, self.stop, **options)
        self._opened.append(opened)
        return opened

    def statistics(self, table):
        return dataset.TableStatistics([self.address], table)()

    def close(self):
        self.stop.set()
        for opened in self._opened:
            opened.close()
        self._server.stop()


class RemoteServer:
    """A server process of its own, as in a run: clients of a server in their process go past gRPC."""

    def __init__(self, config, port, folder):
        self.port = port
        self._config, self._folder = config, folder
        self.start()

    def start(self):
        program = (
            "import pathlib, threading; from classact.replay import tables; "
            "from classact.replay.config import TableConfig; "
            f"tables.serve({self._config!r}, {records.RecordCodec(EXAMPLE).num_bytes}, {self.port}, "
            f"pathlib.Path({str(self._folder)!r}), threading.Event())"
        )
        self._process = subprocess.Popen([sys.executable, "-c", program])

    def stop(self):
        self._process.kill()
        self._process.wait()


class RemoteReplay(Replay):
    """The same with a server that can die and come back."""

    def _serve(self, port):
        with ports.LoopbackPorts() as free:
            return RemoteServer(self.config, port or free(), self._folder)

    def wait(self):
        self.client.server_info(timeout=60)

    def restart(self, while_down=lambda: None):
        self._server.stop()
        while_down()
        self._server.start()


@pytest.fixture
def make_remote_replay():
    opened = []

    def make(config, folder):
        opened.append(RemoteReplay(config, folder))
        return opened[-1]

    yield make
    for replay in opened:
        replay.close()


@pytest.fixture
def make_replay():
    opened = []

    def make(config, folder=None):
        opened.append(Replay(config, folder))
        return opened[-1]

    yield make
    for replay in opened:
        replay.close()


@pytest.fixture
def batch_of():
    """Makes a scored batch of the given ids, whose image is the id's low byte."""

    def make(ids, score=0.0, step=0):
        ids = np.asarray(ids, np.int64)
        image = np.broadcast_to((ids % 256).astype(np.uint8)[:, None, None, None], (len(ids), 2, 2, 1))
        return {
            "id": ids,
            "image": image,
            "score": np.full(len(ids), score, np.float32),
            "scored_step": np.full(len(ids), step, np.int64),
        }

    return make


@pytest.fixture
def write_all(batch_of):
    """Writes examples of equal priority, and waits until they are in the table."""

    def write(replay, ids):
        out = replay.writer()
        out.write(batch_of(ids), lambda rows: np.zeros(len(rows)), np.ones(len(ids), bool))
        out.flush()

    return write


@pytest.fixture
def feed(batch_of):
    """Starts a thread that writes ids `first`, `first` + 1, … until the replay stops.

    `priority(ids)` gives their priorities; the smallest is drawn first.
    """
    threads = []

    def start(replay, priority=lambda ids: np.zeros(len(ids)), first=0):
        out = replay.writer()

        def write():
            start = first
            while not replay.stop.is_set():
                ids = np.arange(start, start + 32)
                out.write(batch_of(ids), lambda rows, ids=ids: priority(ids[rows]), np.ones(32, bool))
                start += 32

        threads.append((replay, threading.Thread(target=write, daemon=True)))
        threads[-1][1].start()

    yield start
    for replay, thread in threads:
        replay.stop.set()
        thread.join(10)
