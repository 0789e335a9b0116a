"""`classact sweep`: each run is made once, whatever happens to the sweep."""

import contextlib
import json
import signal
import subprocess
import threading
import time

import program_runs
import pytest

from classact.experiments import records, sweeps
from classact.experiments.config import ConfigError
from classact.launch.commands import resume, sweep_file, sweep_runs, sweeping
from classact.launch.engines import folders, registry
from classact.launch.engines.outcome import LaunchError

SWEEP = """
from classact.experiments import base

RUNS = ("uniform", "classact")

def get_config(part):
    config = base.get_config()
    config.train_data = "digits"
    config.patch_size = 4
    config.learner.model = config.scorer.model = "vit_mu_1_1"
    config.steps = STEPS if part == "uniform" else 4
    config.evaluation.every = config.steps // 2
    config.policy = "classact" if part == "classact" else "uniform"
    if part == "classact":
        config.reference.checkpoint = "teacher"
    return config

def baseline(part):
    return "uniform" if part == "classact" else None

def draw(runs):
    from matplotlib.figure import Figure
    figure = Figure()
    figure.add_subplot().plot([run.curve[-1][1] for run in runs.values()])
    return figure
"""
SOON = 150.0


@pytest.fixture
def written(tmp_path):
    """`written(steps)` writes the sweep's file."""

    def write(steps=4, text=SWEEP):
        path = tmp_path / "small.py"
        path.write_text(text.replace("STEPS", str(steps)))
        return path

    return write


@pytest.fixture
def started():
    """`started(file, out, *more arguments)` starts a sweep; it ends with the test."""
    with contextlib.ExitStack() as ends:
        yield lambda *arguments: ends.enter_context(_started(*arguments))


@contextlib.contextmanager
def _started(file, out, *more):
    command = [*program_runs.CLASSACT, "sweep", str(file), f"--out={out}", "--jobs=2", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition):
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_sweep_goes_on_and_makes_no_run_twice(written, started, tmp_path):
    out = tmp_path / "out"
    # One that would take for ever, beside those that it waits for.
    killed = started(written(steps=100_000), out)
    wait_for(lambda: "teacher" in records.read(out / "records.jsonl") or killed.poll() is not None)
    made = (out / "teacher" / "result.json").stat().st_mtime_ns
    killed.send_signal(signal.SIGKILL)
    killed.wait(SOON)
    killed.stdout.close()

    def is_free():
        try:
            with resume.locked(out / "uniform"):
                return True
        except LaunchError:
            return False

    # Its runs end with it.
    wait_for(is_free)
    assert not (out / "uniform" / "result.json").exists()
    again = started(written(steps=4), out)
    said, _ = again.communicate(timeout=SOON)
    assert again.returncode == 0, said
    assert "1 of 3 runs are done, 2 are left" in said
    assert (out / "teacher" / "result.json").stat().st_mtime_ns == made
    lines = (out / "small.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["uniform", "", "completed"],
        ["classact", "uniform", "completed"],
    ]
    assert (out / "small.png").exists()
    # What is known is enough, without the runs.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "records.jsonl").write_text((out / "records.jsonl").read_text())
    known = records.read(elsewhere / "records.jsonl")
    file = sweep_file.load(str(written(steps=4)))
    assert sweeps.undone(file.parts, known, []) == []
    assert (elsewhere / "small.csv") in file.outputs(known, elsewhere)
    assert (elsewhere / "small.csv").read_text() == (out / "small.csv").read_text()


class Runs(sweep_runs.Runs):
    """Runs that end when the test says so."""

    def __init__(self, out, jobs, fails=()):
        super().__init__(out, "synchronous", registry.get("synchronous"), jobs, {})
        self.begun = []
        self.go = threading.Semaphore(0)
        self._fails = fails

    def _run_one(self, part, stop):
        self.begun.append(part.name)
        while not self.go.acquire(timeout=0.05):
            if stop.is_set():
                return sweep_runs.Ended(part, None, "stopped")
        kept = None if part.name in self._fails else records.Record(part.name, {}, {}, {}, "", "", {}, {})
        return sweep_runs.Ended(part, kept)


def parts(**references):
    """Parts by name with their references."""
    return [sweeps.Part(name, {"steps": 1}, tuple(needed)) for name, needed in references.items()]


def test_what_needs_a_reference_waits_for_it_and_others_go_before(tmp_path):
    runs, ended = Runs(tmp_path, jobs=2), []
    left = parts(teacher=[], pupil=["teacher"], other=[], third=[])
    thread = threading.Thread(target=runs.run, args=(left, ended.append, threading.Event()))
    thread.start()
    wait_for(lambda: len(runs.begun) == 2)
    assert runs.begun == ["teacher", "other"]
    runs.go.release(4)
    thread.join(SOON)
    assert sorted(item.part.name for item in ended) == ["other", "pupil", "teacher", "third"]
    assert runs.begun.index("pupil") > runs.begun.index("teacher")


def test_what_needs_a_reference_that_failed_is_not_made(tmp_path):
    runs, ended = Runs(tmp_path, jobs=1, fails={"teacher"}), []
    runs.go.release(9)
    left = parts(teacher=[], pupil=["teacher"], hers=["pupil"], other=[])
    assert runs.run(left, ended.append, threading.Event()) == ["pupil", "hers"]
    assert runs.begun == ["teacher", "other"]


def test_a_stopped_sweep_starts_no_more(tmp_path):
    runs, ended, stop = Runs(tmp_path, jobs=1), [], threading.Event()
    thread = threading.Thread(target=runs.run, args=(parts(one=[], two=[]), ended.append, stop))
    thread.start()
    wait_for(lambda: runs.begun)
    stop.set()
    thread.join(SOON)
    assert (runs.begun, [item.record for item in ended]) == (["one"], [None])


def test_what_cannot_be_told_ends_the_others(tmp_path):
    runs, stop = Runs(tmp_path, jobs=2), threading.Event()
    runs.go.release(1)

    def on_end(ended):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        runs.run(parts(one=[], two=[]), on_end, stop)
    assert stop.is_set()


@pytest.mark.parametrize("changed", ["classact", "teacher"])
def test_a_record_of_another_configuration_is_not_taken_and_not_lost(written, tmp_path, changed):
    file = sweep_file.load(str(written()))
    runs, kept, stop = Runs(tmp_path / "out", jobs=1), tmp_path / "kept.jsonl", threading.Event()
    runs.out.mkdir()
    stop.set()

    def record(name, **more):
        part = file.parts[name]
        references = part.changes_of_references(file.parts)
        changes = part.changes | more if name == changed else part.changes
        if changed in references:
            references[changed] |= more
        curves = {"eval/test/top1": [[4, 0.5]]}
        ended = {"status": "completed", "steps": 4}
        return records.Record(name, changes, references, records.defaults(), "", "", ended, curves)

    for more, expected in (({}, ["uniform", "classact"]), ({"steps": 9}, ["uniform"])):
        records.write(kept, [record(name, **more) for name in file.parts])
        sweeping.make_all([file], runs, kept, stop)
        lines = (tmp_path / "out" / "small.csv").read_text().splitlines()[1:]
        assert [line.split(",")[0] for line in lines] == expected
        assert set(records.read(kept)) == set(file.parts)


def test_a_default_that_has_changed_since_makes_another_run_of_it_and_a_new_field_does_not():
    record = records.Record("run", {"steps": 9}, {}, records.defaults(), "", "", {}, {})
    assert record.is_of({"steps": 9}, {}) and not record.is_of({}, {})
    older = {name: value for name, value in record.defaults.items() if name != "clip_norm"}
    before = records.Record("run", {"steps": 9}, {}, older, "", "", {}, {})
    assert before.is_of({"steps": 9}, {}) and not before.is_of({"steps": 9, "clip_norm": 1.0}, {})
    other = records.Record("run", {"steps": 9}, {}, {**record.defaults, "clip_norm": 1.0}, "", "", {}, {})
    assert not other.is_of({"steps": 9}, {})


def test_a_directory_with_a_run_of_another_configuration_is_refused(written, tmp_path):
    file = sweep_file.load(str(written()))
    runs = Runs(tmp_path / "out", jobs=1)
    folder = runs.folder("uniform")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"policy": "uniform", "steps": 9}))
    (folder / "result.json").write_text(json.dumps({"status": "completed"}))
    with pytest.raises(ConfigError, match="holds a run with"):
        sweeping.make_all([file], runs, tmp_path / "records.jsonl", threading.Event())


def test_only_one_sweep_is_let_in(tmp_path):
    refused = pytest.raises(LaunchError, match="a sweep is running in it")
    with sweep_runs.locked(tmp_path), refused, sweep_runs.locked(tmp_path):
        pass


def test_only_one_sweep_writes_a_file_of_records(written, started, tmp_path):
    with folders.held(tmp_path / "out.lock", "held"):
        refused = started(written(), tmp_path / "runs", f"--records={tmp_path / 'out.jsonl'}")
        said, _ = refused.communicate(timeout=SOON)
    assert refused.returncode == 2
    assert "out.jsonl: another sweep is writing it" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "RUNS=None, expected the names"),
        ("RUNS = ()", r"RUNS=\(\), expected the names"),
        ("RUNS = ('a',)", "has no function get_config"),
        ("RUNS = ('a',)\ndef get_config(part): raise KeyError(part)", "line 2: KeyError"),
        (SWEEP.replace('("uniform", "classact")', '("a/b",)'), "names a folder"),
        ("oops", "NameError"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(written, text, said):
    with pytest.raises(ConfigError, match=said):
        sweep_file.load(str(written(text=text)))


def test_a_drawing_that_fails_is_named(written, tmp_path):
    file = sweep_file.load(str(written(text=SWEEP.replace("figure = Figure()", "figure = 1 / 0"))))
    ended = {"status": "completed", "steps": 4}
    kept = {
        "uniform": records.Record(
            "uniform", {}, {}, records.defaults(), "", "", ended, {"eval/test/top1": [[1, 0.5]]}
        )
    }
    with pytest.raises(ConfigError, match="draw failed: ZeroDivisionError"):
        file.outputs(kept, tmp_path)
    # The table is there all the same.
    assert (tmp_path / "small.csv").exists()
