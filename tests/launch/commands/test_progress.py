import io
import json
import re
import threading

import pytest
import rich.console

from classact.launch.commands import progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def plain_console():
    return rich.console.Console(file=io.StringIO(), force_terminal=False, width=80)


def append(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        for record in records:
            file.write(record if isinstance(record, str) else json.dumps(record) + "\n")


def learner_record(step, **changes):
    record = {
        "step": step,
        "time": 0.0,
        "train/loss": 1.5,
        "train/top1": 0.5,
        "train/examples": 640,
        "train/data_wait_seconds": 0.5,
        "train/step_seconds": 1.5,
        "selection/staleness_steps": 3.25,
    }
    return record | changes


def test_tail_reads_what_is_appended_and_waits_for_the_rest_of_a_line(tmp_path):
    path = tmp_path / "learner.jsonl"
    tail = progress.Tail(path)
    assert tail.read() == []
    append(path, {"step": 1}, '{"step": ')
    assert tail.read() == [{"step": 1}]
    append(path, "2}\n", "\x00broken\n", "[3]\n", {"step": 4})
    assert tail.read() == [{"step": 2}, {"step": 4}]
    assert tail.read() == []


def test_tail_skips_an_earlier_attempt_and_its_torn_line(tmp_path):
    path = tmp_path / "learner.jsonl"
    append(path, {"step": 1}, '{"step": 2')
    tail = progress.Tail(path, skip_existing=True)
    append(path, "\n", {"step": 3})
    assert tail.read() == [{"step": 3}]


def test_tail_starts_over_when_the_file_does(tmp_path):
    path = tmp_path / "learner.jsonl"
    append(path, {"step": 1}, {"step": 2})
    tail = progress.Tail(path)
    assert len(tail.read()) == 2
    path.write_text('{"step": 7}\n')
    assert tail.read() == [{"step": 7}]


def test_state_computes_the_figures_of_the_latest_interval():
    state = progress.RunState(100)
    assert (state.share, state.examples_per_second, state.wait_share, state.seconds_left) == (
        0,
        None,
        None,
        None,
    )
    state.add_learner_record(learner_record(10))
    assert state.seconds_left is None  # the first interval's length in steps is not known
    state.add_learner_record(learner_record(20))
    state.add_evaluation({"step": 15, "time": 0.0, "eval/test/top1": 0.625, "eval/test/loss": 3.0})
    state.add_evaluation({"step": 15, "eval/pairs/i2t_r1": 0.125, "eval/pairs/t2i_r1": 0.25})
    assert (state.step, state.share) == (20, 0.2)
    assert state.examples_per_second == pytest.approx(320)
    assert state.wait_share == pytest.approx(0.25)
    assert state.seconds_left == pytest.approx(80 * 2.0 / 10)
    assert state.facts() == [
        "320 examples/s",
        "loss 1.500",
        "train 50.0 %",
        "pairs R@1 12.5 % (step 15)",
        "test 62.5 % (step 15)",
        "learner waits 25 %",
        "staleness 3.2 steps",
    ]


def test_state_keeps_what_a_record_lacks_and_says_when_the_loss_is_not_finite():
    state = progress.RunState(100)
    state.add_learner_record(learner_record(10))
    state.add_learner_record({"step": 12, "train/loss/nonfinite": 1})
    assert "loss not finite" in state.facts()
    assert "train 50.0 %" in state.facts()
    state.add_learner_record({"step": 14, "train/loss": 0.5})
    assert "loss 0.500" in state.facts()
    assert "loss not finite" not in state.facts()


@pytest.mark.parametrize(
    "record", [{}, {"step": None}, {"step": "x"}, {"step": 1, "train/step_seconds": 0, "train/loss": "?"}]
)
def test_state_survives_odd_records(record):
    state = progress.RunState(0)
    state.add_learner_record(record)
    state.add_evaluation(record)
    assert state.share == 0.0
    assert state.facts() == []


def test_plain_lines_come_at_each_tenth_and_every_ten_seconds(tmp_path, clock):
    console = plain_console()
    shown = progress.Progress(tmp_path / "demo", 100, console, clock=clock)
    learner = tmp_path / "demo" / "metrics" / "learner.jsonl"

    def poll(seconds, *records):
        clock.now += seconds
        append(learner, *records)
        before = len(console.file.getvalue())
        shown.poll()
        return console.file.getvalue()[before:]

    assert poll(5.0) == ""
    assert poll(6.0) == "step 0/100 (0 %) | waiting for the learner | 0:11\n"
    assert poll(1.0, learner_record(5)) == ""
    assert poll(1.0, learner_record(10)).startswith("step 10/100 (10 %) | 320 examples/s | loss 1.500")
    assert poll(1.0, learner_record(15)) == ""
    assert poll(9.0) != ""
    assert poll(1.0, learner_record(15), learner_record(35)).startswith("step 35/100")
    assert poll(1.0) == ""
    # A run that has taken an hour prints a line in three minutes.
    clock.now += 3600
    assert poll(0.0) != ""
    assert poll(170.0) == ""
    assert "| 1:03:45, " in poll(30.0)


def test_a_learner_that_is_silent_for_long_is_named(tmp_path, clock):
    shown = progress.Progress(tmp_path, 100, plain_console(), clock=clock)
    learner = tmp_path / "metrics" / "learner.jsonl"
    append(learner, learner_record(5))
    shown.poll()
    clock.now += 59
    assert "no news" not in shown.line()
    clock.now += 21
    assert "| no news of the learner for 1:20 |" in shown.line()
    append(learner, learner_record(10))
    shown.poll()
    assert "no news" not in shown.line()


def test_evaluators_that_appear_later_are_shown(tmp_path, clock):
    metrics = tmp_path / "metrics"
    append(metrics / "evaluator-test.jsonl", {"step": 900, "eval/test/top1": 0.9})
    shown = progress.Progress(tmp_path, 100, plain_console(), clock=clock)
    append(metrics / "evaluator-test.jsonl", {"step": 10, "eval/test/top1": 0.5})
    append(metrics / "evaluator-clean.jsonl", {"step": 20, "eval/clean/top1": 0.75})
    shown.poll()
    assert "clean 75.0 % (step 20) | test 50.0 % (step 10)" in shown.line()


def test_the_context_prints_a_last_line_and_ends_its_thread(tmp_path):
    console = plain_console()
    with progress.Progress(tmp_path, 100, console):
        append(tmp_path / "metrics" / "learner.jsonl", learner_record(100))
    assert console.file.getvalue().splitlines()[-1].startswith("step 100/100 (100 %)")
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_a_terminal_shows_one_panel_that_is_drawn_again(tmp_path):
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with progress.Progress(tmp_path / "demo", 200, console) as shown:
        append(tmp_path / "demo" / "metrics" / "learner.jsonl", learner_record(50))
    drawn = console.file.getvalue()
    assert "waiting for the learner" in drawn
    assert "\x1b[1A" in drawn  # the cursor went up to draw over the first panel
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn[drawn.rindex("demo") :])
    assert "step 50/200" in last
    assert "320 examples/s | loss 1.500 | train 50.0 %" in last
    assert drawn.rstrip().endswith("\x1b[?25h")  # the cursor is back
    assert shown.state.step == 50


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_that_has_gone_does_not_end_the_run(tmp_path, terminal, monkeypatch):
    monkeypatch.setattr(rich.console.Console, "on_broken_pipe", raise_system_exit)
    console = rich.console.Console(file=Gone(), force_terminal=terminal)
    with progress.Progress(tmp_path, 10, console):
        append(tmp_path / "metrics" / "learner.jsonl", learner_record(10))
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def raise_system_exit(console):
    """What rich does, without pointing the tests' own standard output at /dev/null."""
    raise SystemExit(1)


def test_a_metrics_folder_that_cannot_be_read_shows_nothing_and_fails_nothing(tmp_path, clock):
    (tmp_path / "metrics" / "learner.jsonl").mkdir(parents=True)
    shown = progress.Progress(tmp_path, 10, plain_console(), clock=clock)
    shown.poll(last=True)
    assert "waiting for the learner" in shown.line()
