"""The learner as a selector: what it draws is handed on, and it waits for its trainer."""

import threading

import numpy as np
import pytest

from classact import client
from classact.nodes import batches, learner, metrics, training
from classact.nodes.serving import handed, selector, server, shelf
from classact.selection import losses

SOON = 20.0


class Examples:
    """A data set of which the sub-batch n has the ids from 4n on."""

    first_left = 0

    def __init__(self):
        self._read = 0

    def next(self, timeout):
        first, self._read = 4 * self._read, self._read + 1
        return batches.to_device(
            {
                "id": np.arange(first, first + 4),
                "image": np.full((4, 2, 2, 1), first, np.uint8),
                "label": np.zeros(4, np.int32),
                "score": np.zeros(4, np.float32),
                "scored_step": np.zeros(4, np.int64),
            }
        )

    def close(self):
        pass


@pytest.fixture(scope="module")
def update():
    """The updates, compiled once for all."""
    made = {}

    def of(trained):
        if "update" not in made:
            made["update"] = training.make_update(trained, losses.Classification(0.1))
        return made["update"]

    return of


@pytest.fixture
def start(linear_model, tmp_path, update):
    stops = []

    def make(steps=6, ahead=2):
        stop = threading.Event()
        stops.append(stop)
        optimizer = training.OptimizerConfig(0.05, steps=1000, warmup_steps=0)
        trained = {"learner": training.TrainedModel(linear_model, optimizer, {"digits": 1.0})}
        kept = shelf.Shelf(tmp_path / "serve", ahead, 64, stop)
        reports = server.Reports()
        about = {"data_sets": ["digits"], "images": "pixels", "task": "classification"}
        handed_on = selector.HandedOn(
            batches.Batches({"digits": Examples()}, {}, stop),
            {"digits": handed.Handing("pixels", 0.5)},
            kept,
            server.Server(kept, "127.0.0.1:0", tmp_path, about, reports),
            reports,
            metrics.MetricsWriter(tmp_path, "serve"),
            log_every=3,
        )
        made = selector.Selector(
            learner.LearnerConfig(steps=steps, log_every=3),
            trained,
            update(trained),
            training.init_state(trained, 0),
            handed_on,
            stop,
            None,
        )
        running = threading.Thread(target=made.run, daemon=True)
        running.start()
        return made, running, stop

    yield make
    for stop in stops:
        stop.set()


def test_a_trainer_gets_what_the_selector_trains_on_and_it_ends_with_the_last(start, tmp_path, read_metrics):
    made, running, _ = start()
    with client.connect(tmp_path, patience=SOON) as selection:
        found = list(selection.batches(weights=True))
        selection.report(found[0]["id"], found[0]["score"])
    running.join(SOON)
    assert not running.is_alive() and made.get_step() == 6
    assert [batch["id"].tolist() for batch in found] == [list(range(4 * n, 4 * n + 4)) for n in range(6)]
    assert all(batch["weight"].tolist() == [1, 1, 1, 1] for batch in found)
    lines = read_metrics(tmp_path / "metrics" / "serve.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 6]
    assert lines[-1]["serve/taken"] == 6
    assert not list((tmp_path / "serve").glob("*.batch"))


def test_it_is_no_further_ahead_than_it_may_be_and_stops_when_asked(start, tmp_path):
    made, running, stop = start(steps=50, ahead=2)
    with client.connect(tmp_path, patience=SOON) as selection:
        batches = selection.batches(ahead=1)
        for _ in range(3):
            next(batches)
        # Two that nobody has, and none more.
        running.join(0.5)
        assert made.get_step() == 5
        stop.set()
        running.join(SOON)
        assert not running.is_alive() and made.get_step() == 5
    # Another process has what this one has left.
    _, again, _ = start(steps=3)
    with client.connect(tmp_path, patience=SOON) as selection:
        selection.load_state_dict({"version": 1, "next": 3})
        found = list(selection.batches())
    again.join(SOON)
    assert not again.is_alive()
    assert [batch["number"] for batch in found] == [3, 4, 5, 6, 7]
    assert found[0]["id"].tolist() == [12, 13, 14, 15]
