"""Scores become priorities, unusable ones are dropped and counted, too many end the run."""

import itertools
import threading
from concurrent import futures

import numpy as np
import pytest

from classact.data.carried.sealing import Sealer
from classact.experiments import curves
from classact.nodes import errors, metrics, run_loop
from classact.nodes.inference_server import Scores
from classact.selection import race

SIZE = 10


def batches(count=None):
    numbers = itertools.count() if count is None else range(count)
    for number in numbers:
        ids = np.arange(number * SIZE, (number + 1) * SIZE)
        yield {
            "id": ids,
            "image": np.zeros((SIZE, 2, 2, 1), np.uint8),
            "label": (ids % 3).astype(np.int32),
            "clean_label": np.zeros(SIZE, np.int32),
        }


class Stream:
    """Batches with a cursor: how many were read."""

    def __init__(self, count):
        self._batches, self.cursor = batches(count), {"read": 0}

    def __iter__(self):
        for batch in self._batches:
            self.cursor = {"read": self.cursor["read"] + 1}
            yield batch


class Writer:
    """Keeps what is inserted; sets `stop` after so many batches."""

    max_pending = 0

    def __init__(self, stop=None, batches=0):
        self.ids, self.priorities, self.batches, self.closed = [], [], [], False
        self._stop, self._left = stop, batches

    def write(self, batch, priorities, keep):
        self.ids += batch["id"][keep].tolist()
        self.priorities += priorities(np.flatnonzero(keep)).tolist()
        self.batches.append(batch)
        self._left -= 1
        if self._stop is not None and self._left == 0:
            self._stop.set()
        return int(keep.sum())

    def close(self):
        self.closed = True


def score_by_label(batch):
    assert set(batch) == {"image", "label"}
    return Scores(batch["label"].astype(np.float32), 12)


@pytest.fixture
def stop():
    return threading.Event()


def test_every_example_is_written_with_its_priority_score_and_step(stop):
    writer = Writer()
    clocks = iter([race.Clock(), race.Clock((2.0,)), race.Clock((5.0,))])
    rng = np.random.default_rng(3)
    run_loop.RunLoop(batches(3), score_by_label, writer, 0.5, stop, clock=lambda: next(clocks), rng=rng).run()
    assert writer.ids == list(range(30))
    # The luck of each example, its weight, and the clock's time when it was inserted.
    runs = np.exp(-np.random.default_rng(3).gumbel(size=30) - (np.arange(30) % 3) / 0.5)
    times = np.repeat([0.0, np.exp(2.0), np.exp(5.0)], SIZE)
    np.testing.assert_allclose(writer.priorities, np.log(times + runs))
    for batch in writer.batches:
        np.testing.assert_array_equal(batch["score"], batch["label"])
        assert batch["score"].dtype == np.float32
        np.testing.assert_array_equal(batch["scored_step"], 12)
        assert batch["scored_step"].dtype == np.int64
        assert "clean_label" in batch
    assert writer.closed


def test_without_a_server_all_weights_are_equal(stop):
    writer = Writer()
    run_loop.RunLoop(batches(2), None, writer, 1.0, stop, rng=np.random.default_rng(3)).run()
    np.testing.assert_allclose(writer.priorities, -np.random.default_rng(3).gumbel(size=20))
    np.testing.assert_array_equal(writer.batches[0]["scored_step"], -1)


def test_the_replay_carries_what_it_shall_and_the_report_has_pixels(stop, tmp_path):
    files = np.array([b"file"] * SIZE, object)
    stream = [batch | {"file": files, "epoch": np.full(SIZE, 3)} for batch in batches(2)]
    writer, found = Writer(), tmp_path / "scored_images.npz"
    log = metrics.MetricsWriter(tmp_path, "run_loop")
    run_loop.RunLoop(
        stream, score_by_label, writer, 0.5, stop, log, log_every=2, extremes_path=found,
        seal=Sealer("encoded"),
    ).run()  # fmt: skip
    added = {"score", "scored_step"}
    assert set(writer.batches[0]) == added | {
        "id", "label", "clean_label", "epoch", "image_check", "image_content", "image_content_bytes"
    }  # fmt: skip
    # Files of as many bytes as the pixels have are none.
    assert not writer.batches[0]["image_content_bytes"].any()
    assert curves.read_metrics(tmp_path / "metrics/run_loop.jsonl")[0]["data/sent_as_pixels"] == 20
    with np.load(found) as shown:
        assert set(shown) == added | {"id", "image", "label", "clean_label"} and len(shown["image"]) == 20


def test_the_stop_signal_ends_it(stop):
    writer = Writer(stop, batches=4)
    run_loop.RunLoop(batches(), score_by_label, writer, 1.0, stop).run()
    assert len(writer.ids) == 40
    assert writer.closed


def test_a_stopped_server_ends_it_without_an_error(stop):
    def stopped(batch):
        raise futures.CancelledError("stopped")

    writer = Writer()
    run_loop.RunLoop(batches(), stopped, writer, 1.0, stop).run()
    assert writer.ids == []
    assert writer.closed


def nonfinite_at(*bad):
    """Scores that are not finite for some ids (told by a counter)."""
    count = itertools.count()
    values = itertools.cycle([np.nan, np.inf, -np.inf])

    def score(batch):
        ids = [next(count) for _ in batch["label"]]
        return Scores(np.array([next(values) if i in bad else 0.0 for i in ids], np.float32), 3)

    return score


def test_unusable_scores_are_dropped_and_counted(stop, tmp_path, read_metrics):
    writer, lines = Writer(), metrics.MetricsWriter(tmp_path, "run_loop")
    score = nonfinite_at(2, 5, 17)
    run_loop.RunLoop(batches(4), score, writer, 1.0, stop, lines, log_every=2).run()
    assert writer.ids == [i for i in range(40) if i not in (2, 5, 17)]
    assert [line["score/nonfinite"] for line in read_metrics(lines.path)] == [3, 3]


def test_too_many_unusable_scores_end_the_run(stop):
    writer = Writer()
    loop = run_loop.RunLoop(
        batches(),
        lambda batch: Scores(np.full(SIZE, np.nan, np.float32), 44),
        writer,
        1.0,
        stop,
        max_nonfinite_share=0.01,
    )
    with pytest.raises(errors.DivergedError, match=r"20 of 20 .*max_nonfinite_share=0.01.*step 44"):
        loop.run()
    assert writer.ids == []
    assert writer.closed


@pytest.mark.parametrize(("share", "fails"), [(0.2, False), (0.05, True)])
def test_the_share_is_the_configured_one(stop, share, fails):
    score = nonfinite_at(*range(0, 1000, 10))  # A tenth of them.
    loop = run_loop.RunLoop(batches(30), score, Writer(), 1.0, stop, max_nonfinite_share=share)
    if fails:
        with pytest.raises(errors.DivergedError):
            loop.run()
    else:
        loop.run()


def test_metrics_describe_the_scores(stop, tmp_path, read_metrics):
    lines = metrics.MetricsWriter(tmp_path, "run_loop")
    scores = lambda batch: Scores(np.linspace(0, 2000, SIZE, dtype=np.float32), 6)  # noqa: E731
    run_loop.RunLoop(batches(4), scores, Writer(), 1e-6, stop, lines, log_every=2).run()
    first, second = read_metrics(lines.path)
    assert (first["step"], first["run_loop/examples"], second["run_loop/examples"]) == (6, 20, 40)
    assert first["score/mean"] == pytest.approx(1000)
    expected = np.percentile(np.tile(np.linspace(0, 2000, SIZE), 2), (10, 90))
    np.testing.assert_allclose((first["score/p10"], first["score/p90"]), expected)
    # A thousand million nats are the most: five of ten are above it.
    assert (first["score/saturated"], second["score/saturated"]) == (10, 20)


def test_without_scores_there_are_no_score_metrics(stop, tmp_path, read_metrics):
    lines = metrics.MetricsWriter(tmp_path, "run_loop")
    run_loop.RunLoop(batches(1), None, Writer(), 1.0, stop, lines, log_every=1, damaged=lambda: 3).run()
    (line,) = read_metrics(lines.path)
    assert "score/mean" not in line
    assert (line["step"], line["run_loop/examples"], line["data/damaged"]) == (0, 10, 3)


def test_the_extreme_examples_are_left_behind(stop, tmp_path):
    path = tmp_path / "scored_images.npz"
    count = itertools.count()
    score = lambda batch: Scores(np.float32([next(count) for _ in range(SIZE)]), 1)  # noqa: E731
    run_loop.RunLoop(
        batches(15), score, Writer(), 1.0, stop, extremes_path=path, class_names=("a", "b", "c")
    ).run()
    found = np.load(path)
    np.testing.assert_array_equal(found["score"], [*range(40), *range(110, 150)])
    np.testing.assert_array_equal(found["id"], found["score"])
    assert found["image"].shape == (80, 2, 2, 1)
    assert found["class_names"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("max_pending", "reported"), [(0, [1, 2, 3, 4, 5]), (1, [1, 2, 3, 4]), (SIZE, [1, 2, 3, 4]), (25, [1, 2])]
)
def test_a_cursor_is_reported_when_all_before_it_is_in_the_tables(stop, max_pending, reported):
    writer, found = Writer(), []
    writer.max_pending = max_pending
    loop = run_loop.RunLoop(Stream(5), score_by_label, writer, 1.0, stop, report_cursor=found.append)
    loop.run()
    assert [cursor["read"] for cursor in found] == reported


def test_a_batch_that_a_stop_has_cut_short_is_not_reported(stop):
    found = []
    loop = run_loop.RunLoop(
        Stream(5),
        score_by_label,
        Writer(stop, batches=3),
        1.0,
        stop,
        report_cursor=found.append,
    )
    loop.run()
    assert [cursor["read"] for cursor in found] == [1, 2]


def test_the_references_losses_go_with_what_is_sent_for_scores():
    stop, asked = threading.Event(), []

    def score(batch):
        asked.append(batch)
        return Scores(batch["reference_loss"], 3)

    writer = Writer(stop, 2)
    loop = run_loop.RunLoop(
        Stream(2), score, writer, 1.0, stop, reference_losses=lambda ids: (ids / 2).astype(np.float32)
    )
    loop.run()
    for number, batch in enumerate(asked):
        expected = np.arange(number * SIZE, (number + 1) * SIZE, dtype=np.float32) / 2
        np.testing.assert_array_equal(batch["reference_loss"], expected)
        np.testing.assert_array_equal(writer.batches[number]["score"], expected)
    # They are no part of what the learner gets.
    assert "reference_loss" not in writer.batches[0]


def test_reading_ahead_changes_neither_examples_nor_what_is_reported(stop):
    reported = []
    for ahead in (0, 1 << 20):
        writer, cursors = Writer(), []
        loop = run_loop.RunLoop(
            Stream(5),
            score_by_label,
            writer,
            1.0,
            stop,
            report_cursor=cursors.append,
            read_ahead_bytes=ahead,
        )
        loop.run()
        reported.append((writer.ids, cursors))
    assert reported[0] == reported[1]
    assert reported[0] == (list(range(50)), [{"read": number} for number in range(1, 6)])
