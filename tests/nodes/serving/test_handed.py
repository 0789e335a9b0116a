"""What a trainer gets of a sampled sub-batch: weights, files, texts."""

import io

import hypothesis
import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from PIL import Image

from classact.nodes import batches
from classact.nodes.serving import handed

SCORES = hnp.arrays(np.float32, st.integers(1, 12), elements=st.floats(-5, 5, width=32))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(SCORES, st.floats(0.25, 5.0))
def test_weights_undo_the_odds_of_the_softmax(scores, temperature):
    weights = handed.importance_weights(scores, temperature)
    assert weights.dtype == np.float32 and np.isclose(weights.mean(), 1.0, rtol=1e-4)
    odds = np.exp((scores.astype(np.float64) - scores.min()) / temperature)
    # Of two examples one is drawn exp(difference / temperature) times as often, and counts as much less.
    np.testing.assert_allclose(weights * odds / (weights * odds).max(), 1.0, rtol=1e-3, atol=1e-6)


def test_a_weighted_mean_over_what_is_drawn_is_that_of_the_data():
    rng = np.random.default_rng(0)
    scores, values = rng.normal(size=400).astype(np.float32), rng.normal(size=400)
    values += scores  # So that the mean over what is drawn is another one.
    odds = np.exp(scores / 0.5)
    drawn = rng.choice(400, 200_000, p=odds / odds.sum())
    weights = handed.importance_weights(scores[drawn], 0.5)
    assert abs(values[drawn].mean() - values.mean()) > 1.0
    assert abs((weights * values[drawn]).mean() - values.mean()) < 0.1


def sampled(files=None, text=None):
    image = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    fields = {"image": jnp.asarray(image), **({"text": jnp.asarray(text)} if text is not None else {})}
    ids, labels = np.array([7, 9]), np.array([1, 0], np.int32) if text is None else None
    made = batches.Sampled(
        fields, 2, np.zeros(2), None, ids, labels, scores=np.float32([0.5, 2.0]), files=files
    )
    return made, image


def test_pixels_files_or_nothing_go_as_the_replay_carries_them():
    made, image = sampled(files=[b"a jpeg", b""])
    pixels = handed.Handing("pixels", 1.0)(made)
    assert set(pixels) == {"id", "label", "score", "weight", "image"}
    np.testing.assert_array_equal(pixels["image"], image)
    files = handed.Handing("encoded", 1.0)(made)["encoded"]
    # Pixels that were carried, as they take less than the file, are a PNG.
    assert files[0] == b"a jpeg"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(files[1]))), image[1])
    assert set(handed.Handing("ids", 1.0)(made)) == {"id", "label", "score", "weight"}


def test_what_was_not_scored_has_no_score_and_weighs_one():
    found = handed.Handing("ids")(sampled()[0])
    assert "score" not in found
    np.testing.assert_array_equal(found["weight"], [1, 1])


def test_texts_go_as_tokens_and_as_captions():
    made, _ = sampled(text=np.array([[1, 2], [3, 4]], np.int32))
    found = handed.Handing("ids", 1.0, lambda text: [f"first {row[0]}" for row in text])(made)
    assert "label" not in found
    assert (found["text"].tolist(), found["caption"]) == ([[1, 2], [3, 4]], ["first 1", "first 3"])
