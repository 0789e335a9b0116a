"""Joint selection against the formulas of JEST written out in numpy, pair by pair, and by enumeration."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.selection import policies
from classact.selection.joint import LOSSES, Embedded, JointScore

POLICIES = ("jest", "jest_easy", "jest_hard")
DRAWS = 6_000


def embedded(size, seed, scale=3.0, bias=-1.0, width=3):
    """Of two models, by role; float16, as records carry them."""
    rng = np.random.default_rng(seed)
    found = {}
    for role, factor in (("online", 1.0), ("reference", 1.5)):
        unit = rng.normal(size=(2, size, width))
        unit = (unit / np.linalg.norm(unit, axis=-1, keepdims=True)).astype(np.float16)
        found[role] = Embedded(*unit, np.float32(factor * scale), np.float32(factor * bias))
    return found


class Oracle:
    """S_ii and what an example adds to those that were chosen, for one super-batch; all in float64."""

    def __init__(self, policy, loss, models):
        self.loss = loss
        # By the paper: learnability, easy reference and hard learner.
        self.signs = {"jest": (1, -1), "jest_easy": (0, -1), "jest_hard": (1, 0)}[policy]
        self.logits = []
        for role in ("online", "reference"):
            image, text, scale, bias = (np.asarray(part, np.float64) for part in models[role])
            size = len(image)
            shift = bias if loss == "sigmoid" else 0.0
            self.logits.append(
                [[scale * (image[i] @ text[j]) + shift for j in range(size)] for i in range(size)]
            )

    def pair(self, i, j):
        """S_ij of the sigmoid loss."""
        sign = 1 if i == j else -1
        return sum(
            weight * math.log1p(math.exp(-sign * logits[i][j]))
            for weight, logits in zip(self.signs, self.logits, strict=True)
        )

    def own(self, i):
        if self.loss == "sigmoid":
            return self.pair(i, i)
        return sum(w * -logits[i][i] for w, logits in zip(self.signs, self.logits, strict=True))

    def added(self, i, chosen):
        if not chosen:
            return 0.0
        if self.loss == "sigmoid":
            return sum(self.pair(i, j) + self.pair(j, i) for j in chosen)
        found = 0.0
        for weight, logits in zip(self.signs, self.logits, strict=True):
            as_image = math.log(sum(math.exp(logits[i][j]) for j in chosen))
            as_text = math.log(sum(math.exp(logits[j][i]) for j in chosen))
            found += weight * (as_image + as_text) / 2
        return found

    def sequences(self, size, chunks, temperature):
        """Each way to draw `size` examples in order, and its probability: softmax by softmax."""
        counts = [size // chunks + (k < size % chunks) for k in range(chunks)]
        examples = range(len(self.logits[0]))
        found = {}
        for rows in itertools.permutations(examples, size):
            probability, begun = 1.0, 0
            for count in counts:
                before = rows[:begun]
                weight = {
                    i: math.exp((self.own(i) + self.added(i, before)) / temperature)
                    for i in examples
                    if i not in before
                }
                for row in rows[begun : begun + count]:
                    probability *= weight[row] / sum(weight.values())
                    del weight[row]
                begun += count
            found[rows] = probability
        return found


@functools.cache
def drawn_from(policy, loss, chunks):
    """What draws 5 of a super-batch, compiled once."""
    score = JointScore(policies.get(policy), loss)

    @jax.jit
    def draw(models, seed):
        own = score.own(models)
        return own, score.draw(own, score.terms(models), seed, size=5, chunks=chunks, temperature=0.7)

    return draw


@settings(max_examples=20)
@given(
    policy=st.sampled_from(POLICIES),
    loss=st.sampled_from(LOSSES),
    chunks=st.sampled_from([2, 5]),
    seed=st.integers(0, 99),
)
def test_what_is_drawn_has_the_scores_of_the_formulas(policy, loss, chunks, seed):
    models, size = embedded(9, seed), 5
    oracle = Oracle(policy, loss, models)
    own, drawn = drawn_from(policy, loss, chunks)(models, seed)
    np.testing.assert_allclose(own, [oracle.own(i) for i in range(9)], rtol=1e-4, atol=1e-5)
    rows = drawn.rows.tolist()
    assert len(set(rows)) == size
    begun = 0
    for count in [size // chunks + (k < size % chunks) for k in range(chunks)]:
        for place in range(begun, begun + count):
            expected = oracle.added(rows[place], rows[:begun])
            np.testing.assert_allclose(drawn.added[place], expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(drawn.own[place], oracle.own(rows[place]), rtol=1e-4, atol=1e-4)
        begun += count


@pytest.mark.parametrize("policy", POLICIES)
def test_the_matrix_is_the_sum_that_is_drawn_by(policy):
    models = embedded(6, seed=1)
    score, oracle = JointScore(policies.get(policy), "sigmoid"), Oracle(policy, "sigmoid", models)
    expected = [[oracle.pair(i, j) for j in range(6)] for i in range(6)]
    matrix = score.matrix(models)
    np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-5)
    # And each pair of examples has both its terms of it.
    terms = np.asarray(score.terms(models))[:, 0]
    apart = ~np.eye(6, dtype=bool)
    np.testing.assert_allclose(terms[apart], (matrix + matrix.T)[apart], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_of_it_are_those_of_the_whole(loss):
    models, rows = embedded(7, seed=2), jnp.array([5, 0, 6])
    score = JointScore(policies.get("jest"), loss)
    np.testing.assert_allclose(score.terms(models, rows), score.terms(models)[rows], rtol=1e-6)


@pytest.mark.parametrize(
    ("policy", "loss", "size", "chunks"),
    [
        ("jest", "sigmoid", 3, 1),
        ("jest", "sigmoid", 3, 2),
        ("jest", "infonce", 4, 3),
        ("jest_easy", "infonce", 2, 2),
        ("jest_hard", "sigmoid", 4, 4),
    ],
)
def test_chunks_are_drawn_by_their_law(policy, loss, size, chunks):
    models, temperature = embedded(5, seed=3), 0.8
    expected = Oracle(policy, loss, models).sequences(size, chunks, temperature)
    assert math.isclose(sum(expected.values()), 1.0)
    score = JointScore(policies.get(policy), loss)
    own, terms = score.own(models), score.terms(models)

    @jax.jit
    @jax.vmap
    def draw(seed):
        return score.draw(own, terms, seed, size=size, chunks=chunks, temperature=temperature).rows

    drawn = [tuple(rows) for rows in np.asarray(draw(jnp.arange(DRAWS, dtype=jnp.uint32))).tolist()]
    for rows, probability in expected.items():
        seen = drawn.count(rows) / DRAWS
        # Five standard deviations, and 1 for rare ones.
        allowed = 5 * math.sqrt(probability * (1 - probability) / DRAWS) + 1 / DRAWS
        assert abs(seen - probability) < allowed, rows


def drawn_of(own, added=None, *, size, chunks=1, draws=20):
    """Of the sigmoid loss, from numbers: the rows of each of so many draws."""
    terms = np.zeros((len(own), len(own))) if added is None else np.asarray(added)
    own, terms = jnp.asarray(own, jnp.float32), jnp.asarray(terms, jnp.float32)[:, None]
    score = JointScore(policies.get("jest"), "sigmoid")

    @jax.jit
    @jax.vmap
    def draw(seed):
        return score.draw(own, terms, seed, size=size, chunks=chunks, temperature=1.0).rows

    return np.asarray(draw(jnp.arange(draws, dtype=jnp.uint32))).tolist()


def test_what_has_no_finite_score_comes_last():
    own = [math.nan, 0.0, math.inf, -1e3, -math.inf, 5.0]
    for rows in drawn_of(own, size=6, chunks=3):
        # Those without come in their order.
        assert set(rows[:3]) == {1, 3, 5} and sorted(rows[3:]) == [0, 2, 4]


def test_what_adds_no_number_is_last_or_first_of_its_chunk():
    terms = np.zeros((6, 6))
    # Each with the first one that is drawn, 0.
    terms[2, 0], terms[3, 0], terms[4, 0] = math.nan, -math.inf, math.inf
    for rows in drawn_of([100.0, *np.zeros(5)], terms, size=6, chunks=6):
        assert rows[:2] == [0, 4] and set(rows[2:4]) == {1, 5} and set(rows[4:]) == {2, 3}


def test_equal_scores_have_equal_chances_and_more_chunks_than_examples_are_one_each():
    firsts = [rows[0] for rows in drawn_of(np.zeros(3), size=3, chunks=9, draws=900)]
    # Five standard deviations.
    assert all(abs(firsts.count(row) - 300) < 5 * math.sqrt(200) for row in range(3))


@pytest.mark.parametrize(("size", "chunks"), [(0, 1), (4, 1), (2, 0)])
def test_sizes_that_cannot_be_are_refused(size, chunks):
    with pytest.raises(ValueError, match=f"size={size}, chunks={chunks}: must be 1 to 3"):
        drawn_of(np.zeros(3), size=size, chunks=chunks)


def test_policies_and_losses_that_have_no_joint_score_are_refused():
    with pytest.raises(ValueError, match="loss='dot': expected one of"):
        JointScore(policies.get("jest"), "dot")
    for models in ({}, {"online": "learner", "reference": "trained"}):
        with pytest.raises(ValueError, match="'mine': joint=True, expected with it"):
            policies.Policy("mine", joint=True, **models)
