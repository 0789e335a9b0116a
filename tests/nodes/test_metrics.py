import errno
import io
import json
import os
import pathlib
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from classact.nodes import metrics
from classact.nodes.metrics import MetricsWriter


def read_lines(path: pathlib.Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def read_events(directory: pathlib.Path) -> list[Event]:
    """Reads TensorBoard's record format: length (8 bytes), its CRC (4), data, its CRC (4)."""
    events = []
    for path in sorted(directory.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            events.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return events


def test_a_line_and_an_event_hold_the_same_scalars(tmp_path):
    with MetricsWriter(tmp_path, "learner") as writer:
        writer.write(20, {"train/loss": 1.25, "train/examples": 640})
        writer.write(40, {"train/loss": 0.5})
    lines = read_lines(tmp_path / "metrics" / "learner.jsonl")
    assert [line.pop("time") > 1e9 for line in lines] == [True, True]
    assert lines == [{"step": 20, "train/loss": 1.25, "train/examples": 640}, {"step": 40, "train/loss": 0.5}]
    events = [event for event in read_events(tmp_path / "tensorboard" / "learner") if event.summary.value]
    assert [(event.step, {v.tag: v.simple_value for v in event.summary.value}) for event in events] == [
        (20, {"train/loss": 1.25, "train/examples": 640.0}),
        (40, {"train/loss": 0.5}),
    ]


def test_lines_and_events_are_on_disk_before_close(tmp_path):
    writer = MetricsWriter(tmp_path, "learner")
    writer.write(1, {"train/loss": 2.0})
    assert read_lines(writer.path)[0]["train/loss"] == 2.0
    assert len(read_events(tmp_path / "tensorboard" / "learner")) == 2
    writer.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf"), jnp.array(jnp.nan)])
def test_non_finite_values_are_counted_and_the_line_stays_json(tmp_path, value):
    with MetricsWriter(tmp_path, "learner") as writer:
        writer.write(3, {"train/loss": value, "train/top1": 0.5})
    (line,) = read_lines(writer.path)
    assert line["train/loss/nonfinite"] == 1
    assert "train/loss" not in line
    assert line["train/top1"] == 0.5


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (jnp.array(3), 3),
        (np.array(1.5), 1.5),
        (True, 1),
        (1e300, 1e300),
    ],
)
def test_scalars_of_every_library_are_numbers(tmp_path, value, expected):
    with MetricsWriter(tmp_path, "learner") as writer:
        writer.write(np.int64(1), {"x": value})
    (line,) = read_lines(writer.path)
    assert line["x"] == expected
    assert type(line["x"]) is type(expected)


@pytest.mark.parametrize("value", [np.zeros(2), "0.5", None, 1j])
def test_what_is_not_a_number_is_named(tmp_path, value):
    with MetricsWriter(tmp_path, "learner") as writer, pytest.raises(TypeError, match="'train/loss'"):
        writer.write(1, {"train/loss": value})
    assert read_lines(writer.path) == []


@pytest.mark.parametrize("name", ["step", "time"])
def test_the_fields_of_every_line_cannot_be_metrics(tmp_path, name):
    with MetricsWriter(tmp_path, "learner") as writer, pytest.raises(ValueError, match=name):
        writer.write(1, {name: 1.0})


@pytest.mark.parametrize("node", ["", "a/b", "..", "npz:x"])
def test_a_node_name_that_cannot_be_a_file_is_refused(tmp_path, node):
    with pytest.raises(ValueError, match="cannot name a metrics file"):
        MetricsWriter(tmp_path, node)


def test_a_restarted_node_appends_on_a_line_of_its_own(tmp_path):
    with MetricsWriter(tmp_path, "learner") as writer:
        writer.write(1, {"x": 1})
    with open(writer.path, "a") as file:
        file.write('{"step": 2, "ti')
    with MetricsWriter(tmp_path, "learner") as writer:
        writer.write(2, {"x": 2})
    first, torn, last = writer.path.read_text().splitlines()
    assert (json.loads(first)["x"], torn, json.loads(last)["x"]) == (1, '{"step": 2, "ti', 2)
    assert len(list((tmp_path / "tensorboard" / "learner").iterdir())) == 2


def test_a_recorder_that_goes_on_begins_on_a_line_of_its_own(tmp_path):
    path = tmp_path / "trained_examples.jsonl"
    path.write_text('{"step": 1, "a": [7]}\n{"step": 2, "a": [')
    metrics.ExampleRecorder(tmp_path)(2, {"a": np.array([8, 9])})
    first, torn, last = path.read_text().splitlines()
    assert json.loads(first) == {"step": 1, "a": [7]}
    assert torn == '{"step": 2, "a": ['
    assert json.loads(last) == {"step": 2, "a": [8, 9]}


def test_scores_are_recorded_beside_the_ids_where_there_are_any(tmp_path):
    record = metrics.ExampleRecorder(tmp_path, scored=["a"])
    ids = {"a": np.array([8, 9]), "b": np.array([1])}
    scores = np.array([0.1, -3.4028235e38], np.float32)
    record(1, ids, {"a": scores, "b": np.zeros(1, np.float32)})
    (line,) = (tmp_path / "trained_examples.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert {name: found[name] for name in ("step", "a", "b")} == {"step": 1, "a": [8, 9], "b": [1]}
    assert set(found) == {"step", "a", "b", "score/a"}
    np.testing.assert_array_equal(np.array(found["score/a"], np.float32), scores)
    assert "0.1," in line


def test_a_line_that_fits_only_in_parts_is_written_whole_or_fails():
    # As a disk that is nearly full: it takes some bytes, then less, then none.
    room = [3, 2]

    class Nearly(io.BytesIO):
        def write(self, data):
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(bytes(data)[: room.pop(0)])

    file = Nearly()
    with pytest.raises(OSError, match="No space left"):
        metrics._append(file, b"0123456789")
    assert file.getvalue() == b"01234"
    room[:] = [4, 4, 4]
    metrics._append(file, b"0123456789")
    assert file.getvalue() == b"012340123456789"


def test_threads_write_whole_lines(tmp_path):
    with MetricsWriter(tmp_path, "learner") as writer:

        def write(thread: int) -> None:
            for step in range(50):
                writer.write(step, {f"x/{thread}": step})

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = read_lines(writer.path)
    for i in range(8):
        assert [line[f"x/{i}"] for line in lines if f"x/{i}" in line] == list(range(50))
    assert len(read_events(tmp_path / "tensorboard" / "learner")) == 401


def test_writing_after_close_raises_and_closing_twice_does_not(tmp_path):
    writer = MetricsWriter(tmp_path, "learner")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(1, {})


def test_a_process_that_never_closes_its_writer_exits(tmp_path):
    program = (
        "import sys; from classact.nodes.metrics import MetricsWriter\n"
        "writer = MetricsWriter(sys.argv[1], 'learner')\n"
        "for step in range(2000): writer.write(step, {'x': step})\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=30)
    assert len(read_lines(tmp_path / "metrics" / "learner.jsonl")) == 2000
