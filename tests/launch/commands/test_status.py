import io
import json
import os
import time

import pytest
import rich.console

from classact.experiments import curves
from classact.launch.commands import status


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"policy": "classact", "steps": 1000}))
    return tmp_path


def write(workdir, node, *records):
    lines = "".join(json.dumps({"time": 0.0, **record}) + "\n" for record in records)
    (workdir / "metrics" / f"{node}.jsonl").write_text(lines)


def printed(workdir):
    console = rich.console.Console(file=io.StringIO(), width=200)
    status.print_status(workdir, console)
    headline, header, *rows = console.file.getvalue().splitlines()
    assert header.split() == ["node", "address", "step", "written", "rate"]
    return headline, {row.split()[0]: row for row in rows}


def test_every_node_has_its_step_age_and_rate(workdir, monkeypatch):
    monkeypatch.setattr(status.time, "time", lambda: 107.0)
    write(workdir, "learner", {"step": 100, "time": 90.0}, {"step": 160, "time": 100.0})
    write(workdir, "evaluator-test", {"step": 50, "time": 80.0}, {"step": 100, "time": 92.0})
    write(workdir, "inference-a-1", {"step": 158, "time": 105.0, "inference/examples_per_second": 1234.4})
    write(
        workdir,
        "run_loop-a-0",
        {"step": 90, "time": 88.0, "run_loop/examples": 1000},
        {"step": 155, "time": 98.0, "run_loop/examples": 3000},
    )
    write(workdir, "inference-a-joined-vm-1f-0", {"step": 150, "inference/examples_per_second": 7.0})
    # Behind the learner's is where its hosts find each other.
    endpoints = {"learner": ["h:1", "h:9"], "replay/a": ["h:2"], "inference/a": ["h:3", "h:4"]}
    endpoints["replay/b"] = ["h:5", "g:5"]
    (workdir / "endpoints.json").write_text(json.dumps(endpoints))
    headline, rows = printed(workdir)
    assert "unfinished | step 160/1,000" in headline
    assert rows["learner"].split() == ["learner", "h:1", "160", "7", "s", "ago", "6.0", "updates/s"]
    assert rows["evaluator-test"].split()[1:] == ["100", "15", "s", "ago", "every", "12", "s"]
    assert rows["inference-a-1"].split()[1:] == ["h:4", "158", "2", "s", "ago", "1,234", "examples/s"]
    assert rows["run_loop-a-0"].split()[1:] == ["155", "9", "s", "ago", "200", "examples/s"]
    write(workdir, "evaluator-quick", {"step": 50, "time": 80.0}, {"step": 100, "time": 80.2})
    assert printed(workdir)[1]["evaluator-quick"].split()[-3:] == ["every", "0.2", "s"]
    # One that joined: the run does not know its address.
    joined = rows["inference-a-joined-vm-1f-0"].split()[1:]
    assert joined == ["150", "107", "s", "ago", "7", "examples/s"]
    # Nodes that have written nothing yet.
    assert rows["inference-a-0"].split()[1:] == ["h:3"]
    assert rows["replay-a"].split()[1:] == ["h:2"]
    assert rows["replay-b-0"].split()[1:] == ["h:5"]
    assert rows["replay-b-1"].split()[1:] == ["g:5"]


def test_a_clock_that_was_put_back_makes_neither_ages_nor_rates_negative(workdir, monkeypatch):
    monkeypatch.setattr(status.time, "time", lambda: 50.0)
    write(workdir, "learner", {"step": 100, "time": 7290.0}, {"step": 160, "time": 90.0})
    _, rows = printed(workdir)
    assert rows["learner"].split() == ["learner", "160", "0", "s", "ago"]


def test_a_run_that_has_just_begun(workdir):
    headline, rows = printed(workdir)
    assert headline.endswith("unfinished | step 0/1,000")
    assert not rows


def test_a_finished_run_says_how_it_ended(workdir):
    (workdir / "result.json").write_text(json.dumps({"status": "failed", "steps": 12}))
    write(workdir, "learner", {"step": 12})
    headline, rows = printed(workdir)
    assert "failed | step 12/1,000" in headline
    assert rows["learner"].split()[1] == "12"


def test_damaged_endpoints_are_named(workdir):
    (workdir / "endpoints.json").write_text("{")
    with pytest.raises(curves.RunError, match=r"endpoints\.json"):
        printed(workdir)


def test_what_each_task_says_of_itself_is_shown_while_it_is_new(workdir):
    logs = workdir / "logs"
    logs.mkdir()
    (logs / "learner.doing").write_text("learner: waiting for a batch of [icons] for 3 s\n")
    (logs / "replay-icons.doing").write_text("tables: working\n")
    long_ago = time.time() - 120
    os.utime(logs / "replay-icons.doing", (long_ago, long_ago))
    _, rows = printed(workdir)
    assert rows == {"learner:": "learner: learner: waiting for a batch of [icons] for 3 s"}
