"""Lines of metrics with the tables' counts, which nobody waits for."""

import threading

import pytest

from classact.nodes import table_lines

SOON = 20.0


class Metrics:
    def __init__(self):
        self.lines, self.refuses = [], False

    def write(self, step, metrics, at=None):
        if self.refuses:
            raise OSError("no space left")
        self.lines.append((step, metrics, at))


class Table:
    """Answers when it is let, with how often it was asked."""

    def __init__(self):
        self.asked, self.let = 0, threading.Event()

    def __call__(self):
        self.asked += 1
        assert self.let.wait(SOON)
        return {"size": float(self.asked)}


@pytest.fixture
def table():
    made = Table()
    yield made
    made.let.set()


@pytest.fixture
def metrics():
    return Metrics()


def test_a_line_is_written_when_its_counts_are_there_and_has_the_time_at_which_it_was_given(
    metrics, table, monkeypatch
):
    lines = table_lines.TableLines(metrics, {"icons": table})
    monkeypatch.setattr(table_lines.time, "time", lambda: 77.0)
    lines.write(3, {"loss": 0.5})
    lines.go_on()
    assert not metrics.lines
    table.let.set()
    lines.finish()
    assert metrics.lines == [(3, {"loss": 0.5, "replay/size": 1.0}, 77.0)]
    lines.write(6, {})
    while len(metrics.lines) < 2:
        lines.go_on()
    assert metrics.lines[1][:2] == (6, {"replay/size": 2.0})
    lines.finish()
    assert len(metrics.lines) == 2


def test_a_server_that_does_not_answer_holds_up_nothing_and_is_asked_once(metrics, table):
    lines = table_lines.TableLines(metrics, {"icons": table})
    for step in (3, 6, 9):
        lines.write(step, {"loss": step})
        lines.go_on()
    lines.finish()
    assert [line[:2] for line in metrics.lines] == [(step, {"loss": step}) for step in (3, 6, 9)]
    assert table.asked == 1


def test_a_server_that_is_gone_is_told_and_the_others_are_counted(metrics, caplog):
    def gone():
        raise RuntimeError("no answer")

    lines = table_lines.TableLines(metrics, {"icons": gone, "digits": lambda: {"size": 4.0}})
    lines.write(3, {})
    lines.finish()
    assert metrics.lines[0][1] == {"replay/size": 4.0, "replay/digits/size": 4.0}
    assert "the tables of icons were not counted: no answer" in caplog.text


def test_who_ends_with_an_error_writes_what_there_is(metrics, table):
    lines = table_lines.TableLines(metrics, {"icons": table})
    lines.write(3, {"loss": 1.0})
    lines.close()
    lines.close()
    assert [line[:2] for line in metrics.lines] == [(3, {"loss": 1.0})]


def test_a_disk_that_refuses_a_line_is_told_to_the_caller(metrics):
    lines = table_lines.TableLines(metrics, {})
    lines.write(3, {})
    metrics.refuses = True
    with pytest.raises(OSError, match="no space left"):
        lines.finish()
