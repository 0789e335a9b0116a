"""A recorded order is read as the run has learned it, and its data come in just that order."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data import views
from classact.data.recorded_order import FILE_NAME, Places, RecordedOrder, RecordedStream, RecordError
from classact.data.source import ArraySource, DataError


def record(folder, *lines, end="\n"):
    (folder / FILE_NAME).write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end
    )
    return folder


def squares(count=10):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return ArraySource("squares", images, np.arange(count) % 3, num_classes=3)


@given(st.lists(st.integers(1, 5), max_size=12), st.integers(1, 3))
def test_what_a_run_went_back_over_is_what_it_did_at_last(tmp_path_factory, jumps, batch_size):
    # A run makes updates one by one, and sometimes goes on from an earlier one.
    learned, lines = {}, []
    for number, back in enumerate([0, *jumps]):
        step = max(1, len(learned) + 1 - back) if number % 2 else len(learned) + 1
        learned = {earlier: ids for earlier, ids in learned.items() if earlier < step}
        learned[step] = [100 * number + each for each in range(batch_size)]
        lines.append({"step": step, "a": learned[step], "score/a": [0.5] * batch_size})
    order = RecordedOrder(record(tmp_path_factory.mktemp("run"), *lines))
    assert (order.data_set, order.batch_size, order.updates) == ("a", batch_size, len(learned))
    assert [ids.tolist() for ids in order] == list(learned.values())


def test_a_torn_line_counts_as_none(tmp_path):
    order = RecordedOrder(record(tmp_path, {"step": 1, "a": [1]}, '{"step": 2, "a": [', end=""))
    assert order.updates == 1
    # The run went on, and wrote it again.
    order = RecordedOrder(
        record(tmp_path, {"step": 1, "a": [1]}, '{"step": 2, "a": [', {"step": 2, "a": [3]})
    )
    assert [ids.tolist() for ids in order] == [[1], [3]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"step": 2, "a": [1]}], "update 1 is missing, line 1 is of 2"),
        ([{"step": 1, "a": [1]}, {"step": 3, "a": [1]}], "update 2 is missing"),
        ([{"step": 1, "a": [1, 2]}, {"step": 2, "a": [1]}], "line 2 has 1 examples of a, expected 2"),
        ([{"step": 1, "a": [1], "b": [2]}], "data sets a, b, and none is named"),
        (["nonsense"], "it has no update"),
        (
            [{"step": 1, "a": [1]}, '{"step": 2, "a"', {"step": 3, "a": [1]}],
            "update 2 is missing, line 3 is of 3",
        ),
        (["[]"], "line 1 is not what a run writes"),
        ([{"step": 1, "a": 3}], "line 1 is not what a run writes"),
        ([{"step": 0, "a": [1]}], "line 1 is not what a run writes"),
        ([{"step": 1}], "none is named"),
        (['{"step": 1, "a"'], "it has no update"),
    ],
)
def test_what_is_no_record(tmp_path, lines, said):
    with pytest.raises(RecordError, match=said):
        RecordedOrder(record(tmp_path, *lines, end="" if said == "it has no update" else "\n"))


def test_a_run_that_recorded_nothing(tmp_path):
    with pytest.raises(RecordError, match="must have record_examples=True"):
        RecordedOrder(tmp_path)
    with pytest.raises(RecordError, match="No such file"):
        RecordedOrder(tmp_path / "missing.jsonl")


def test_one_of_several_data_sets(tmp_path):
    path = record(tmp_path, {"step": 1, "a": [1], "b": [2, 3]})
    order = RecordedOrder(path / FILE_NAME, "b")
    assert order.ids(0).tolist() == [2, 3]
    with pytest.raises(RecordError, match="data sets a, b, and none is named 'c'"):
        RecordedOrder(path, "c")


@given(st.permutations(range(8)), st.lists(st.integers(-2, 12), max_size=6))
def test_places_are_where_ids_are(order, asked):
    source = views.Subset(squares(10), np.array(order))
    found = Places(source)(np.array(asked, np.int64))
    assert found.tolist() == [order.index(name) if name in order else -1 for name in asked]


def test_the_stream_gives_the_updates_in_their_order(tmp_path):
    updates = [[3, 1, 3], [9, 0, 2], [4, 4, 5]]
    order = RecordedOrder(record(tmp_path, *({"step": n + 1, "a": ids} for n, ids in enumerate(updates))))
    source = views.Subset(squares(), np.array([9, 5, 4, 3, 2, 1, 0]))
    stream = RecordedStream(source, order)
    for ids in updates:
        batch = next(stream)
        assert batch["id"].tolist() == ids
        assert batch["image"][:, 0, 0, 0].tolist() == ids
    # Who reads ahead of the last update gets it again.
    assert next(stream)["id"].tolist() == updates[-1]
    assert next(RecordedStream(source, order, first=1, rows=slice(1, 3)))["id"].tolist() == [0, 2]


def test_an_example_that_is_not_there(tmp_path):
    order = RecordedOrder(record(tmp_path, {"step": 1, "a": [3, 11]}))
    with pytest.raises(DataError, match="no example with id 11"):
        next(RecordedStream(squares(), order))


def test_an_example_that_is_damaged(tmp_path):
    class Damaged(views.SourceView):
        def batch(self, indices):
            return self.source.batch(np.asarray(indices)[np.asarray(indices) != 4])

    order = RecordedOrder(record(tmp_path, {"step": 1, "a": [3, 4]}))
    with pytest.raises(DataError, match="the example with id 4, of update 1"):
        next(RecordedStream(Damaged(squares()), order))


def test_a_record_that_changes_meanwhile(tmp_path):
    order = RecordedOrder(record(tmp_path, {"step": 1, "a": [3]}, {"step": 2, "a": [4]}))
    record(tmp_path, {"step": 2, "a": [4]}, {"step": 1, "a": [3]})
    with pytest.raises(RecordError, match="has changed"):
        order.ids(0)
