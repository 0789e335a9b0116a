"""Counts that outlive the process: of several processes, of one that is killed, of a damaged file."""

import json
import signal
import subprocess
import sys
import threading

from classact.nodes import tally


def test_each_process_has_a_file_of_its_own(tmp_path):
    for examples in (3, 4):
        tally.Tally(tmp_path, "inference-a-0", kind="scoring", data_set="a").add(examples=examples, slots=8)
    tally.Tally(tmp_path, "learner", kind="training").add({"step": 7}, updates=1)
    found = tally.read(tmp_path)
    assert [(item["kind"], item.get("examples")) for item in found] == [
        ("scoring", 3), ("scoring", 4), ("training", None),
    ]  # fmt: skip
    assert found[0] == {"kind": "scoring", "data_set": "a", "platform": "cpu", "examples": 3, "slots": 8}
    assert (found[2]["step"], found[2]["updates"]) == (7, 1)


def test_what_adds_nothing_leaves_nothing(tmp_path):
    tally.Tally(tmp_path, "evaluator-test", kind="evaluation")
    assert list(tmp_path.iterdir()) == [] and tally.read(tmp_path) == []


def test_lives_are_in_their_order(tmp_path):
    for step in range(12):
        tally.Tally(tmp_path, "learner", kind="training").add({"step": step}, updates=1)
    assert [item["step"] for item in tally.read(tmp_path)] == list(range(12))


def test_shorter_values_leave_nothing_of_longer_ones(tmp_path):
    counts = tally.Tally(tmp_path, "learner", kind="training")
    for step in (123456, 2):
        counts.add({"step": step}, updates=1)
    assert tally.read(tmp_path)[0]["step"] == 2


def test_threads_add_up(tmp_path):
    counts = tally.Tally(tmp_path, "server", kind="scoring")
    threads = [
        threading.Thread(target=lambda: [counts.add(examples=1) for _ in range(200)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.read(tmp_path)[0]["examples"] == 800


def test_a_process_that_is_killed_has_counted(tmp_path):
    program = (
        "import sys, signal; from classact.nodes import tally; "
        "counts = tally.Tally(sys.argv[1], 'learner', kind='training'); "
        "[counts.add({'step': step}, updates=1) for step in range(1, 51)]; "
        "print('counted', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"counted\n"
        process.send_signal(signal.SIGKILL)
    (found,) = tally.read(tmp_path)
    assert (found["step"], found["updates"]) == (50, 50)


def test_a_damaged_file_is_left_out_and_said_so(tmp_path, caplog):
    tally.Tally(tmp_path, "learner", kind="training").add(updates=1)
    for name, content in (("a.0.json", '{"kind": "trai'), ("b.0.json", json.dumps([1])), ("c.0.json", "{}")):
        (tmp_path / tally.FOLDER / name).write_text(content)
    assert [item["updates"] for item in tally.read(tmp_path)] == [1]
    assert all(name in caplog.text for name in ("a.0.json", "b.0.json", "c.0.json"))
