"""Actors that would join: what is refused before anything starts, what they read and are called."""

import json
import os
import platform
import socket
import threading

import numpy as np
import pytest

from classact.data import stream
from classact.experiments import base
from classact.experiments.resolution import resolve
from classact.launch.assembly import actors_program, joined_run
from classact.launch.assembly.joined_run import AttachError
from classact.launch.assembly.parts import shapes, sources
from classact.launch.commands import attach_actors


def write_run(workdir, **changes):
    """A run directory as a started run leaves it; returns its `config.json`."""
    fields = base.get_config().to_dict()
    fields |= {"train_data": "digits", "policy": "hard_learner", "patch_size": 4, **changes}
    fields["learner"]["model"] = fields["scorer"]["model"] = "vit_mu_1_1"
    config = resolve(fields)
    data = {}
    for name, own in config.data_sets.items():
        data[name] = shapes.data_shape(config, sources.open_train_source(config, own)).described()
    started = {"host": platform.node(), "directory": os.getcwd(), "data": data}
    written = {**config.to_dict(), "launch": "processes", "started": started}
    (workdir / "config.json").write_text(json.dumps(written))
    return written


def write_endpoints(workdir, learner="127.0.0.1:1", replays=("127.0.0.1:2",), data_set="digits"):
    (workdir / "endpoints.json").write_text(
        json.dumps({"learner": [learner], f"replay/{data_set}": list(replays)})
    )


@pytest.fixture
def workdir(tmp_path):
    write_run(tmp_path)
    write_endpoints(tmp_path, replays=("127.0.0.1:2", "127.0.0.1:3"))
    return tmp_path


def rewrite(workdir, change):
    fields = json.loads((workdir / "config.json").read_text())
    change(fields)
    (workdir / "config.json").write_text(json.dumps(fields))


def test_the_only_data_set_need_not_be_named(workdir):
    joining = attach_actors.prepare(workdir, "", 2)
    assert (joining.data_set, joining.count) == ("digits", 2)
    assert joining.learner == "127.0.0.1:1"
    assert joining.replays == ("127.0.0.1:2", "127.0.0.1:3")
    assert attach_actors.prepare(workdir, "digits", 1).data_set == "digits"


def test_every_call_has_names_of_its_own(workdir):
    first, second = (attach_actors.prepare(workdir, "", 2) for _ in range(2))
    assert len({*first.labels, *second.labels}) == 4
    assert first.labels[1] == f"inference/digits-joined-{first.call}-1"
    own_host = platform.node().split(".")[0]
    assert first.call.startswith(own_host)


def test_the_run_loops_of_a_call_split_epochs_of_their_own(workdir):
    joining, other = (attach_actors.prepare(workdir, "", 2) for _ in range(2))
    readers = [reader for index in range(2) for reader in joining.readers(index)]
    assert len({reader.name for reader in readers}) == len(readers) == joining.num_readers == 4
    config = joining.run.config
    source = sources.open_train_source(config, config.data_sets["digits"])

    def epoch(reader):
        made = stream.IIDStream(source, 1, reader.seed, reader.reader, reader.num_readers)
        return [int(next(made)["id"][0]) for _ in range(len(made._order))]

    read = [epoch(reader) for reader in readers]
    every = source.batch(np.arange(source.num_examples))["id"]
    assert sorted(np.concatenate(read)) == sorted(every)
    # Neither the experiment's own order nor another call's.
    seeds = {config.seed, readers[0].seed, other.readers(0)[0].seed}
    assert len(seeds) == 3
    assert not any(reader.shown for reader in readers)


def test_without_scores_run_loops_join_alone(tmp_path):
    write_run(tmp_path, policy="uniform")
    write_endpoints(tmp_path)
    joining = attach_actors.prepare(tmp_path, "", 3)
    assert [label.split("/")[0] for label in joining.labels] == ["run_loop"] * 3
    assert [len(joining.readers(index)) for index in range(3)] == [1, 1, 1]


def test_all_actors_of_a_call_take_turns_over_the_replay_servers_from_the_same_one(workdir):
    program = actors_program.build_program(attach_actors.prepare(workdir, "", 4))
    nodes = [node for group in program.groups.values() for node in group]
    (replays,) = {node._args[-1] for node in nodes}
    assert set(replays) == {"127.0.0.1:2", "127.0.0.1:3"}
    # A run loop writes to the server that its number is.
    numbers = [reader.reader for node in nodes for reader in node._args[-3]]
    assert numbers == list(range(8))
    assert all(not node.addresses for node in nodes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run.update(launch="synchronous"), "synchronous run is one loop"),
        (lambda run: run.pop("started"), "of another version"),
        (lambda run: run["started"].update(host="far"), "can be called on far alone"),
        (lambda run: run["started"]["data"]["digits"].update(num_examples=7), "num_examples is .*, there 7"),
        (
            lambda run: run["started"]["data"]["digits"]["record"].update(image="uint8[5, 5, 1]"),
            r"its record is .*8, 8, 1.*there .*5, 5, 1",
        ),
    ],
)
def test_what_does_not_fit_the_experiment_is_refused(workdir, change, message):
    rewrite(workdir, change)
    with pytest.raises(AttachError, match=message):
        attach_actors.prepare(workdir, "", 1)


def test_a_run_on_other_hosts_is_joined_from_anywhere(workdir):
    rewrite(workdir, lambda run: run["started"].update(host="far"))
    write_endpoints(workdir, "far:1", ["farther:2"])
    joining = attach_actors.prepare(workdir, "", 1)
    env = attach_actors._resources(joining, joining.labels[0]).environment()
    assert {"far", "farther"} <= set(env["no_proxy"].split(","))
    assert env["NPROC"] == "1"
    assert env["CLASSACT_KEYS"] == str(workdir / "keys.json")


def test_a_reference_that_is_not_here_says_where_the_run_was_started(workdir):
    def change(run):
        for own in (run, run["data_sets"]["digits"]):
            own["policy"], own["reference"]["checkpoint"] = "easy_reference", "runs/reference"
        run["started"]["directory"] = "/somewhere/else"

    rewrite(workdir, change)
    with pytest.raises(AttachError, match=r"'runs/reference': no run directory.* started in /somewhere/else"):
        attach_actors.prepare(workdir, "", 1)


def test_data_sets_are_named(tmp_path, workdir):
    with pytest.raises(AttachError, match="dataset='digitz': the experiment has digits"):
        attach_actors.prepare(workdir, "digitz", 1)
    run = json.loads((workdir / "config.json").read_text())
    run["data_sets"]["other"] = run["data_sets"]["digits"]
    run["started"]["data"]["other"] = run["started"]["data"]["digits"]
    (workdir / "config.json").write_text(json.dumps(run))
    write_endpoints(workdir, data_set="other")
    with pytest.raises(AttachError, match="several data sets: name one of digits, other"):
        attach_actors.prepare(workdir, "", 1)
    assert attach_actors.prepare(workdir, "other", 1).data_set == "other"


def test_more_run_loops_than_examples_are_refused(workdir):
    with pytest.raises(AttachError, match=r"count=1000: .*too few for 2000 run loops"):
        attach_actors.prepare(workdir, "", 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has not started its servers yet"),
        ("{", "cannot be read"),
        ('{"learner": ["127.0.0.1:1"]}', "cannot be read: .*replay/digits"),
        ("[]", "cannot be read"),
    ],
)
def test_no_addresses(workdir, text, message):
    path = workdir / "endpoints.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(AttachError, match=message):
        attach_actors.prepare(workdir, "", 1)


def test_a_run_that_has_ended_is_not_joined(workdir):
    (workdir / "result.json").write_text("{}")
    with pytest.raises(AttachError, match="the run has ended"):
        attach_actors.prepare(workdir, "", 1)


def test_no_run(tmp_path):
    with pytest.raises(AttachError, match="no run directory"):
        attach_actors.prepare(tmp_path, "", 1)


class TestWaitingForServers:
    """What `run` does before it starts anything; the rest is in tests/test_program.py."""

    @pytest.fixture
    def closed(self, workdir):
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            port = nobody.getsockname()[1]
        write_endpoints(workdir, f"127.0.0.1:{port}")
        return attach_actors.prepare(workdir, "", 1)

    def test_nobody_there(self, closed, monkeypatch):
        monkeypatch.setattr(joined_run, "SILENT_SECONDS", 0.5)
        with pytest.raises(AttachError, match=f"nothing answered at {closed.learner}"):
            attach_actors.run(closed, threading.Event(), print)
        assert not (closed.workdir / "logs").exists()

    def test_without_the_runs_keys(self, workdir):
        with socket.create_server(("127.0.0.1", 0)) as somebody:
            address = f"127.0.0.1:{somebody.getsockname()[1]}"
            write_endpoints(workdir, address, [address])
            with pytest.raises(AttachError, match=r"keys cannot be used: .*keys\.json"):
                attach_actors.run(attach_actors.prepare(workdir, "", 1), threading.Event(), print)

    def test_stopped_meanwhile(self, closed):
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        assert attach_actors.run(closed, stop, print).status == "interrupted"

    def test_ended_meanwhile(self, closed):
        (closed.workdir / "result.json").write_text("{}")
        assert attach_actors.run(closed, threading.Event(), print).status == "completed"
