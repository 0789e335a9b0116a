"""A run that is saved, killed and resumed has trained on every example of the epoch."""

import collections
import contextlib
import json
import threading

import numpy as np
import pytest
import replay_servers

from classact.data import source, stream
from classact.nodes import batches, checkpoints, cursors, run_loop, saving, training
from classact.replay import config as replay_config
from classact.replay import dataset, records, snapshots, writer

# A batch has as many of each of one or three shards.
EXAMPLES, BATCH, READ = 600, 12, 20
EXAMPLES_TABLE = replay_config.EXAMPLES_TABLE


def ten_by_ten():
    """A data set whose examples are told apart by their ids."""
    images = np.zeros((EXAMPLES, 1, 1, 1), np.uint8)
    return source.ArraySource("numbers", images, np.zeros(EXAMPLES, np.int64), 1)


class Session:
    """A server, run loops and a learner without a model, from the newest checkpoint on."""

    def __init__(self, folder, linear_model, readers, super_batch=0, read_ahead=1, shards=1):
        self.readers = readers
        self._read_ahead = read_ahead
        self._folder = folder
        self._stop = threading.Event()
        optimizer = training.OptimizerConfig(0.1, steps=1000, warmup_steps=0)
        trained = {"learner": training.TrainedModel(linear_model, optimizer, {"numbers": 1.0})}
        self._state = training.init_state(trained, 0)
        self._checkpointer = checkpoints.Checkpointer(folder / "checkpoints")
        data = checkpoints.DataState()
        if restored := self._checkpointer.restore(self._state):
            self._state, data = restored
        self.cursors = cursors.Cursors(data.cursors)
        self.step = int(self._state.step)
        example = {**ten_by_ten().batch(np.arange(1)), "score": np.zeros(1), "scored_step": np.zeros(1)}
        self._codec = records.RecordCodec({name: example[name] for name in ("id", "image", "label")})
        self._tables = replay_config.TableConfig(BATCH // shards, 1.0, 64, super_batch)
        self._server = contextlib.ExitStack()
        folders = [folder / f"replay/{shard}" for shard in range(shards)]
        addresses = [
            self._server.enter_context(
                replay_servers.serving(self._tables, self._codec.num_bytes, each)
            ).address
            for each in folders
        ]
        self._batches = self._make_batches(addresses, data, super_batch)
        self._saver = saving.Saver(
            self._checkpointer,
            self.cursors,
            self._batches,
            {"numbers": snapshots.Snapshots(addresses, folders)},
        )
        self._threads = [
            threading.Thread(target=self._run_loop(addresses[reader % shards], reader).run, daemon=True)
            for reader in range(readers)
        ]
        for thread in self._threads:
            thread.start()

    def _make_batches(self, addresses, data, super_batch):
        reading = threading.Event()

        def table(name, remembered=1):
            return dataset.ReplayDataset(
                addresses,
                name,
                self._codec,
                BATCH,
                reading,
                self._sampled,
                remembered=remembered,
                first=data.read_ahead.get(f"numbers.{name}"),
                read_ahead=self._read_ahead,
            )

        windows = {}
        if super_batch:
            windows["numbers"] = batches.SuperBatches(
                table(replay_config.STREAM_TABLE, super_batch // BATCH), super_batch
            )
        return batches.Batches(
            {"numbers": table(EXAMPLES_TABLE)},
            windows,
            self._stop,
            30.0,
            reading,
            ahead=self._read_ahead + 1,
        )

    @staticmethod
    def _sampled(batch):
        return batches.Sampled({"id": np.array(batch["id"])}, BATCH, np.zeros(BATCH), None, batch["id"])

    def _run_loop(self, address, reader):
        return run_loop.RunLoop(
            stream.IIDStream(
                ten_by_ten(),
                READ,
                0,
                reader,
                self.readers,
                json.loads(json.dumps(self.cursors.get("numbers"))),
            ),
            None,
            writer.ReplayWriter(address, self._codec, self._tables.table_names, self._stop),
            1.0,
            self._stop,
            report_cursor=lambda cursor: self.cursors.put("numbers", cursor),
        )

    def train(self, updates):
        """Returns the ids of each update's batch, and of its super-batch."""
        drawn = [self._batches.draw() for _ in range(updates)]
        self.step += updates
        return (
            [item.sub_batches["numbers"].batch["id"] for item in drawn],
            [np.asarray(item.super_batches["numbers"]["id"]) for item in drawn if item.super_batches],
        )

    def save(self):
        state = self._state.replace(step=np.int32(self.step))
        self._saver.save(self.step, state)
        self._checkpointer.wait()

    def kill(self):
        """Ends everything without another word."""
        self._stop.set()
        self._batches.close()
        for thread in self._threads:
            thread.join(20)
        self._server.close()
        self._checkpointer.close()


@pytest.mark.parametrize(
    ("readers", "options"),
    [((1, 3, 2), {"read_ahead": 2}), ((3, 3, 4), {"read_ahead": 3, "shards": 3})],
)
def test_no_example_of_an_epoch_is_lost_and_few_are_repeated(tmp_path, linear_model, readers, options):
    trained, ahead = [], options["read_ahead"] + 1
    for number in readers:
        session = Session(tmp_path, linear_model, number, **options)
        trained += session.train(14)[0]
        session.save()
        # What comes now is undone: the run is killed before the next checkpoint.
        session.train(5)
        session.kill()
    session = Session(tmp_path, linear_model, 3, **options)
    assert session.step == 3 * 14
    counts = collections.Counter(np.concatenate(trained).tolist())
    # What is read of the second epoch begins only when the first is in the tables.
    while len(counts) < EXAMPLES:
        counts.update(np.concatenate(session.train(1)[0]).tolist())
        assert session.step * BATCH < 2 * EXAMPLES
    session.kill()
    # For each of three checkpoints: what is read ahead, and two batches of each run loop.
    repeated = session.step * BATCH - EXAMPLES
    assert repeated <= 3 * (ahead * BATCH + 4 * 2 * READ)


def test_a_super_batch_goes_on_with_its_window(tmp_path, linear_model):
    session = Session(tmp_path, linear_model, 1, super_batch=5 * BATCH)
    before = session.train(9)[1]
    session.save()
    after = session.train(2)[1]
    session.kill()
    session = Session(tmp_path, linear_model, 1, super_batch=5 * BATCH)
    again = session.train(2)[1]
    np.testing.assert_array_equal(again, after)
    assert len(np.intersect1d(again[0], before[-1])) == 4 * BATCH
    # Neither table runs dry, however often a run is resumed.
    for _ in range(3):
        session.save()
        session.kill()
        session = Session(tmp_path, linear_model, 1, super_batch=5 * BATCH)
        session.train(20)
    session.kill()


def test_a_checkpoint_without_its_tables_is_still_one(tmp_path, linear_model, caplog):
    session = Session(tmp_path, linear_model, 1)
    session.train(3)
    session._server.close()
    session.save()
    session.kill()
    assert "checkpoint 3 goes without tables" in caplog.text
    session = Session(tmp_path, linear_model, 1)
    assert session.step == 3
    session.train(3)
    session.kill()


class Tables:
    """A data set's snapshots: whether they can be saved, and what is there."""

    def __init__(self, works):
        self.works, self.there = works, {3}

    def save(self, step, kept):
        if not self.works:
            raise RuntimeError("no answer")
        self.there.add(step)

    def discard(self, step):
        self.there.discard(step)


class Checkpoints:
    def __init__(self):
        self.data = {}

    def save(self, step, state, data):
        self.data[step] = data

    def kept(self):
        return [3, *self.data]


class NothingAhead:
    def read_ahead(self, seconds):
        return {}


@pytest.mark.parametrize("works", [(True, True), (True, False), (False, True)])
def test_tables_are_saved_of_all_data_sets_or_of_none(works):
    """With a checkpoint that goes without tables all run loops read again what the tables held."""
    tables = {name: Tables(one) for name, one in zip("ab", works, strict=True)}
    known = cursors.Cursors(table_batches={"a": 1, "b": 1})
    read = stream.IIDStream(ten_by_ten(), READ, 0)
    for _ in range(4):
        next(read)
        for name in tables:
            known.put(name, read.cursor)
    saved = Checkpoints()
    saving.Saver(saved, known, NothingAhead(), tables).save(6, None)
    went_with = all(works)
    assert [item.there for item in tables.values()] == [{3, 6} if went_with else {3}] * 2
    position = (4 if went_with else 3) * READ
    assert [cursor["position"] for cursor in saved.data[6].cursors["a"]] == [position]
