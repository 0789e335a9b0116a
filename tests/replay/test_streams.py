"""What the streams do where Reverb's protocol has its traps: each test is one that was seen."""

import contextlib
import queue
import socket
import threading
import time

import numpy as np
import pytest

from classact.replay import channel, insert_stream, protocol, sample_stream, server_calls, writer
from classact.replay.compression import stored_prefix
from classact.replay.config import EXAMPLES_TABLE, STREAM_TABLE, TableConfig
from classact.replay.encoding import InsertEncoder, Keys

# Lets 19 in that nobody draws.
QUEUE = TableConfig(batch_size=8, samples_per_insert=1.0, capacity=64)
ROOMY = TableConfig(batch_size=64, samples_per_insert=1.0, capacity=1024)
SECONDS = 20.0


class Cut:
    """Stands before a server's socket; can keep the server's words to itself, and hang up."""

    def __init__(self, address, path):
        self.address = f"unix:{path}"
        self.mute = threading.Event()
        self._server = address.removeprefix("unix:")
        self._open = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._open += [client, server]
                threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, self.mute), daemon=True).start()

    @staticmethod
    def _copy(source, target, mute=None):
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                if mute is None or not mute.is_set():
                    target.sendall(data)

    def hang_up(self):
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()
        self.mute.clear()

    def close(self):
        self._listener.close()
        self.hang_up()


@pytest.fixture
def cut(tmp_path):
    made = []

    def make(address):
        made.append(Cut(address, tmp_path / "cut"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def wait_for(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline


def write(out, batch, priority=0.0):
    count = len(batch["id"])
    out.write(batch, lambda rows: np.full(len(rows), priority), np.ones(count, bool))


def left(out):
    """How many items have been sent, and not been confirmed to the writer."""
    return len(out._stream.unconfirmed) if out._stream else 0


def requests(replay, ids, batch_of, table=EXAMPLES_TABLE):
    """A request, its items' keys and what it was made of."""
    rows = replay.codec.pack(batch_of(ids))
    keys = Keys.random(np.random.default_rng(), 1, len(ids))
    encode = InsertEncoder(replay.codec.num_bytes, [table], 7)
    contents = [row.tobytes() for row in rows]
    made = encode(contents, np.zeros((1, len(ids))), keys, stored_prefix(replay.codec.num_bytes))
    return made, keys.items.ravel().tolist()


def test_lost_confirmations_double_nothing(make_replay, batch_of, cut):
    replay = make_replay(ROOMY)
    between = cut(replay.address)
    out = writer.ReplayWriter(between.address, replay.codec, replay.config.table_names, replay.stop)
    write(out, batch_of(range(8)))
    out.flush()
    # These arrive, and the writer never hears of it.
    between.mute.set()
    write(out, batch_of(range(8, 28)))
    wait_for(lambda: replay.statistics(EXAMPLES_TABLE)["size"] == 28)
    between.hang_up()
    out.flush()
    out.close()
    assert sorted(replay.take(EXAMPLES_TABLE, 100)) == list(range(28))


def test_what_was_sent_twice_has_the_newer_priority(make_replay, batch_of, cut):
    config = TableConfig(batch_size=32, samples_per_insert=0.5, capacity=128)
    replay = make_replay(config)
    between, drawn = cut(replay.address), []
    out = writer.ReplayWriter(between.address, replay.codec, replay.config.table_names, replay.stop)
    write(out, batch_of(range(63)), priority=5.0)
    out.flush()
    between.mute.set()
    # The clock of a race goes on meanwhile.
    priorities = iter([9.0, 1.0])
    out.write(batch_of([99]), lambda rows: np.array([next(priorities)]), np.ones(1, bool))
    wait_for(lambda: replay.statistics(EXAMPLES_TABLE)["size"] == 64)
    between.hang_up()
    out.flush()
    out.close()
    stream = sample_stream.SampleStream(replay.address, EXAMPLES_TABLE, 1.0)
    row = replay.codec.empty(1)
    for found in stream.take(row):
        drawn += found.tolist()
    stream.close()
    assert drawn == [1.0] and replay.codec.unpack(row)["id"].tolist() == [99]


def test_what_waits_for_the_limiter_survives_the_server(make_replay, batch_of, tmp_path):
    replay = make_replay(QUEUE, tmp_path)
    out = replay.writer()
    thread = threading.Thread(target=write, args=(out, batch_of(range(48))), daemon=True)
    thread.start()
    # The rest is confirmed by nobody, whatever gRPC has taken of it. The server counts an insert
    # before the writer has read that it is confirmed.
    wait_for(lambda: replay.statistics(EXAMPLES_TABLE)["inserts"] == 19 and left(out) == 29)
    replay.restart()
    reader = replay.dataset(EXAMPLES_TABLE)
    found = np.concatenate([reader.next(SECONDS)["id"] for _ in range(3)])
    thread.join(SECONDS)
    # The 19 were confirmed, and went with the server.
    np.testing.assert_array_equal(np.sort(found), np.arange(19, 43))


def test_only_items_that_are_not_confirmed_are_sent_again(make_replay, batch_of, cut):
    """The stream's table holds eleven items back, the other one none of the same examples."""
    replay = make_replay(TableConfig(batch_size=4, samples_per_insert=0.5, capacity=64, super_batch=16))
    between = cut(replay.address)
    out = writer.ReplayWriter(between.address, replay.codec, replay.config.table_names, replay.stop)

    def inserts():
        return [replay.statistics(table)["inserts"] for table in (EXAMPLES_TABLE, STREAM_TABLE)]

    write(out, batch_of(range(80)))
    wait_for(lambda: inserts() == [80, 69] and left(out) == 11)
    between.hang_up()
    assert replay.take(STREAM_TABLE, 40) == list(range(40))
    out.flush()
    out.close()
    # To send an item again counts, too.
    assert inserts() == [80, 80]
    assert replay.take(STREAM_TABLE, 200) == list(range(40, 80))


@pytest.mark.parametrize(("table", "size", "said"), [
    ("nothing", 0, r"no table 'nothing' at .*there are: examples"),
    (EXAMPLES_TABLE, 1, r"'examples' at .* does not hold records of \d+ bytes, but type 4 of shape"),
])  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_by_writer_and_reader(make_replay, batch_of, table, size, said):
    replay = make_replay(QUEUE)
    example = {"id": np.zeros(1, np.int64), "image": np.zeros((1, 2, 2, 1 + size), np.uint8)}
    codec = type(replay.codec)(example)
    out = writer.ReplayWriter(replay.address, codec, [table], replay.stop)
    image = np.zeros((1, 2, 2, 1 + size), np.uint8)
    with pytest.raises(server_calls.SchemaError, match=said):
        write(out, {**batch_of([1]), "image": image})
    out.close()
    replay.codec = codec
    with pytest.raises(RuntimeError, match="failed") as caught:
        replay.dataset(table).next(SECONDS)
    assert isinstance(caught.value.__cause__, server_calls.SchemaError)


def test_a_request_that_the_server_refuses_is_told(make_replay, batch_of):
    replay = make_replay(QUEUE)
    stream = insert_stream.InsertStream(replay.address)
    stream.send(*requests(replay, [1], batch_of, table="nothing"))
    with pytest.raises(server_calls.ReplayError, match="NOT_FOUND"):
        stream.wait(0, SECONDS)
    stream.close()


def test_items_of_several_steps_are_refused(make_replay, batch_of):
    """Their parts may come in several responses, and each would come with all of its chunk."""
    replay = make_replay(QUEUE)
    request, items = requests(replay, [1], batch_of)
    message = protocol.InsertRequest.FromString(request)
    message.chunks[0].data.tensors.append(message.chunks[0].data.tensors[0])
    stream = insert_stream.InsertStream(replay.address)
    stream.send(message.SerializeToString(), items)
    assert stream.wait(0, SECONDS)
    stream.close()
    with pytest.raises(sample_stream.ResponseError, match="holds items of many parts"):
        replay.take(EXAMPLES_TABLE, 1)


def test_the_limiters_time_out_leaves_what_came_before(make_replay, write_all):
    replay = make_replay(QUEUE)
    write_all(replay, range(5))
    assert replay.take(EXAMPLES_TABLE, 8) == [0, 1, 2, 3, 4]
    assert replay.statistics(EXAMPLES_TABLE) == {"size": 0, "inserts": 5, "samples": 5}


def test_a_reader_that_is_closed_ends_at_once(make_replay):
    replay = make_replay(QUEUE)
    stream = sample_stream.SampleStream(replay.address, EXAMPLES_TABLE, 60.0)
    ended = queue.SimpleQueue()
    row = replay.codec.empty(1)
    began = threading.Event()

    def take():
        began.set()
        ended.put(list(stream.take(row)))

    threading.Thread(target=take, daemon=True).start()
    began.wait()
    stream.close()
    assert ended.get(timeout=SECONDS) == []


def test_whatever_ends_the_thread_that_hears_confirmations_reaches_the_writer(monkeypatch):
    monkeypatch.setattr(insert_stream.channels, "stream", lambda *_: lambda requests: Answers())

    class Answers:
        def __iter__(self):
            yield b"no message"

        def cancel(self):
            pass

    stream = insert_stream.InsertStream("unix:/nowhere")
    with pytest.raises(server_calls.ReplayError, match="takes no inserts: DecodeError"):
        stream.wait(0, SECONDS)
        stream.wait(0, SECONDS)
    stream.close()


def test_a_writer_waits_for_a_mute_server_no_longer_than_it_is_told(
    batch_of, make_replay, tmp_path, monkeypatch
):
    # Of each question to the server.
    monkeypatch.setattr(server_calls.ServerCalls.check_schema, "__defaults__", (0.2,))
    codec = make_replay(QUEUE).codec
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        out = writer.ReplayWriter(
            f"unix:{tmp_path}/mute", codec, [EXAMPLES_TABLE], threading.Event(), unreachable_seconds=0.1
        )
        with pytest.raises(writer.ReplayUnreachableError, match=r"refused inserts for 0\.1 s"):
            write(out, batch_of([1]))


def test_priorities_can_be_changed_and_items_deleted(make_replay, batch_of):
    replay = make_replay(TableConfig(batch_size=1, samples_per_insert=0.5, capacity=6))
    request, items = requests(replay, [10, 11, 12], batch_of)
    stream = insert_stream.InsertStream(replay.address)
    stream.send(request, items)
    assert stream.wait(0, SECONDS)
    assert stream.has_confirmed(items) and not stream.unconfirmed
    stream.close()
    replay.calls.mutate(EXAMPLES_TABLE, updates={items[2]: -1.0}, deletes=[items[0]])
    assert replay.statistics(EXAMPLES_TABLE)["size"] == 2
    request, items = requests(replay, [13], batch_of)
    stream = insert_stream.InsertStream(replay.address)
    stream.send(request, items)
    assert stream.wait(0, SECONDS)
    stream.close()
    assert replay.take(EXAMPLES_TABLE, 1) == [12]


def test_a_reason_is_one_line():
    class Error(channel.Unanswered):
        def code(self):
            return type("Code", (), {"name": "UNKNOWN"})

        def details(self):
            return "two\nlines"

    assert channel.reason(Error()) == "UNKNOWN: two lines"
