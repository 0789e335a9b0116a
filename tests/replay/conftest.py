"""An in-process Reverb server with the tables of a data set."""

import threading

import numpy as np
import pytest
import reverb

from classact.replay import dataset, records, tables, writer

EXAMPLE = {"id": np.zeros(1, np.int64), "image": np.zeros((1, 2, 2, 1), np.uint8)}


class Replay:
    """A server with writers and readers, closed together."""

    def __init__(self, config):
        self.config = config
        self.codec = records.RecordCodec(EXAMPLE)
        self.stop = threading.Event()
        self._server = reverb.Server(tables.make_tables(config, self.codec.num_bytes))
        self.address = f"localhost:{self._server.port}"
        self.client = reverb.Client(self.address)
        self._opened = []

    def writer(self):
        opened = writer.ReplayWriter(self.address, self.codec, self.config.table_names, self.stop)
        self._opened.append(opened)
        return opened

    def dataset(self, table, batch_size=None, **options):
        batch_size = batch_size or self.config.batch_size
        opened = dataset.ReplayDataset(self.address, table, self.codec, batch_size, self.stop, **options)
        self._opened.append(opened)
        return opened

    def statistics(self, table):
        return dataset.TableStatistics(self.address, table)()

    def close(self):
        self.stop.set()
        for opened in self._opened:
            opened.close()
        self._server.stop()


@pytest.fixture
def make_replay():
    opened = []

    def make(config):
        opened.append(Replay(config))
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
