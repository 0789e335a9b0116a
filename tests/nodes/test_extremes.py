"""The highest and the lowest scores of the last batches, and nothing else in memory."""

import tracemalloc

import numpy as np
import pytest

from classact.nodes import extremes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scored_images.npz"


def batch(ids, scores):
    scores = np.asarray(scores, np.float32)
    return {
        "id": np.asarray(ids),
        "score": scores,
        "image": np.repeat(scores.astype(np.uint8), 4).reshape(-1, 2, 2, 1),
    }


def saved(path, batches, keep=None, **options):
    kept = extremes.Extremes(path, **options)
    for number, item in enumerate(batches):
        kept.add(item, np.ones(len(item["id"]), bool) if keep is None else keep[number])
    kept.save()
    return np.load(path)


def test_they_are_the_ends_of_all_that_was_kept(path):
    rng = np.random.default_rng(0)
    scores = rng.permutation(120).reshape(4, 30)
    ids = np.arange(120).reshape(4, 30)
    found = saved(path, [batch(*item) for item in zip(ids, scores, strict=True)], count=7)
    np.testing.assert_array_equal(found["score"], [*range(7), *range(113, 120)])
    place = {score: number for number, score in zip(ids.ravel(), scores.ravel(), strict=True)}
    np.testing.assert_array_equal(found["id"], [place[score] for score in found["score"]])
    np.testing.assert_array_equal(found["image"][:, 0, 0, 0], found["score"])


def test_what_was_not_kept_is_no_end(path):
    keep = np.array([False, True, True, True, False])
    found = saved(path, [batch(range(5), [-9, 1, 2, 3, 99])], [keep], count=1)
    assert found["score"].tolist() == [1, 3]


@pytest.mark.parametrize(("batches", "oldest"), [(4, 0), (8, 0), (9, 4), (12, 4), (13, 8)])
def test_they_are_of_the_last_batches(path, batches, oldest):
    # Falling scores: the highest is the oldest that is remembered.
    found = saved(path, [batch([number], [-number]) for number in range(batches)], count=1, part=4)
    assert found["id"].tolist() == [batches - 1, oldest]


def test_an_example_that_comes_again_counts_once_with_its_newest_score(path):
    again = [batch([1, 2], [5, 0]), batch([1, 3], [1, 2])]
    for part in (1, 2):
        found = saved(path, again, count=3, part=part)
        assert dict(zip(found["id"].tolist(), found["score"].tolist(), strict=True)) == {1: 1, 2: 0, 3: 2}


def test_names_and_captions_go_with_them(path):
    item = {**batch([4, 5], [1, 0]), "text": np.array([[7, 0], [8, 0]])}
    found = saved(
        path, [item], class_names=("a", "b"), decode=lambda text: [f"text {row[0]}" for row in text]
    )
    assert found["class_names"].tolist() == ["a", "b"]
    assert found["caption"].tolist() == ["text 8", "text 7"]


def test_without_a_batch_there_is_no_file(path):
    extremes.Extremes(path).save()
    assert not path.exists()


def test_memory_does_not_grow_with_the_batch(path):
    kept = extremes.Extremes(path, count=4)
    images = np.zeros((4096, 32, 32, 1), np.uint8)
    tracemalloc.start()
    for number in range(3):
        ids = np.arange(4096) + number * 4096
        kept.add({"id": ids, "score": ids.astype(np.float32), "image": images}, np.ones(4096, bool))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Of 4 MB a batch.
    assert held < 100_000
