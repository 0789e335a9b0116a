"""Zero-shot classification with a model whose embeddings are known."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.models import registry
from classact.nodes import zero_shot

# The tokens of a text are its characters' codes: the fake models can read it.
LENGTH = 24


def encode(texts):
    tokens = np.zeros((len(texts), LENGTH), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = [ord(character) for character in text]
    return tokens


def decode(tokens):
    return ["".join(chr(code) for code in row if code) for row in np.asarray(tokens)]


def embed_by(table):
    """An embedding function that looks texts up; it notes the sizes it is called with."""

    def embed(tokens):
        embed.sizes.append(len(tokens))
        return np.array([table[text] for text in decode(tokens)], np.float32)

    embed.sizes = []
    return embed


def test_a_class_is_the_unit_mean_of_its_prompts_unit_embeddings():
    table = {"red": [3, 0], "a red": [0, 0.5], "sky blue": [0, -2], "a sky blue": [0, -7]}
    found = zero_shot.class_embeddings(embed_by(table), encode, ["red", "sky-blue"], ["{}", "a {}"])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [0, -1]], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 15, 100])
def test_prompts_are_embedded_at_one_size_whatever_their_number(batch_size):
    names, templates = [f"class_{k}" for k in range(5)], ["{}", "the {}", "{}!"]
    rng = np.random.default_rng(0)
    prompts = [[template.replace("{}", f"class {k}") for template in templates] for k in range(5)]
    table = {prompt: rng.standard_normal(3) for row in prompts for prompt in row}
    embed = embed_by(table)
    found = zero_shot.class_embeddings(embed, encode, names, templates, batch_size)
    for row, class_prompts in zip(found, prompts, strict=True):
        mean = sum(table[prompt] / np.linalg.norm(table[prompt]) for prompt in class_prompts)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
    assert embed.sizes == [batch_size] * -(-15 // batch_size)


def test_prompts_that_cancel_out_give_no_nan():
    found = zero_shot.class_embeddings(
        embed_by({"a": [1, 0], "no a": [-1, 0]}), encode, ["a"], ["{}", "no {}"]
    )
    assert found.tolist() == [[0, 0]]


def test_bad_prompts():
    embed = embed_by({"a": [1, 0], "b": [np.nan, 0]})
    with pytest.raises(ValueError, match="embedding of 'b' is not finite"):
        zero_shot.class_embeddings(embed, encode, ["a", "b"], ["{}"])
    for names, templates in (([], ["{}"]), (["a"], [])):
        with pytest.raises(ValueError, match="expected at least one of each"):
            zero_shot.class_embeddings(embed, encode, names, templates)
        with pytest.raises(ValueError, match="expected at least one of each"):
            zero_shot.zero_shot(MODEL, encode, names, templates, lambda: iter(()))
    with pytest.raises(ValueError, match="class name '-'"):
        zero_shot.zero_shot(MODEL, encode, ["-"], ["{}"], lambda: iter(()))


@settings(deadline=None, max_examples=50)
@given(
    examples=st.integers(1, 20),
    classes=st.integers(1, 8),
    values=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_ranks_equal_the_oracle_with_many_ties(examples, classes, values, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(-values, values + 1, (examples, 3)).astype(np.float32)
    names = rng.integers(-values, values + 1, (classes, 3)).astype(np.float32)
    labels = rng.integers(0, classes, examples).astype(np.int32)
    scores = images @ names.T
    expected = [
        sum(row[k] >= row[label] for k in range(classes) if k != label)
        for row, label in zip(scores, labels, strict=True)
    ]
    assert zero_shot.label_ranks(images, names, labels).tolist() == expected


def test_ranks_of_more_images_than_a_block():
    rng = np.random.default_rng(0)
    images, names = rng.standard_normal((2500, 4)), rng.standard_normal((7, 4))
    labels = rng.integers(0, 7, 2500)
    scores = images @ names.T
    expected = (scores > scores[np.arange(2500), labels][:, None]).sum(1)
    assert zero_shot.label_ranks(images, names, labels).tolist() == expected.tolist()


def apply(variables, batch, *, train, rng=None):
    """An image is a one-hot of its first pixel; a text of its first letter, a being 0."""
    assert not train
    outputs = {}
    if "image" in batch:
        outputs["image_embedding"] = jnp.asarray(variables["image"])[batch["image"][:, 0, 0, 0]]
    if "text" in batch:
        outputs["text_embedding"] = jnp.eye(8)[batch["text"][:, 0] - ord("a")]
    return outputs, {}


MODEL = registry.Model("known", lambda key: {}, apply)
# Pixel p is nearest to class p, then to p + 1, and so on.
NEAR = np.stack([np.roll(np.arange(8, 0, -1), p) for p in range(8)]).astype(np.float32)
VARIABLES = {"image": NEAR / np.linalg.norm(NEAR[0])}


def labelled(pixels, labels, sizes):
    def batches():
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            image = np.zeros((len(pixels[part]), 2, 2, 1), np.uint8)
            image[:, 0, 0, 0] = pixels[part]
            yield {"image": image, "label": np.array(labels[part], np.int32)}
            start += size

    return batches


# The ranks of the labels are 0, 1, 4, 5, 7 and 0.
PIXELS, LABELS = [0, 1, 2, 3, 4, 7], [0, 2, 6, 0, 3, 7]


@pytest.mark.parametrize("sizes", [(6,), (4, 0, 2), (1, 5)])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_top1_and_top5(sizes, batch_size):
    measure = zero_shot.zero_shot(
        MODEL, encode, list("abcdefgh"), ["{}", "{} icon"], labelled(PIXELS, LABELS, sizes), batch_size
    )
    for _ in range(2):  # The batches are read anew each time.
        found = measure(VARIABLES)
        counts = found.classes
        worst = {"zero_shot_worst_class_top1": 0.0}
        assert found == pytest.approx({"zero_shot_top1": 2 / 6, "zero_shot_top5": 4 / 6, **worst})
        assert counts.names == tuple("abcdefgh")
        np.testing.assert_array_equal(counts.examples, [2, 0, 1, 1, 0, 0, 1, 1])
        np.testing.assert_array_equal(counts.correct, [1, 0, 0, 0, 0, 0, 0, 1])


def test_five_classes_have_no_top5():
    measure = zero_shot.zero_shot(MODEL, encode, list("abcde"), ["{}"], labelled([0, 1], [0, 3], [2]))
    found = measure(VARIABLES)
    assert found["zero_shot_top1"] == 0.5
    assert "zero_shot_top5" not in found


def test_a_collapsed_model_and_classes_of_one_name_score_nothing():
    batches = labelled([0, 1, 2], [0, 1, 2], [3])
    collapsed = {"image": np.ones((8, 8), np.float32)}
    names = list("abcdefgh")
    found = zero_shot.zero_shot(MODEL, encode, names, ["{}"], batches)(collapsed)
    assert (found["zero_shot_top1"], found["zero_shot_top5"]) == (0.0, 0.0)
    found = zero_shot.zero_shot(MODEL, encode, ["a", "a", "c"], ["{}"], batches)(VARIABLES)
    assert found["zero_shot_top1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("variables", "labels", "message"),
    [
        (VARIABLES, [0, 8], "example 1 has label 8: expected 0 to 7"),
        (VARIABLES, [0, -1], "example 1 has label -1"),
        ({"image": np.full((8, 8), np.nan, np.float32)}, [0, 1], "image embedding 0 is not finite"),
        (VARIABLES, [], "gave no examples"),
    ],
)
def test_bad_data(variables, labels, message):
    batches = labelled([0, 1][: len(labels)], labels, [len(labels)])
    with pytest.raises(ValueError, match=message):
        zero_shot.zero_shot(MODEL, encode, list("abcdefgh"), ["{}"], batches)(variables)
