"""A run that is saved, killed and resumed has trained on every example of the epoch."""

import collections
import contextlib
import json
import threading
import time

import jax
import numpy as np
import pytest
import replay_servers

from classact.data import source, stream
from classact.nodes import batches, checkpoints, cursors, run_loop, saving, training
from classact.replay import config as replay_config
from classact.replay import dataset, folders, records, snapshots, writer

# A batch has as many of each of one or three shards.
# An epoch is longer than what three checkpoints may repeat, 912 examples: else none need be over after two.
EXAMPLES, BATCH, READ = 1000, 12, 20
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
        self.checkpointer = checkpoints.Checkpointer(folder / "checkpoints")
        data = checkpoints.DataState()
        if restored := self.checkpointer.restore(self._state):
            self._state, data = restored
        self.cursors = cursors.Cursors(data.cursors)
        self.step = int(self._state.step)
        example = {**ten_by_ten().batch(np.arange(1)), "score": np.zeros(1), "scored_step": np.zeros(1)}
        self._codec = records.RecordCodec({name: example[name] for name in ("id", "image", "label")})
        self._tables = replay_config.TableConfig(BATCH // shards, 1.0, 64, super_batch)
        self._server = contextlib.ExitStack()
        places = [folder / f"replay/{shard}" for shard in range(shards)]
        addresses = [
            self._server.enter_context(
                replay_servers.serving(self._tables, self._codec.num_bytes, each)
            ).address
            for each in places
        ]
        self._batches = self._make_batches(addresses, data, super_batch)
        self.saver = saving.Saver(
            self.checkpointer,
            self.cursors,
            self._batches,
            {"numbers": snapshots.Snapshots(addresses, places)},
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

    @property
    def state(self):
        return self._state.replace(step=np.int32(self.step))

    def save(self):
        self.saver.save(self.step, self.state)
        self.checkpointer.wait()

    def save_while_training(self):
        """Returns the ids of the updates that were made until the state of before was saved."""
        trained, self.saved = [], self.step
        self.saver.begin(self.step, self.state)
        while self.saver.is_saving:
            trained += self.train(1)[0]
            self.saver.go_on()
        self.checkpointer.wait()
        return trained

    def kill(self, saves=True):
        """Ends everything without another word."""
        self._stop.set()
        self._batches.close()
        for thread in self._threads:
            thread.join(20)
        self._server.close()
        if saves:
            self.checkpointer.close()


@pytest.mark.parametrize(
    ("readers", "options"),
    [((1, 3, 2), {"read_ahead": 2}), ((3, 3, 4), {"read_ahead": 3, "shards": 3})],
)
def test_no_example_of_an_epoch_is_lost_and_few_are_repeated(tmp_path, linear_model, readers, options):
    trained, ahead = [], options["read_ahead"] + 1
    for number in readers:
        session = Session(tmp_path, linear_model, number, **options)
        trained += session.train(14)[0]
        # What comes after this state is undone: the run is killed before the next checkpoint.
        session.save_while_training()
        session.train(2)
        session.kill()
    session = Session(tmp_path, linear_model, 3, **options)
    assert session.step == 3 * 14
    counts = collections.Counter(np.concatenate(trained).tolist())
    # What is read of the second epoch begins only when the first is in the tables.
    while len(counts) < EXAMPLES:
        counts.update(np.concatenate(session.train(1)[0]).tolist())
        assert session.step * BATCH < 2 * EXAMPLES
    session.kill()
    # For each of three checkpoints: what was drawn when the tables were set aside and nobody knew
    # it, what is read ahead, and two of each run loop.
    repeated = session.step * BATCH - EXAMPLES
    assert repeated <= 3 * ((saving.MOST_UNKNOWN + ahead) * BATCH + 4 * 2 * READ)


@pytest.mark.parametrize("moment", ["tables are not set aside", "tables are written", "models are written"])
def test_a_process_that_is_killed_while_it_saves_goes_on_from_the_state_before(
    tmp_path, linear_model, moment, monkeypatch
):
    session = Session(tmp_path, linear_model, 2)
    trained = session.train(5)[0]
    session.save()
    session.train(4)
    held, let = threading.Event(), threading.Event()

    def hold(owner, name):
        def held_up(*arguments, **options):
            held.set()
            let.wait(60)
            # It was killed meanwhile.
            raise OSError("killed")

        monkeypatch.setattr(owner, name, held_up)

    if moment == "tables are not set aside":
        hold(snapshots.ServerCalls, "checkpoint")
    elif moment == "tables are written":
        hold(snapshots.Saving, "finish")
    else:
        hold(session.checkpointer, "save")
    session.saver.begin(session.step, session.state)
    for _ in range(saving.MOST_UNKNOWN if moment != "models are written" else 60):
        session.train(1)
        if moment != "tables are not set aside":
            session.saver.go_on()
        if held.wait(0.02):
            break
    assert session.saver.is_saving
    session.kill(saves=False)
    monkeypatch.undo()
    # As a launcher does before it starts a run again.
    folders.keep(tmp_path / "replay/0", checkpoints_of(tmp_path))
    session = Session(tmp_path, linear_model, 2)
    assert session.step == 5
    counts = collections.Counter(np.concatenate(trained).tolist())
    while len(counts) < EXAMPLES:
        counts.update(np.concatenate(session.train(1)[0]).tolist())
        assert session.step * BATCH < 2 * EXAMPLES
    session.kill()
    let.set()


def checkpoints_of(folder):
    return [int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]


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
    session.saver.begin(session.step, session.state)
    # Nothing more can be drawn: it is found out while the learner waits.
    deadline = time.monotonic() + 60
    while session.saver.is_saving and time.monotonic() < deadline:
        session.saver.go_on()
    session.checkpointer.wait()
    session.kill()
    assert "checkpoint 3 goes without tables" in caplog.text
    session = Session(tmp_path, linear_model, 1)
    assert session.step == 3
    session.train(3)
    session.kill()


class Tables:
    """A data set's snapshots: whether they can be saved, when, and what is there."""

    def __init__(self, works=True):
        self.works, self.there, self.refuses = works, {3}, False
        self.aside, self.written = threading.Event(), threading.Event()
        for event in (self.aside, self.written):
            event.set()

    def begin(self, step):
        self.step = step
        return self

    def is_set_aside(self):
        if self.refuses:
            raise RuntimeError("it refuses")
        return self.aside.is_set()

    def wait_set_aside(self, timeout):
        assert self.aside.wait(20)

    def finish(self, kept, timeout):
        if not self.written.wait(min(timeout, 20)) or not self.works:
            raise RuntimeError("no answer")
        self.there.add(self.step)

    def give_up(self):
        self.there.discard(self.step)


class Checkpoints:
    def __init__(self):
        self.data, self.states = {}, {}

    def save(self, step, state, data):
        self.data[step], self.states[step] = data, state

    def kept(self):
        return [3, *self.data]

    def wait(self):
        pass


class Numbered:
    """A data set whose batch n has the record n."""

    def __init__(self, first_left=0):
        self.read, self.first_left, self.asked = 0, first_left, 0

    def next(self, timeout):
        self.read += 1
        self.first_left = max(0, self.first_left - 1)
        return self.read - 1

    def remember(self, batches):
        pass

    def recent(self, batches):
        self.asked += 1
        return np.arange(self.read - batches, self.read)[:, None]


class Learner:
    """Draws, and saves with these tables; its state is its step."""

    def __init__(self, first_left=0, **tables):
        self.tables, self.saved, self.step = tables, Checkpoints(), 0
        self.numbers = Numbered(first_left)
        self._batches = batches.Batches({"numbers": self.numbers}, {}, threading.Event())
        self.saver = saving.Saver(self.saved, cursors.Cursors(), self._batches, tables)

    def update(self, number=1):
        for _ in range(number):
            assert self._batches.draw()
            self.step += 1
            self.saver.go_on()

    @property
    def state(self):
        return training.TrainState(np.int32(self.step), jax.random.key(self.step), {})

    def begin(self):
        self.saver.begin(self.step, self.state)

    def end(self):
        deadline = time.monotonic() + 20
        while self.saver.is_saving and time.monotonic() < deadline:
            self.saver.go_on()
        assert not self.saver.is_saving

    def read_ahead(self, step):
        return self.saved.data[step].read_ahead["numbers.examples"].ravel().tolist()


@pytest.mark.parametrize("works", [(True, True), (True, False), (False, True)])
def test_tables_are_saved_of_all_data_sets_or_of_none(works):
    """With a checkpoint that goes without tables all run loops read again what the tables held."""
    tables = {name: Tables(one) for name, one in zip("ab", works, strict=True)}
    made = Learner(**tables)
    made.saver.cursors = known = cursors.Cursors(table_batches={"a": 1, "b": 1})
    read = stream.IIDStream(ten_by_ten(), READ, 0)

    def read_on(number):
        for _ in range(number):
            next(read)
            for name in tables:
                known.put(name, read.cursor)

    read_on(4)
    made.update(6)
    made.begin()
    # What is reported later is not of this state.
    read_on(3)
    made.update(3)
    made.end()
    went_with = all(works)
    assert [item.there for item in tables.values()] == [{3, 6} if went_with else {3}] * 2
    position = (4 if went_with else 3) * READ
    assert [cursor["position"] for cursor in made.saved.data[6].cursors["a"]] == [position]
    assert bool(made.saved.data[6].read_ahead) == went_with


def test_what_is_drawn_until_the_tables_are_set_aside_and_two_batches_after_it_is_saved():
    made = Learner(a=Tables())
    made.tables["a"].aside.clear()
    made.update(4)
    made.begin()
    made.update(3)
    made.tables["a"].aside.set()
    made.update(1)
    assert not made.saved.data
    made.update(2)
    made.end()
    # The state is that of the moment at which it began.
    assert int(made.saved.states[4].step) == 4
    assert jax.random.key_data(made.saved.states[4].rng).tolist() == [0, 4]
    assert made.read_ahead(4) == [4, 5, 6, 7, 8, 9]
    assert made.numbers.read == 10


def test_what_an_earlier_process_had_read_comes_before_what_is_read_ahead():
    made = Learner(first_left=5, a=Tables())
    made.update(1)
    made.begin()
    made.update(8)
    made.end()
    # The four that were left of it, one of which came while the tables were set aside, and two.
    assert made.read_ahead(1) == [1, 2, 3, 4, 5, 6]


def test_a_learner_that_draws_much_waits_for_the_tables_to_be_set_aside():
    made = Learner(a=Tables())
    made.tables["a"].aside.clear()
    made.begin()
    made.update(saving.MOST_UNKNOWN - 1)
    updating = threading.Thread(target=made.update, daemon=True)
    updating.start()
    updating.join(0.2)
    assert updating.is_alive()
    made.tables["a"].aside.set()
    updating.join(20)
    made.update(2)
    made.end()
    assert made.read_ahead(0) == list(range(saving.MOST_UNKNOWN + 2))


def test_it_goes_on_while_the_tables_are_written_and_saves_no_other_state():
    made = Learner(a=Tables())
    made.tables["a"].written.clear()
    made.begin()
    made.update(50)
    assert made.saver.is_saving
    assert not made.saved.data
    made.tables["a"].written.set()
    made.end()
    assert list(made.saved.data) == [0]
    # One was drawn when nobody knew yet that the tables are set aside.
    assert made.read_ahead(0) == [0, 1, 2]


def test_what_is_drawn_is_not_kept_for_a_checkpoint_without_tables():
    """It would be in memory until the next one: 38 MB an update of 256 images of 150 KB."""
    made = Learner(a=Tables())
    made.tables["a"].aside.clear()
    made.update(2)
    made.begin()
    made.update(2)
    made.tables["a"].refuses = True
    made.update(1)
    made.end()
    asked = made.numbers.asked
    made.update(5)
    assert not made.saved.data[2].read_ahead
    # None, once one batch has found that nobody wants it.
    assert made.numbers.asked <= asked + 1


@pytest.mark.parametrize("updates", [1, 9])
def test_a_learner_that_is_stopped_saves_what_is_only_written_and_then_its_own(updates):
    made = Learner(a=Tables())
    made.update(4)
    made.begin()
    made.update(updates)
    made.saver.save_stopped(made.step, made.state)
    # One update is not enough to know what was read ahead.
    assert list(made.saved.data) == ([4, 13] if updates == 9 else [5])
    assert made.read_ahead(made.step) == [made.step, made.step + 1]
    assert made.tables["a"].there == {3, *made.saved.data}


def test_a_learner_that_has_finished_gives_up_what_waits_for_its_tables():
    made = Learner(a=Tables())
    made.tables["a"].written.clear()
    made.begin()
    made.update(9)
    made.saver.save_finished(made.step, made.state)
    made.tables["a"].written.set()
    assert list(made.saved.data) == [9]
    assert not made.saver.is_saving


def test_a_disk_that_refuses_the_models_is_told(monkeypatch):
    made = Learner(a=Tables())

    def refuses(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(made.saved, "save", refuses)
    made.begin()
    made.update(3)
    with pytest.raises(OSError, match="no space left"):
        made.end()
