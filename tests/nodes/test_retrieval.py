"""Recalls against a brute-force oracle, and what the measure embeds."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.models import registry
from classact.nodes import retrieval


def brute_force(images, texts, image_of, ks):
    """The recalls by the definition, one query at a time, in float64."""
    similarity = images.astype(np.float64) @ texts.astype(np.float64).T
    image_ranks, text_ranks = [], []
    for image, row in enumerate(similarity):
        best = max(row[text] for text in range(len(texts)) if image_of[text] == image)
        wrong = [row[text] for text in range(len(texts)) if image_of[text] != image]
        image_ranks.append(sum(value >= best for value in wrong))
    for text, column in enumerate(similarity.T):
        own = column[image_of[text]]
        text_ranks.append(sum(column[i] >= own for i in range(len(images)) if i != image_of[text]))
    found = {f"i2t_r{k}": np.mean([rank < k for rank in image_ranks]) for k in ks}
    return found | {f"t2i_r{k}": np.mean([rank < k for rank in text_ranks]) for k in ks}


def captions(rng, num_images, extra):
    """image_of: at least one caption an image, `extra` more, in any order."""
    more = rng.integers(0, num_images, extra)
    return rng.permutation(np.concatenate([np.arange(num_images), more]))


@settings(deadline=None, max_examples=60)
@given(
    num_images=st.integers(1, 13),
    extra=st.integers(0, 15),
    values=st.integers(0, 3),
    block=st.sampled_from([4, 32]),
    seed=st.integers(0, 2**32 - 1),
)
def test_recalls_equal_the_oracle_with_many_ties_and_duplicates(num_images, extra, values, block, seed):
    rng = np.random.default_rng(seed)
    image_of = captions(rng, num_images, extra)
    # Small whole numbers: their products are exact, and many are equal.
    images = rng.integers(-values, values + 1, (num_images, 3)).astype(np.float32)
    texts = rng.integers(-values, values + 1, (len(image_of), 3)).astype(np.float32)
    ks = (1, 2, 5)
    expected = brute_force(images, texts, image_of, ks)
    assert retrieval.recalls(images, texts, image_of, ks, block) == pytest.approx(expected)


def unit(rng, shape):
    vectors = rng.standard_normal(shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(num_images=st.integers(1, 40), extra=st.integers(0, 60), seed=st.integers(0, 2**32 - 1))
def test_recalls_of_embeddings_on_the_sphere_equal_the_oracle_at_any_block_size(num_images, extra, seed):
    rng = np.random.default_rng(seed)
    image_of = captions(rng, num_images, extra)
    images = unit(rng, (num_images, 16))
    texts = images[image_of] + 0.5 * unit(rng, (len(image_of), 16))
    expected = brute_force(images, texts.astype(np.float32), image_of, retrieval.KS)
    for block in (7, 64):
        assert retrieval.recalls(images, texts, image_of, block=block) == pytest.approx(expected)


def test_any_caption_finds_its_image_but_each_caption_must_find_it_itself():
    images = np.eye(2, dtype=np.float32)
    texts = np.array([[0.9, 0.1], [0.1, 0.9], [0.0, 1.0]], np.float32)
    # Image 0's second caption is about image 1.
    found = retrieval.recalls(images, texts, np.array([0, 0, 1]), ks=(1, 2))
    assert found == pytest.approx({"i2t_r1": 1.0, "i2t_r2": 1.0, "t2i_r1": 2 / 3, "t2i_r2": 1.0})


def test_ranks_at_the_edges_of_k():
    # Image 0 sees its own caption behind n wrong ones.
    for wrong, expected in ((0, (1, 1, 1)), (1, (0, 1, 1)), (4, (0, 1, 1)), (5, (0, 0, 1)), (10, (0, 0, 0))):
        num = 12
        images = np.zeros((num, num + 1), np.float32)
        images[np.arange(num), np.arange(num)] = 1
        texts = images.copy()
        texts[:, -1] = np.where(np.arange(num) == 0, 0.5, np.where(np.arange(num) <= wrong, 0.7, 0.2))
        # Only the last coordinate is left of image 0.
        images[0] = np.eye(num + 1)[-1]
        found = retrieval.recalls(images, texts, np.arange(num))
        others = num - 1
        # Each other image finds its own caption.
        assert [round(found[f"i2t_r{k}"] * num) - others for k in (1, 5, 10)] == list(expected)


@pytest.mark.parametrize("width", [1, 7, 100])
@pytest.mark.parametrize("block", [8, 1024])
def test_a_collapsed_model_finds_nothing(width, block):
    vector = unit(np.random.default_rng(0), (1, width))
    found = retrieval.recalls(
        np.tile(vector, (50, 1)), np.tile(vector, (75, 1)), np.arange(75) % 50, block=block
    )
    assert set(found.values()) == {0.0}


def test_equal_texts_and_equal_images_of_other_pairs_are_wrong_candidates():
    embeddings = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    found = retrieval.recalls(embeddings, embeddings, np.arange(4), ks=(1, 2))
    assert found == {"i2t_r1": 0.5, "i2t_r2": 1.0, "t2i_r1": 0.5, "t2i_r2": 1.0}


def test_padding_is_no_candidate():
    # All similarities are negative: a padded zero would come first.
    embeddings = np.array([[1.0], [2.0], [3.0]], np.float32)
    found = retrieval.recalls(embeddings, -embeddings[::-1], np.arange(3), ks=(1, 3), block=8)
    assert found["i2t_r3"] == found["t2i_r3"] == 1.0
    assert found == pytest.approx(brute_force(embeddings, -embeddings[::-1], np.arange(3), (1, 3)))


def test_with_k_candidates_recall_at_k_is_one():
    ones = np.ones((5, 2), np.float32)
    found = retrieval.recalls(ones, ones, np.arange(5), ks=(4, 5))
    assert found == {"i2t_r4": 0.0, "i2t_r5": 1.0, "t2i_r4": 0.0, "t2i_r5": 1.0}


GOOD = np.eye(3, dtype=np.float32)


def with_value(value):
    return np.where(np.arange(3)[:, None] == 1, np.float32(value), GOOD)


@pytest.mark.parametrize(
    ("images", "texts", "image_of", "message"),
    [
        (with_value(np.nan), GOOD, [0, 1, 2], "image embedding 1 is not finite"),
        (GOOD, with_value(np.inf), [0, 1, 2], "text embedding 1 is not finite"),
        (GOOD, GOOD, [0, 1, 3], "text 2 is of image 3: expected 0 to 2"),
        (GOOD, GOOD, [0, -1, 2], "text 1 is of image -1"),
        (GOOD, GOOD, [0, 2, 2], r"image 1 has no text \(1 such images\)"),
        (GOOD, GOOD, [0, 1], r"image_of is int64\[2\]: expected int64\[3\]"),
        (GOOD, GOOD, [0.0, 1.0, 2.0], "image_of is float64"),
        (GOOD, GOOD[:, :2], [0, 1, 2], "shapes"),
        (GOOD[:0], GOOD, [0, 1, 2], "shapes"),
    ],
)
def test_bad_input(images, texts, image_of, message):
    with pytest.raises(ValueError, match=message):
        retrieval.recalls(images, texts, np.array(image_of))


@pytest.mark.parametrize("options", [{"block": 0}, {"ks": (0, 1)}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected at least 1"):
        retrieval.recalls(GOOD, GOOD, np.arange(3), **options)


IMAGE_OF = np.array([4, 0, 0, 2, 4, 1, 0, 3, 2, 1])
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 2, 3, 1), dtype=np.uint8)
TEXTS = RNG.integers(0, 9, (10, 4), dtype=np.int32)
VARIABLES = {
    "image": RNG.standard_normal((6, 8)).astype(np.float32),
    "text": RNG.standard_normal((4, 8)).astype(np.float32),
}


def embed(variables, field, rows):
    return rows.reshape(len(rows), -1).astype(np.float32) @ variables[field] / 100


class Towers:
    """Two linear towers; it notes the shapes that they are compiled for."""

    def __init__(self):
        self.compiled = []
        self.model = registry.Model("towers", lambda key: VARIABLES, self.apply)

    def apply(self, variables, batch, *, train, rng=None):
        assert not train
        self.compiled += [(field, rows.shape) for field, rows in batch.items()]
        return {
            f"{field}_embedding": jnp.asarray(embed(variables, field, rows)) for field, rows in batch.items()
        }, {}


def pairs(sizes, order=None):
    ids = np.arange(10) if order is None else np.array(order)
    start = 0
    for size in sizes:
        part = ids[start : start + size]
        yield {"id": part, "image": PIXELS[IMAGE_OF[part]], "text": TEXTS[part]}
        start += size


@pytest.mark.parametrize("sizes", [(10,), (4, 4, 2), (1, 0, 7, 2)])
@pytest.mark.parametrize("batch_size", [3, 16])
def test_the_measure_embeds_each_image_and_each_text_once_at_one_shape(sizes, batch_size):
    towers = Towers()
    measure = retrieval.retrieval(towers.model, lambda: pairs(sizes), IMAGE_OF, batch_size, ks=(1, 2))
    images, texts = embed(VARIABLES, "image", PIXELS), embed(VARIABLES, "text", TEXTS)
    expected = brute_force(images, texts, IMAGE_OF, (1, 2)) | {"pairs": 10, "images": 5}
    for _ in range(2):  # The batches are read anew each time.
        assert measure(VARIABLES) == pytest.approx(expected)
    assert sorted(towers.compiled) == [("image", (batch_size, 2, 3, 1)), ("text", (batch_size, 4))]


def test_an_image_is_not_embedded_again_with_its_other_captions(monkeypatch):
    given_images = []

    class Noted(retrieval.embedding.Embedder):
        def add(self, rows):
            if rows.dtype == np.uint8:
                given_images.extend(rows.tolist())
            super().add(rows)

    monkeypatch.setattr(retrieval.embedding, "Embedder", Noted)
    retrieval.retrieval(Towers().model, lambda: pairs((3, 3, 4)), IMAGE_OF)(VARIABLES)
    # In the order of their first pairs.
    assert given_images == PIXELS[[4, 0, 2, 1, 3]].tolist()


def test_pairs_that_were_left_out_are_no_candidates():
    # Image 3 has lost its only pair; image 0 its first.
    kept = [9, 2, 0, 3, 5, 8]
    measure = retrieval.retrieval(Towers().model, lambda: pairs((2, 4), kept), IMAGE_OF, 4, ks=(1, 2))
    images = embed(VARIABLES, "image", PIXELS[[0, 1, 2, 4]])
    image_of = np.array([0, 1, 2, -1, 3])[IMAGE_OF[kept]]
    expected = brute_force(images, embed(VARIABLES, "text", TEXTS[kept]), image_of, (1, 2))
    assert measure(VARIABLES) == pytest.approx(expected | {"pairs": 6, "images": 4})


def test_a_diverged_model_is_an_error():
    broken = VARIABLES | {"text": np.full((4, 8), np.nan, np.float32)}
    with pytest.raises(ValueError, match="text embedding 0 is not finite"):
        retrieval.retrieval(Towers().model, lambda: pairs((10,)), IMAGE_OF)(broken)


@pytest.mark.parametrize(
    ("sizes", "order", "message"),
    [
        ((2, 2), [0, 1, 1, 2], "pair 1 came twice"),
        ((2,), [0, 10], "pair 10: expected 0 to 9"),
        ((2,), [0, -1], "pair -1: expected 0 to 9"),
        ((), [], "gave no examples"),
    ],
)
def test_batches_that_are_not_the_data_set_once(sizes, order, message):
    def batches():
        start = 0
        for size in sizes:
            ids = np.array(order[start : start + size])
            yield {"id": ids, "image": PIXELS[np.zeros_like(ids)], "text": TEXTS[np.zeros_like(ids)]}
            start += size

    with pytest.raises(ValueError, match=message):
        retrieval.retrieval(Towers().model, batches, IMAGE_OF)(VARIABLES)


@pytest.mark.parametrize("image_of", [[], [0, -1], [0.0], [[0]]])
def test_bad_image_of(image_of):
    with pytest.raises(ValueError, match="image_of is"):
        retrieval.retrieval(Towers().model, lambda: pairs((10,)), np.array(image_of))
