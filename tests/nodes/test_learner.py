"""The learner on data that a test hands it."""

import json
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.nodes import (
    activity,
    batches,
    cursors,
    errors,
    learner,
    metrics,
    parameters,
    saving,
    selected,
    stream_balance,
    training,
)
from classact.nodes.hosts import of_host
from classact.selection import losses

SOON = 20.0


def sampled(number=0, size=4, scored_step=0, label=None):
    rng = np.random.default_rng(number)
    batch = {
        "id": np.arange(number * size, (number + 1) * size),
        "image": rng.integers(0, 256, (size, 2, 2, 1), dtype=np.uint8),
        "label": np.zeros(size, np.int32) if label is None else label,
        "score": np.zeros(size, np.float32),
        "scored_step": np.full(size, scored_step),
    }
    if label is not None:
        batch["clean_label"] = np.zeros(size, np.int32)
    return batches.to_device(batch)


class Dataset:
    """Gives what `make(number)` makes, or times out where it is None."""

    first_left = 0

    def __init__(self, make, log=None):
        self._make, self.read, self.closed = make, 0, False

    def next(self, timeout):
        item = self._make(self.read)
        if item is None:
            raise TimeoutError("nothing there")
        self.read += 1
        return item

    def remember(self, number):
        pass

    def recent(self, number):
        return np.arange(self.read - number, self.read)[:, None]

    def close(self):
        self.closed = True


# By what they compute: all tests' linear models are one.
_updates, _states = {}, {}


def update_of(trained, task, learning_rate):
    key = (*trained, type(task), learning_rate)
    if key not in _updates:
        _updates[key] = training.make_update(trained, task)
        _states[key] = training.init_state(trained, 0)
    # An update donates its state.
    return _updates[key], jax.tree.map(jnp.copy, _states[key])


class Setup:
    """A learner with a linear model, its store, and its files."""

    def __init__(
        self,
        model,
        workdir,
        make=sampled,
        super_batches=None,
        task=None,
        any_host=None,
        no_data_seconds=300.0,
        learning_rate=0.05,
        **config,
    ):
        self.stop = threading.Event()
        optimizer = training.OptimizerConfig(learning_rate, steps=1000, warmup_steps=0)
        trained = {"learner": training.TrainedModel(model, optimizer, {"digits": 1.0})}
        if super_batches:
            trained["reference"] = training.TrainedModel(
                model, optimizer, {"digits": 1.0}, on_super_batch=True
            )
        update, state = update_of(trained, task or losses.Classification(0.1), learning_rate)
        self.metrics = metrics.MetricsWriter(workdir, "learner")
        self.dataset = Dataset(make)
        self.checkpointer = Checkpointer()
        self.batches = batches.Batches(
            {"digits": self.dataset},
            {"digits": super_batches} if super_batches else {},
            self.stop,
            no_data_seconds,
        )
        # Of several hosts, which share the work directory, none counts: see `Selected`.
        self.selected = selected.Selected(workdir, {"digits": None}) if any_host is None else None
        self.learner = learner.Learner(
            learner.LearnerConfig(**{"steps": 6, "log_every": 3, **config}),
            trained,
            update,
            state,
            self.batches,
            self.stop,
            self.metrics,
            saving.Saver(
                self.checkpointer,
                cursors.Cursors(),
                self.batches,
                {"digits": self.checkpointer},
                selected=self.selected,
            ),
            {"digits": lambda: {"size": 5.0, "inserts": 40.0, "samples": 20.0}},
            any_host=any_host,
            selected=self.selected,
        )

    def close(self):
        self.stop.set()
        self.learner.close()


class Checkpointer:
    def __init__(self):
        self.saved, self.waited = [], False

    def save(self, step, state, data=None):
        if isinstance(state, training.TrainState):
            assert int(state.step) == step
            self.saved.append(step)
            self.data = data

    def kept(self):
        return self.saved

    def wait(self):
        self.waited = True

    # As the tables, which are there at once.
    def begin(self, step):
        return self

    def is_set_aside(self):
        return True

    def wait_set_aside(self, timeout):
        pass

    def finish(self, kept, timeout):
        pass

    def give_up(self):
        pass


@pytest.fixture
def setup(linear_model, tmp_path):
    made = []

    def make(**options):
        made.append(Setup(linear_model, tmp_path, **options))
        return made[-1]

    yield make
    for item in made:
        item.close()


def test_it_reaches_its_last_step_and_publishes_it(setup):
    made = setup()
    made.learner.run()
    assert made.dataset.read == 6
    step, finished, payload = made.learner.get_parameters(["learner"], 5, SOON)
    assert (step, finished) == (6, True)
    assert set(parameters.decode(payload["learner"])["params"]) == {"w", "b"}
    assert made.checkpointer.saved[-1] == 6
    assert made.checkpointer.waited


def test_metrics_have_the_names_of_the_contract(setup, read_metrics):
    labels = np.array([1, 0, 0, 0], np.int32)
    made = setup(make=lambda number: sampled(number, scored_step=max(number - 2, 0), label=labels))
    made.learner.run()
    first, second = read_metrics(made.metrics.path)
    assert (first["step"], second["step"]) == (3, 6)
    for line in (first, second):
        assert set(line) >= {
            "train/loss",
            "train/top1",
            "train/data_wait_seconds",
            "train/step_seconds",
            "selection/staleness_max_steps",
        }
        assert line["train/examples"] == 12
        assert line["selection/corrupted_fraction"] == 0.25
        assert (line["replay/size"], line["replay/inserts"], line["replay/samples"]) == (5, 40, 20)
    # Updates 1 to 3 trained on examples scored at 0, 0 and 0: 0, 1 and 2 updates before.
    assert first["selection/staleness_steps"] == pytest.approx(1.0)
    assert first["selection/staleness_max_steps"] == 2
    assert second["selection/staleness_steps"] == 2


def test_what_was_trained_on_before_is_told(setup, read_metrics, tmp_path):
    label = np.array([1, 0, 0, 0], np.int32)
    made = setup(make=lambda number: sampled(number % 4, label=label), checkpoint_every=5)
    made.learner.run()
    shares = [line["selection/repeated_fraction"] for line in read_metrics(made.metrics.path)]
    # The fifth batch and the sixth are the first two again.
    assert shares == pytest.approx([0.0, 2 / 3])
    found = json.loads((tmp_path / "selected" / "digits.json").read_text())
    assert (found["step"], found["examples"], found["distinct"]) == (6, 24, 16)
    assert (found["labels"], found["true_labels"]) == ([18, 6], [24])
    assert made.checkpointer.data.selected["digits.examples"] == 24


def test_data_that_was_never_scored_has_no_staleness(setup, read_metrics):
    made = setup(make=lambda number: sampled(number, scored_step=-1))
    made.learner.run()
    for line in read_metrics(made.metrics.path):
        assert "selection/staleness_steps" not in line
        assert "selection/corrupted_fraction" not in line


class Exploding(losses.Classification):
    """A loss that is NaN for a batch that begins with the label 2."""

    def learn_loss(self, outputs, batch):
        return jnp.where(batch["label"][0] == 2, jnp.nan, super().learn_loss(outputs, batch))


@pytest.mark.parametrize("bad", [3, 5])
def test_a_loss_that_is_not_finite_names_its_step(setup, bad):
    label = lambda number: np.full(4, 2 if number == bad else 0, np.int32)  # noqa: E731
    made = setup(make=lambda number: sampled(number, label=label(number)), task=Exploding(0.1))
    with pytest.raises(errors.DivergedError, match=f"diverged at step {bad + 1}: train/loss is nan"):
        made.learner.run()
    assert 6 not in made.checkpointer.saved


@pytest.mark.parametrize(("backend", "drawn"), [("cpu", 4), ("gpu", 5)])
def test_an_update_is_queued_for_an_accelerator_alone(setup, monkeypatch, backend, drawn):
    label = lambda number: np.full(4, 2 if number == 3 else 0, np.int32)  # noqa: E731
    made = setup(make=lambda number: sampled(number, label=label(number)), task=Exploding(0.1))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with pytest.raises(errors.DivergedError, match="diverged at step 4"):
        made.learner.run()
    # Of the fourth batch the loss is known before a fifth one is drawn, or after.
    assert made.dataset.read == drawn


def test_parameters_that_are_not_finite_are_neither_saved_nor_published_as_the_last(setup):
    # Too large for float32 after one update, whose loss is that of the parameters before it.
    made = setup(learning_rate=1e39, steps=1)
    with pytest.raises(errors.DivergedError, match="diverged at step 1: parameters of the learner"):
        made.learner.run()
    assert made.checkpointer.saved == []
    step, finished, _ = made.learner.get_parameters(["learner"], -1, SOON)
    assert (step, finished) == (0, False)


@pytest.mark.parametrize("stopped", [False, True])
def test_nor_by_a_checkpoint_on_the_way(setup, stopped):
    made = setup(learning_rate=1e39, steps=6, checkpoint_every=0 if stopped else 1)
    if stopped:
        made.dataset._make = lambda number: made.stop.set() if number else sampled()
    with pytest.raises(errors.DivergedError, match="diverged at step 1: parameters of the learner"):
        made.learner.run()
    assert made.checkpointer.saved == []


def test_a_checkpoint_that_is_not_finite_is_not_gone_on_with(setup):
    made = setup()
    state = made.learner._state
    made.learner._state = state.replace(
        step=state.step + 6,
        models=jax.tree.map(lambda array: array * jnp.nan if array.ndim else array, state.models),
    )
    with pytest.raises(errors.DivergedError, match="diverged at step 6"):
        made.learner.run()
    assert made.learner.get_step() == -1


def test_no_data_is_an_error(setup):
    made = setup(make=lambda number: sampled() if number < 2 else None, no_data_seconds=0.2)
    with pytest.raises(errors.NoDataError, match=r"digits.*0\.2 s \(nothing there\).*run loops"):
        made.learner.run()
    assert made.dataset.read == 2


class TestSeveralDataSets:
    """Each has its own batches, rate, wait and metrics."""

    @pytest.fixture
    def build(self, linear_model, tmp_path):
        stops = []

        def make(datasets, no_data_seconds=300.0, **config):
            stop = threading.Event()
            stops.append(stop)
            optimizer = training.OptimizerConfig(0.05, steps=1000, warmup_steps=0)
            trained = {
                "learner": training.TrainedModel(linear_model, optimizer, {"noisy": 1.0, "clean": 2.0})
            }
            return learner.Learner(
                learner.LearnerConfig(**{"steps": 4, "log_every": 4, **config}),
                trained,
                training.make_update(trained, losses.Classification(0.1)),
                training.init_state(trained, 0),
                batches.Batches(datasets, {}, stop, no_data_seconds),
                stop,
                metrics.MetricsWriter(tmp_path, "learner"),
                replay_statistics={
                    name: lambda size=size: {
                        "size": size,
                        "inserts": 2 * size,
                        "samples": size,
                        "shard_1/size": 2,
                    }
                    for size, name in enumerate(datasets, start=5)
                },
            )

        yield make
        for stop in stops:
            stop.set()

    def test_each_is_drawn_at_its_own_rate(self, build, tmp_path, read_metrics):
        datasets = {
            "noisy": Dataset(lambda number: sampled(number, size=4, scored_step=number)),
            "clean": Dataset(lambda number: sampled(number, size=2, scored_step=max(number - 1, 0))),
        }
        build(datasets).run()
        assert [dataset.read for dataset in datasets.values()] == [4, 4]
        (line,) = read_metrics(tmp_path / "metrics" / "learner.jsonl")
        assert line["train/examples"] == 4 * 6
        assert line["selection/noisy/staleness_steps"] == 0
        assert line["selection/clean/staleness_steps"] == 0.75
        assert line["selection/staleness_steps"] == 0.375
        assert line["train/noisy/data_wait_seconds"] >= 0
        assert {"train/clean/loss", "train/noisy/top1"} <= set(line)
        assert (line["replay/size"], line["replay/noisy/size"], line["replay/clean/size"]) == (11, 5, 6)
        assert line["replay/noisy/shard_1/size"] == line["replay/clean/shard_1/size"] == 2
        assert "replay/shard_1/size" not in line

    def test_the_one_that_delivers_nothing_is_named(self, build):
        datasets = {"noisy": Dataset(sampled), "clean": Dataset(lambda number: None)}
        with pytest.raises(errors.NoDataError, match="replay of clean delivered no batch"):
            build(datasets, no_data_seconds=0.2).run()


def test_stop_ends_it_early_and_saves_what_it_has(setup):
    def make(number):
        if number == 2:
            made.stop.set()
        return sampled(number)

    made = setup(make=make)
    made.learner.run()
    assert made.checkpointer.saved == [int(made.learner._state.step)]
    assert made.checkpointer.waited
    # What had left the tables by then goes with it: two batches, not trained on.
    assert made.dataset.read == made.checkpointer.saved[0] + 2
    np.testing.assert_array_equal(
        made.checkpointer.data.read_ahead["digits.examples"][:, 0],
        np.arange(made.dataset.read - 2, made.dataset.read),
    )


def test_who_waits_for_parameters_is_told_that_it_has_stopped(setup):
    made = setup(make=lambda number: sampled(number) if number < 3 else made.stop.set(), steps=10**6)
    answers = []
    client = threading.Thread(
        target=lambda: answers.append(made.learner.get_parameters(["learner"], 10**5, 100 * SOON)),
        daemon=True,
    )
    client.start()
    made.learner.run()
    client.join(SOON)
    assert [(finished, payload) for _, finished, payload in answers] == [(True, {})]


def test_stop_ends_it_while_it_waits_for_data(setup):
    made = setup(make=lambda number: None)
    thread = threading.Thread(target=made.learner.run, daemon=True)
    thread.start()
    made.stop.set()
    thread.join(SOON)
    assert not thread.is_alive()


def test_checkpoints_are_taken_at_multiples_and_at_the_end(setup):
    def make(number):
        # The last one is saved by then.
        deadline = time.monotonic() + SOON
        while number == 9 and 5 not in made.checkpointer.saved and time.monotonic() < deadline:
            time.sleep(0.001)
        return sampled(number)

    made = setup(make=make, steps=11, checkpoint_every=5)
    made.learner.run()
    # That of step 10 is overtaken by the last one.
    assert made.checkpointer.saved == [5, 11]
    # Nothing is drawn for a checkpoint that is not trained on.
    assert made.dataset.read == 11


def test_the_last_step_is_not_saved_twice(setup):
    made = setup(steps=6, checkpoint_every=6)
    made.learner.run()
    assert made.checkpointer.saved == [6]


def test_it_waits_for_the_evaluators_last_report(setup):
    made = setup(evaluators=("test",))
    thread = threading.Thread(target=made.learner.run, daemon=True)
    thread.start()
    made.learner.report_evaluation("test", 3)
    assert made.learner.get_parameters(["learner"], 5, SOON)[0] == 6
    thread.join(0.5)
    assert thread.is_alive()
    made.learner.report_evaluation("test", 6)
    thread.join(SOON)
    assert not thread.is_alive()


def test_a_report_that_does_not_come_is_an_error(setup):
    made = setup(evaluators=("test",), final_evaluation_seconds=0.1)
    with pytest.raises(TimeoutError, match="test did not report on step 6"):
        made.learner.run()


def test_parameters_of_another_model_are_refused(setup):
    with pytest.raises(ValueError, match="trains learner, not online"):
        setup().learner.get_parameters(["online"], -1, 1.0)


def test_closing_closes_the_data(setup):
    made = setup()
    made.close()
    assert made.dataset.closed


def test_to_device_keeps_on_the_host_what_no_model_reads():
    found = sampled(size=4, scored_step=7, label=np.array([1, 1, 0, 0], np.int32))
    assert set(found.batch) == {"image", "label"}
    assert all(isinstance(array, jax.Array) for array in found.batch.values())
    assert (found.size, found.corrupted) == (4, 0.5)
    np.testing.assert_array_equal(found.scored_step, 7)
    assert sampled().corrupted is None


def chunk(number, size=4):
    return batches.Sampled(
        {"x": jnp.arange(number * size, (number + 1) * size)}, size, np.zeros(size), None, np.zeros(size)
    )


@pytest.mark.parametrize(("size", "overlap"), [(4, 0), (12, 8)])
def test_the_super_batch_is_a_window_of_the_stream(size, overlap):
    windows = batches.SuperBatches(Dataset(chunk), size)
    read = lambda dataset: dataset.next(1.0)  # noqa: E731
    for number in range(5):
        found = windows.next(read)["x"]
        # Four new examples each time, after the first, and the newest of all.
        np.testing.assert_array_equal(found, np.arange(number * 4, number * 4 + size))
    assert windows.dataset.read == (overlap + 5 * 4) // 4


@pytest.mark.parametrize(("size", "extra"), [(4, 2), (12, 2), (4, -2), (12, -2)])
def test_more_or_fewer_batches_of_the_stream_can_be_drawn_than_one_an_update(size, extra):
    table = Dataset(chunk)
    windows = batches.SuperBatches(table, size)

    def ids():
        return np.asarray(windows.next(lambda dataset: dataset.next(0))["x"])

    first = ids()
    windows.balance(extra)
    found = [ids() for _ in range(4)]
    assert table.read == size // 4 + 4 + extra
    if extra > 0:
        # Those that are too many come at once, and the newest are trained on.
        np.testing.assert_array_equal(found[0], first + 4 * 3)
        np.testing.assert_array_equal(found[1], found[0] + 4)
    else:
        np.testing.assert_array_equal(found[0], first + 4)
        # In between one is drawn: writers of the other table may wait for that.
        np.testing.assert_array_equal(found[1], found[0])
        np.testing.assert_array_equal(found[2], found[0] + 4)
        np.testing.assert_array_equal(found[3], found[2])


@pytest.mark.parametrize(
    ("samples", "drawn", "read_ahead", "expected"),
    [
        *((40, 280, 1, None), (48, 280, 1, None), (40, 340, 1, -3), (64, 300, 1, 5), (64, 90, 1, None)),
        # As far as that one table may be read ahead of the other.
        *((40, 340, 4, None), (56, 280, 4, None), (40, 400, 4, -6)),
    ],
)
def test_the_draws_of_the_stream_are_kept_level(samples, drawn, read_ahead, expected):
    """4 examples and 20 of the stream an update, and 100 for the first super-batch."""
    asked = []

    class Windows:
        def balance(self, number):
            asked.append(number)

    ask = stream_balance.StreamBalance(
        lambda: {"samples": samples}, lambda: {"samples": drawn}, Windows(), 4, 20, 100, read_ahead
    )
    assert ask() == {"samples": samples}
    assert asked == ([] if expected is None else [expected])


def test_a_window_without_data_is_none():
    windows = batches.SuperBatches(Dataset(chunk), 12)
    assert windows.next(lambda dataset: None) is None


def test_the_reference_learns_from_the_super_batch(setup, read_metrics):
    super_batches = batches.SuperBatches(Dataset(sampled), 12)
    made = setup(super_batches=super_batches)
    made.learner.run()
    assert super_batches.dataset.read == 6 + 2
    assert "train/reference_loss" in read_metrics(made.metrics.path)[-1]
    assert set(made.learner.get_parameters(["learner", "reference"], 5, SOON)[2]) == {"learner", "reference"}


def test_a_client_never_holds_up_the_updates(setup):
    made = setup(steps=50)
    clients = [
        threading.Thread(target=made.learner.get_parameters, args=(["learner"], 10**6, SOON), daemon=True)
        for _ in range(4)
    ]
    for client in clients:
        client.start()
    started = time.monotonic()
    made.learner.run()
    assert time.monotonic() - started < SOON
    for client in clients:
        client.join(SOON)  # The last step releases them.
        assert not client.is_alive()


class Together:
    """`mesh.any_host` among threads: a call counts once all have made it."""

    def __init__(self, hosts):
        self._hosts = hosts
        self._condition = threading.Condition()
        self._said = {}

    def of(self, host):
        calls = iter(range(10**6))

        def ask(own):
            number = next(calls)
            with self._condition:
                self._said.setdefault(number, {})[host] = own
                self._condition.notify_all()
            return Answer(self, number)

        return ask

    def read(self, number):
        with self._condition:
            assert self._condition.wait_for(lambda: len(self._said[number]) == self._hosts, SOON)
            return any(self._said[number].values())


class Answer:
    def __init__(self, together, number):
        self._together, self._number = together, number

    def __bool__(self):
        return self._together.read(self._number)


class TestHosts:
    """Two learners that stand for two hosts: what they compute does not matter here."""

    @pytest.fixture
    def hosts(self, setup):
        def make(*makes, evaluators=(), **config):
            together = Together(len(makes))
            # The first host alone waits for evaluators.
            waits = [evaluators, *[()] * (len(makes) - 1)]
            return [
                setup(make=make, any_host=together.of(host), evaluators=waits[host], **config)
                for host, make in enumerate(makes)
            ]

        return make

    def run(self, hosts):
        threads = [threading.Thread(target=made.learner.run, daemon=True) for made in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()
        return [int(made.learner._state.step) for made in hosts]

    def test_they_reach_the_last_step_together(self, hosts):
        assert self.run(hosts(sampled, sampled)) == [6, 6]

    def test_one_that_is_stopped_while_it_waits_holds_nobody_up(self, hosts):
        def starved(number):
            if number == 3:
                made[1].stop.set()
                return None
            return sampled(number)

        made = hosts(sampled, starved, steps=10**6)
        first, second = self.run(made)
        # Not more than the two updates in which the other one could not know.
        assert 3 < first == second <= 5

    def test_none_begins_if_one_is_stopped_before_its_first_batch(self, hosts):
        made = hosts(sampled, lambda number: made[1].stop.set())
        assert self.run(made) == [0, 0]

    def test_none_leaves_before_the_evaluators_last_report(self, hosts):
        first, second = hosts(sampled, sampled, evaluators=("test",))
        threads = [threading.Thread(target=made.learner.run, daemon=True) for made in (first, second)]
        for thread in threads:
            thread.start()
        assert first.learner.get_parameters(["learner"], 5, SOON)[0] == 6
        threads[1].join(0.5)
        assert threads[1].is_alive()
        # Which is no hanging, however long the evaluators take.
        assert "learner: waiting for the learner's other hosts" in activity.report().doing
        first.learner.report_evaluation("test", 6)
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()


def test_hosts_share_what_one_had_read_ahead():
    records = np.arange(24, dtype=np.uint8).reshape(12, 2)
    parts = [of_host(records, 6, 3, host) for host in range(3)]
    assert [part[:, 0].tolist() for part in parts] == [[0, 2, 12, 14], [4, 6, 16, 18], [8, 10, 20, 22]]
    np.testing.assert_array_equal(of_host(records, 6, 1, 0), records)
