"""A replay server of its own process with the tables of a data set."""

import contextlib
import threading

import numpy as np
import pytest
import replay_servers

from classact.replay import dataset, records, sample_stream, server_calls, writer

EXAMPLE = {"id": np.zeros(1, np.int64), "image": np.zeros((1, 2, 2, 1), np.uint8)}


class Replay:
    """A server with writers and readers, closed together; it can die and come back."""

    def __init__(self, config, server, codec):
        self.config, self._server, self.codec = config, server, codec
        self.stop = threading.Event()
        self.address = server.address
        self.calls = server_calls.ServerCalls(self.address)
        self._opened = []

    @property
    def process(self):
        return self._server.process

    def restart(self, while_down=lambda: None):
        """Kills the server, and starts it again on its port."""
        self.process.kill()
        while_down()
        self._server.start()

    def writer(self, **options):
        opened = writer.ReplayWriter(self.address, self.codec, self.config.table_names, self.stop, **options)
        self._opened.append(opened)
        return opened

    def dataset(self, table, batch_size=None, others=(), **options):
        """Reads this server's table and, as further shards, those of `others`."""
        batch_size = batch_size or self.config.batch_size
        addresses = [self.address, *(other.address for other in others)]
        opened = dataset.ReplayDataset(addresses, table, self.codec, batch_size, self.stop, **options)
        self._opened.append(opened)
        return opened

    def take(self, table, count):
        """Takes items, at least one and what is there in a second; their ids."""
        stream = sample_stream.SampleStream(self.address, table, 1.0)
        rows = self.codec.empty(count)
        taken = sum(len(priorities) for priorities in stream.take(rows))
        stream.close()
        return self.codec.unpack(rows)["id"][:taken].tolist()

    def statistics(self, table):
        return dataset.TableStatistics([self.address], table)()

    def close(self):
        self.stop.set()
        for opened in self._opened:
            opened.close()
        self.calls.close()


@pytest.fixture
def make_replay():
    codec = records.RecordCodec(EXAMPLE)
    with contextlib.ExitStack() as opened:

        def make(config, folder=None, **options):
            serving = replay_servers.serving(config, codec.num_bytes, folder, **options)
            replay = Replay(config, opened.enter_context(serving), codec)
            opened.callback(replay.close)
            return replay

        yield make


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
