"""A selector and its trainers in one process: a shelf, its server, and clients of it."""

import json
import pathlib
import pickle
import sys
import threading
import types

import numpy as np
import pytest
import zmq

from classact import client
from classact.client import connection, protocol
from classact.client.selection import Reader
from classact.nodes.serving import server as server_lib
from classact.nodes.serving import shelf as shelf_lib

SOON = 20.0
SIZE = 5


def sub_batch(number, images=True):
    rows = np.arange(SIZE)
    fields = {
        "id": 100 * number + rows,
        "label": rows.astype(np.int32),
        "score": (number + rows / 8).astype(np.float32),
        "weight": np.ones(SIZE, np.float32),
        **({"image": np.full((SIZE, 2, 2, 3), number, np.uint8)} if images else {}),
    }
    return {f"digits/{name}": values for name, values in fields.items()}


class Selector:
    """What a selector's process has, without a model."""

    def __init__(self, workdir, listen="127.0.0.1:0", data_sets=("digits",), images="pixels", **options):
        self.stop = threading.Event()
        self.workdir = workdir
        self.reports = server_lib.Reports()
        self.shelf = shelf_lib.Shelf(workdir / "serve", **{"ahead": 4, "kept": 64, **options}, stop=self.stop)
        about = {"data_sets": list(data_sets), "images": images, "task": "classification"}
        self.server = server_lib.Server(self.shelf, listen, workdir, about, self.reports)
        self.server.start()

    def hand_on(self, number, make=sub_batch):
        """Puts so many sub-batches on the shelf, in a thread, as trainers take them."""

        def go_on():
            for _ in range(number):
                if self.shelf.wait_for_room():
                    self.shelf.put(make(self.shelf.number))

        threading.Thread(target=go_on, daemon=True).start()

    def close(self):
        self.stop.set()
        self.server.stop()


@pytest.fixture
def start(tmp_path):
    made = []

    def make(**options):
        made.append(Selector(tmp_path, **options))
        return made[-1]

    yield make
    for selector in made:
        selector.close()


@pytest.fixture
def trainer(tmp_path):
    made = []

    def make(where=tmp_path, patience=SOON, **options):
        made.append(client.connect(where, patience=patience, **options))
        return made[-1]

    yield make
    for selection in made:
        selection.close()


def take(batches, number):
    return [next(batches) for _ in range(number)]


def test_a_trainer_gets_every_sub_batch_in_order_and_the_end(start, trainer):
    selector = start()
    selector.hand_on(6)
    batches = trainer().batches()
    found = take(batches, 6)
    assert [batch["number"] for batch in found] == list(range(6))
    expected = sub_batch(3)
    assert set(found[3]) == {"number", "id", "label", "score", "image"}
    for name in ("id", "label", "score", "image"):
        np.testing.assert_array_equal(found[3][name], expected[f"digits/{name}"])
        # As torch wants them.
        assert found[3][name].flags.writeable
    ending = threading.Thread(target=selector.shelf.end, daemon=True)
    ending.start()
    assert next(batches, None) is None
    ending.join(SOON)
    assert not ending.is_alive()


def test_ranks_get_disjoint_parts_of_the_same_sub_batch(start, trainer):
    start().hand_on(3)
    ranks = [trainer().batches(rank, 2, weights=True) for rank in (0, 1)]
    for number in range(3):
        parts = [next(batches) for batches in ranks]
        assert [part["number"] for part in parts] == [number] * 2
        ids = np.concatenate([part["id"] for part in parts])
        np.testing.assert_array_equal(ids, sub_batch(number)["digits/id"])
        assert [len(part["weight"]) for part in parts] == [2, 3]


def test_more_ranks_than_examples_are_refused(start, trainer):
    start().hand_on(1)
    with pytest.raises(client.SelectionError, match="world_size=6: must be at most batch_size=5"):
        next(trainer().batches(0, 6))


def test_with_ids_no_image_comes_and_other_images_are_refused(start, trainer):
    start().hand_on(2)
    assert "image" not in next(trainer().batches(images="ids"))
    with pytest.raises(client.SelectionError, match=r"hands on pixels; start one with .*images=encoded"):
        next(trainer().batches(images="encoded"))
    with pytest.raises(ValueError, match="images='jpeg'"):
        next(trainer().batches(images="jpeg"))
    with pytest.raises(ValueError, match="rank=2, world_size=2"):
        next(trainer().batches(2, 2))


def test_several_data_sets_have_their_names(start, trainer):
    def both(number):
        return {name.replace("digits", own): v for own in ("a", "b") for name, v in sub_batch(number).items()}

    start(data_sets=("a", "b")).hand_on(1, both)
    found = next(trainer().batches())
    assert set(found) == {"number", "a", "b"}
    np.testing.assert_array_equal(found["b"]["id"], sub_batch(0)["digits/id"])


def test_a_trainer_goes_on_from_its_state_and_confirms_the_one_before(start, trainer):
    selector = start()
    selector.hand_on(9)
    first = trainer()
    batches = first.batches()
    take(batches, 2)
    first.state_dict()
    take(batches, 2)
    state = json.loads(json.dumps(first.state_dict()))
    take(batches, 1)
    # Another process, after the first one was killed.
    again = trainer()
    again.load_state_dict(state)
    assert [batch["number"] for batch in take(again.batches(), 2)] == [4, 5]
    assert selector.shelf.oldest() == 2
    with pytest.raises(ValueError, match="no state"):
        again.load_state_dict({"next": 3})


def test_what_is_no_longer_kept_is_told(start, trainer):
    selector = start(kept=1)
    selector.hand_on(8)
    first = trainer()
    take(first.batches(ahead=1), 6)
    again = trainer()
    again.load_state_dict({"version": 1, "next": 1})
    with pytest.warns(RuntimeWarning, match="sub-batches 1 to 4 .* no longer kept; it goes on with 5"):
        assert next(again.batches())["number"] == 5


def test_a_selector_that_comes_back_elsewhere_is_found(start, trainer, monkeypatch):
    monkeypatch.setattr(connection, "_ASK_AGAIN_SECONDS", 0.1)
    first = start()
    first.hand_on(3)
    batches = trainer().batches()
    take(batches, 2)
    before = json.loads((first.workdir / "serve.json").read_text())
    first.close()
    second = start()
    # Its keys stay, as a trainer elsewhere has a copy of them.
    after = json.loads((first.workdir / "serve.json").read_text())
    assert {**before, "address": ""} == {**after, "address": ""}
    second.hand_on(2)
    assert [batch["number"] for batch in take(batches, 3)] == [2, 3, 4]


def test_a_run_that_is_completed_is_told_apart_from_one_that_is_silent(start, trainer, monkeypatch):
    monkeypatch.setattr(connection, "_ASK_AGAIN_SECONDS", 0.1)
    selector = start()
    selector.hand_on(2)
    late = trainer()
    batches = late.batches()
    take(batches, 2)
    selector.server.say_ended(2)
    selector.close()
    assert next(batches, None) is None
    again = trainer()
    again.load_state_dict(late.state_dict())
    assert list(again.batches()) == []
    with pytest.raises(client.SelectionError, match="is completed: it handed on 2 sub-batches"):
        next(trainer().batches())


def test_a_selector_that_says_nothing_is_an_error_after_a_while(tmp_path, start, trainer):
    with pytest.raises(client.SelectionError, match="is not there: is `classact serve"):
        next(trainer(tmp_path / "nowhere", patience=0.1).batches())
    start()
    with pytest.raises(client.SelectionError, match=r"gave nothing for 0 s.*patience"):
        next(trainer(patience=0.2).batches())


def test_only_who_has_the_keys_is_answered(start, trainer, tmp_path):
    selector = start()
    selector.hand_on(1)
    place = tmp_path / "serve.json"
    address = json.loads(place.read_text())["address"]
    with pytest.raises(client.SelectionError, match="gave nothing"):
        next(trainer(address, patience=0.5).batches())
    assert next(trainer(address, keys=str(place)).batches())["number"] == 0
    assert place.stat().st_mode & 0o077 == 0
    place.chmod(0o644)
    with pytest.raises(client.SelectionError, match="open to others"):
        next(trainer().batches())


def test_on_one_machine_a_unix_socket_does(start, trainer, tmp_path):
    start(listen=f"unix:{tmp_path}/socket").hand_on(1)
    assert next(trainer().batches())["number"] == 0
    assert (tmp_path / "socket").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "frames",
    [
        [b"nonsense"],
        protocol.pack({"kind": "get", "id": 7}),
        protocol.pack({"kind": "steal", "id": 7, **Reader().as_json()}),
        protocol.pack({"kind": "hello", "id": 7, **Reader().as_json(), "rank": 3, "next": None}),
        protocol.pack({"kind": "report", "id": 7, **Reader().as_json()}, {"ids": np.zeros(2)}),
    ],
)
def test_what_is_no_request_is_answered_so_and_harms_nobody(start, trainer, tmp_path, frames):
    selector = start(listen=f"unix:{tmp_path}/socket")
    selector.hand_on(1)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(f"ipc://{tmp_path}/socket")
        socket.send_multipart(frames)
        assert socket.poll(1000 * SOON)
        header, _ = protocol.unpack(socket.recv_multipart())
    assert header["kind"] == "error" and "a request that is none" in header["message"]
    assert next(trainer().batches())["number"] == 0


def test_reports_become_metrics(start, trainer):
    selector = start()
    selection = trainer()
    selection.report([1, 2, 3], [0.5, 1.0, np.nan])
    selection.report(np.array([4]), np.array([3.0]))
    assert selector.reports.counts() == {"serve/reported": 4, "serve/trainer_loss": 1.5}
    assert selector.reports.counts() == {"serve/reported": 4}
    with pytest.raises(ValueError, match="as many numbers"):
        selection.report([1, 2], [0.5])


def test_each_process_has_a_connection_of_its_own(start, trainer):
    start().hand_on(2)
    selection = trainer()
    next(selection.batches())
    copied = pickle.loads(pickle.dumps(selection))
    assert next(copied.batches())["number"] == 1
    copied.close()


@pytest.fixture
def torch(monkeypatch):
    """As much of PyTorch as the adaptor uses: it is no dependency of the tests'."""
    torch, distributed, utils, data = (types.ModuleType(name) for name in ("torch", "d", "u", "data"))
    torch.from_numpy = lambda array: ("tensor", array)
    distributed.is_available = lambda: True
    distributed.is_initialized = lambda: True
    distributed.get_rank, distributed.get_world_size = lambda: 1, lambda: 2
    data.IterableDataset = type("IterableDataset", (), {"__class_getitem__": classmethod(lambda cls, _: cls)})
    data.get_worker_info = lambda: None
    torch.distributed, torch.utils, utils.data = distributed, utils, data
    names = {"torch": torch, "torch.distributed": distributed, "torch.utils": utils, "torch.utils.data": data}
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "classact.client.torch_data", raising=False)
    yield data
    sys.modules.pop("classact.client.torch_data", None)


def test_workers_of_a_torch_data_set_read_in_turns_and_go_on(start, trainer, torch):
    selector = start(ahead=8)
    selector.hand_on(20)
    # The other rank takes all that there is, as it comes.
    reader = threading.Thread(target=lambda: take(trainer().batches(0, 2), 4), daemon=True)
    reader.start()
    reader.join(SOON)
    dataset = trainer().torch_dataset(images="ids")
    workers = [pickle.loads(pickle.dumps(dataset)) for _ in range(2)]
    found = []
    for worker, copied in enumerate(workers):
        torch.get_worker_info = lambda worker=worker: types.SimpleNamespace(id=worker, num_workers=2)
        batches = iter(copied)
        found += [next(batches)["number"] for _ in range(2)]
        batches.close()
    assert found == [0, 2, 1, 3]
    # Another pass goes on after what was read; rank 1 has the rows from 2 on.
    torch.get_worker_info = lambda: types.SimpleNamespace(id=0, num_workers=2)
    batch = next(iter(workers[0]))
    assert batch["number"] in (4, 6)
    kind, ids = batch["id"]
    assert kind == "tensor" and ids.tolist() == [100 * batch["number"] + row for row in (2, 3, 4)]


def test_a_grain_iterator_has_its_place_as_its_state(start, trainer):
    start().hand_on(8)
    batches = iter(trainer().grain_dataset(images="ids").map(lambda batch: batch["number"]))
    assert take(batches, 3) == [0, 1, 2]
    state = batches.get_state()
    assert take(batches, 2) == [3, 4]
    batches.set_state(state)
    assert take(batches, 2) == [3, 4]
    again = iter(trainer().grain_dataset().map(lambda batch: batch["number"]))
    again.set_state(state)
    assert next(again) == 3


def test_nothing_is_left_when_all_is_closed(start, tmp_path):
    selector = start(listen=f"unix:{tmp_path}/socket")
    selector.close()
    assert not pathlib.Path(f"{tmp_path}/socket").exists()
