import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.nodes import activity, embedding


@given(sizes=st.lists(st.integers(0, 9)), batch_size=st.integers(1, 6))
def test_rows_come_back_in_order_and_are_embedded_at_one_size(sizes, batch_size):
    rows = np.arange(2 * sum(sizes), dtype=np.int32).reshape(-1, 2)
    shapes = []

    def embed(batch):
        shapes.append(batch.shape)
        return batch + 0.5

    embedder = embedding.Embedder(embed, batch_size)
    start = 0
    for size in sizes:
        embedder.add(rows[start : start + size])
        start += size
    if not len(rows):
        with pytest.raises(ValueError, match="nothing to embed"):
            embedder.finish()
        return
    found = embedder.finish()
    assert found.dtype == np.float32
    assert found.tolist() == (rows + 0.5).tolist()
    # As few batches as there can be.
    assert shapes == [(batch_size, 2)] * -(-len(rows) // batch_size)


def test_a_batch_is_embedded_as_soon_as_it_is_full():
    batches = []
    embedder = embedding.Embedder(lambda rows: batches.append(rows.tolist()) or rows, 3)
    embedder.add(np.arange(2))
    assert batches == []
    embedder.add(np.arange(2, 7))
    assert batches == [[0, 1, 2], [3, 4, 5]]


def test_each_batch_is_progress_of_the_evaluator():
    """The names of a thousand classes in eighty templates take minutes before any image is read."""
    embedder = embedding.Embedder(lambda rows: rows, 2)
    with activity.part("evaluator"):
        embedder.add(np.arange(5))
        assert activity.report().doing.startswith("evaluator: working, 2 done")


def test_bad_batch_size():
    with pytest.raises(ValueError, match="batch_size=0"):
        embedding.Embedder(np.asarray, 0)


def test_check_finite_names_the_first_row():
    rows = np.ones((5, 2), np.float32)
    embedding.check_finite("text", rows)
    rows[2, 1], rows[4, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"text embedding 2 is not finite \(2 of 5 rows\)"):
        embedding.check_finite("text", rows)


@pytest.mark.parametrize("width", [3, 64, 1000])
def test_the_tolerance_covers_the_order_of_summation_and_little_more(width):
    vectors = np.random.default_rng(0).standard_normal((200, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tolerance = embedding.tie_tolerance(vectors, vectors)
    assert tolerance < 1e-5
    exact = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    one_by_one = np.cumsum(vectors * vectors, axis=1, dtype=np.float32)[:, -1]
    assert np.abs(exact - one_by_one).max() < tolerance
    assert embedding.tie_tolerance(3 * vectors, 5 * vectors) == pytest.approx(15 * tolerance)
