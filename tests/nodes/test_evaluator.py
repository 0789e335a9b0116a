"""When the evaluator measures, and that what it measures is the accuracy."""

import json
import threading
import time

import jax
import numpy as np
import pytest

from classact.data import source
from classact.nodes import errors, evaluator, metrics, parameters, per_class
from classact.selection import losses


class Learner:
    """Answers requests from a script of steps; the last one is final."""

    def __init__(self, steps, last):
        self._steps = list(steps)
        self._last = last
        self._now = -1
        self.requests = []
        self.reports = []

    def get_parameters(self, names, newer_than, timeout):
        assert tuple(names) == ("learner",)
        self.requests.append(newer_than)
        # The learner goes on to the first step that satisfies the request, and stays there.
        while self._now <= newer_than and self._steps:
            self._now = self._steps.pop(0)
        finished = not self._steps and self._now <= newer_than
        if finished:
            self._now = self._last
        if self._now <= newer_than:
            return self._now, True, {}
        payload = {"learner": parameters.encode({"step": np.float32(self._now)})}
        return self._now, self._now == self._last, payload

    def get_step(self):
        return self._now

    def report_evaluation(self, name, step):
        self.reports.append((name, step))


def run(learner, tmp_path, read_metrics, every=10, evaluated=0):
    lines = metrics.MetricsWriter(tmp_path, "evaluator-test")
    measure = lambda variables: {"top1": float(variables["step"]) / 1000}  # noqa: E731
    evaluator.Evaluator("test", measure, learner, every, threading.Event(), lines, evaluated=evaluated).run()
    found = read_metrics(lines.path)
    for line in found:
        assert line["eval/test/top1"] == pytest.approx(line["step"] / 1000)
    return [line["step"] for line in found]


def test_it_evaluates_at_multiples(tmp_path, read_metrics):
    learner = Learner(range(31), last=30)
    assert run(learner, tmp_path, read_metrics) == [10, 20, 30]
    assert learner.reports == [("test", 30)]


def test_it_skips_multiples_when_it_is_late(tmp_path, read_metrics):
    # While it measured step 10, the learner came to 37, then to 41.
    learner = Learner([0, 10, 37, 41, 50], last=50)
    assert run(learner, tmp_path, read_metrics) == [10, 37, 41, 50]


def test_it_goes_on_after_what_an_earlier_process_has_measured(tmp_path, read_metrics):
    learner = Learner(range(31), last=30)
    assert run(learner, tmp_path, read_metrics, evaluated=20) == [30]
    assert learner.reports == [("test", 30)]


def test_what_was_measured_before_the_learner_went_back_is_measured_again(tmp_path, read_metrics):
    class WentBack(Learner):
        def get_parameters(self, names, newer_than, timeout):
            if not self.requests:
                self.requests.append(newer_than)
                self._now = 10
                return None
            return super().get_parameters(names, newer_than, timeout)

    assert run(WentBack(range(11, 31), last=30), tmp_path, read_metrics, evaluated=20) == [20, 30]


def test_the_last_step_is_evaluated_once_though_it_is_no_multiple(tmp_path, read_metrics):
    learner = Learner(range(34), last=33)
    assert run(learner, tmp_path, read_metrics) == [10, 20, 30, 33]
    assert learner.reports == [("test", 33)]


def test_a_run_shorter_than_the_interval_is_evaluated(tmp_path, read_metrics):
    learner = Learner([0, 1, 2], last=3)
    assert run(learner, tmp_path, read_metrics) == [3]
    assert learner.reports == [("test", 3)]


def test_the_real_store_gives_the_last_step_too(tmp_path, read_metrics):
    store = parameters.ParameterStore()

    class Stored(Learner):
        def get_parameters(self, names, newer_than, timeout):
            return store.get(names, newer_than, timeout)

    learner = Stored((), 0)
    for step in (0, 7):
        store.offer(step, {"learner": {"step": np.float32(step)}}, final=step == 7)
    assert run(learner, tmp_path, read_metrics) == [7]
    assert learner.reports == [("test", 7)]
    store.close()


def test_parameters_that_are_not_finite_are_not_measured(tmp_path, read_metrics):
    store = parameters.ParameterStore()

    class Stored(Learner):
        def get_parameters(self, names, newer_than, timeout):
            return store.get(names, newer_than, timeout)

    store.offer(7, {"learner": {"w": np.array([1.0, np.nan], np.float32)}}, final=True)
    learner = Stored((), 0)
    with pytest.raises(errors.DivergedError, match="diverged at step 7: the learner's parameters"):
        run(learner, tmp_path, read_metrics)
    assert learner.reports == []
    store.close()


def test_the_stop_signal_ends_it(tmp_path):
    stop = threading.Event()

    class Silent(Learner):
        def get_parameters(self, names, newer_than, timeout):
            stop.set()

    learner = Silent((), 0)
    lines = metrics.MetricsWriter(tmp_path, "evaluator-test")
    evaluator.Evaluator("test", dict, learner, 10, stop, lines).run()
    assert learner.reports == []


IMAGES = np.random.default_rng(0).integers(0, 256, (23, 2, 2, 1), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, 23)


def by_numpy(variables):
    params = jax.device_get(variables["params"])
    logits = IMAGES.reshape(23, -1) / 255.0 @ params["w"] + params["b"]
    loss = np.log(np.exp(logits).sum(-1)) - logits[np.arange(23), LABELS]
    return {"top1": np.mean(logits.argmax(-1) == LABELS), "loss": loss.mean()}


@pytest.mark.parametrize("batch_size", [5, 23, 8, 100])
def test_accuracy_and_loss_equal_numpy_with_a_part_filled_last_batch(linear_model, batch_size):
    data = source.ArraySource("mine", IMAGES, LABELS, 3)
    measure = evaluator.classification_accuracy(
        linear_model, losses.Classification(0.1), evaluator.whole_data_set(data, batch_size)
    )
    variables = linear_model.init(jax.random.key(0))
    for _ in range(2):  # The batches are read anew each time.
        found = measure(variables)
        for name, expected in by_numpy(variables).items():
            assert found[name] == pytest.approx(expected, rel=1e-5), name


def test_the_next_batches_are_read_while_one_is_measured():
    class Slow(source.ArraySource):
        """Waits before its third batch until the first is measured."""

        def batch(self, indices):
            if indices[0] == 10:
                assert measured.wait(20)
            asked.append((int(indices[0]), threading.current_thread()))
            return super().batch(indices)

    measured, asked = threading.Event(), []
    found = evaluator.whole_data_set(Slow("mine", IMAGES, LABELS, 3), 5)()
    ids = [next(found)["id"]]
    deadline = time.monotonic() + 20
    while len(asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    # The second was read although nobody has asked for it.
    assert [start for start, _ in asked] == [0, 5]
    assert all(thread is not threading.current_thread() for _, thread in asked)
    measured.set()
    ids += [batch["id"] for batch in found]
    np.testing.assert_array_equal(np.concatenate(ids), np.arange(23))


def test_an_error_of_the_data_is_raised_where_they_are_measured():
    class Damaged(source.ArraySource):
        def batch(self, indices):
            raise source.DataError("mine: damaged")

    with pytest.raises(source.DataError, match="mine: damaged"):
        next(evaluator.whole_data_set(Damaged("mine", IMAGES, LABELS, 3), 5)())


@pytest.mark.parametrize("sizes", [(3, 8, 12), (10, 0, 13), (0, 23)])
def test_batches_may_lack_damaged_examples(linear_model, sizes):
    def batches():
        start = 0
        for size in sizes:
            yield {"image": IMAGES[start : start + size], "label": LABELS[start : start + size]}
            start += size

    measure = evaluator.classification_accuracy(linear_model, losses.Classification(), batches)
    variables = linear_model.init(jax.random.key(0))
    assert measure(variables)["top1"] == pytest.approx(by_numpy(variables)["top1"])


def test_each_class_is_counted(linear_model, tmp_path, read_metrics):
    data = source.ArraySource("mine", IMAGES, LABELS, 3)
    batches = evaluator.whole_data_set(data, 8)
    measure = evaluator.classification_accuracy(linear_model, losses.Classification(), batches, list("abc"))
    variables = linear_model.init(jax.random.key(0))
    found = measure(variables)
    params = jax.device_get(variables["params"])
    right = (IMAGES.reshape(23, -1) / 255.0 @ params["w"] + params["b"]).argmax(-1) == LABELS
    expected = [[np.sum(k == LABELS), np.sum(right[k == LABELS])] for k in range(3)]
    np.testing.assert_array_equal(np.stack([found.classes.examples, found.classes.correct], 1), expected)
    worst = min(correct / examples for examples, correct in expected)
    assert found["worst_class_top1"] == pytest.approx(worst)
    with metrics.MetricsWriter(tmp_path, "evaluator-test") as lines:
        per_class.write_measured(lines, "test", 5, found)
    (line,) = read_metrics(tmp_path / "metrics" / "evaluator-test.jsonl")
    assert {name for name in line if name.startswith("eval/")} == {
        "eval/test/top1",
        "eval/test/loss",
        "eval/test/worst_class_top1",
    }
    written = json.loads((tmp_path / "per_class" / "test.json").read_text())
    assert written == {
        "step": 5,
        "classes": ["a", "b", "c"],
        "examples": [examples for examples, _ in expected],
        "correct": [correct for _, correct in expected],
    }


def test_a_class_without_examples_is_not_the_worst():
    found = per_class.measured({"top1": 0.5}, np.array([4.0, 0.0, 2.0]), np.array([1.0, 0.0, 2.0]), None)
    assert found == {"top1": 0.5, "worst_class_top1": 0.25}
    more = found.adding({"on_training_data": 1.0})
    assert more["on_training_data"] == 1.0 and more.classes is found.classes
