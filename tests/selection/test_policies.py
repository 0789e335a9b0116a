"""Policies as data, scores by hand, and what a user may add."""

import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from classact.selection import policies

ONLINE = np.array([2.0, 0.5, 1.25], np.float32)
REFERENCE = np.array([0.5, 3.0, 1.25], np.float32)

# By hand, from Eq. 2 to 5: the online loss, minus the reference's loss, or their difference.
BY_HAND = {
    "hard_learner": [2.0, 0.5, 1.25],
    "easy_reference": [-0.5, -3.0, -1.25],
    "rho": [1.5, -2.5, 0.0],
    "learnability": [1.5, -2.5, 0.0],
    "classact_ho": [1.5, -2.5, 0.0],
    "classact": [1.5, -2.5, 0.0],
    "classact_online": [1.5, -2.5, 0.0],
}

# name: online, reference, reference's data, models trained, models published.
TABLE = {
    "uniform": (None, None, "in_domain", ("learner",), ()),
    "hard_learner": ("learner", None, "in_domain", ("learner",), ("learner",)),
    "easy_reference": (None, "fixed", "in_domain", ("learner",), ()),
    "rho": ("learner", "fixed", "held_out", ("learner",), ("learner",)),
    "learnability": ("learner", "fixed", "in_domain", ("learner",), ("learner",)),
    "classact_ho": ("proxy", "fixed", "held_out", ("learner", "online"), ("online",)),
    "classact": ("proxy", "fixed", "in_domain", ("learner", "online"), ("online",)),
    "classact_online": (
        "proxy",
        "trained",
        "in_domain",
        ("learner", "online", "reference"),
        ("online", "reference"),
    ),
    "jest": ("learner", "fixed", "in_domain", ("learner",), ("learner",)),
    "jest_proxy": ("proxy", "fixed", "in_domain", ("learner", "online"), ("online",)),
    "jest_easy": (None, "fixed", "in_domain", ("learner",), ()),
    "jest_hard": ("learner", None, "in_domain", ("learner",), ("learner",)),
    "top_share": (None, None, "in_domain", ("learner",), ()),
    "curriculum": (None, None, "in_domain", ("learner",), ()),
}


def score(policy, online=ONLINE, reference=REFERENCE):
    outputs = lambda loss, wanted: {"loss": jnp.asarray(loss)} if wanted else None  # noqa: E731
    return np.asarray(policy.score(outputs(online, policy.online), outputs(reference, policy.reference)))


@pytest.fixture
def no_new_policies():
    """Forgets the policies that a test registers."""
    before = dict(policies._POLICIES)
    yield
    policies._POLICIES.clear()
    policies._POLICIES.update(before)


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_equal_the_values_by_hand(name):
    np.testing.assert_array_equal(score(policies.get(name)), np.float32(BY_HAND[name]))


@pytest.mark.parametrize("name", TABLE)
def test_the_policies_are_those_of_the_table(name):
    online, reference, data, trained, published = TABLE[name]
    policy = policies.get(name)
    assert (policy.online, policy.reference, policy.reference_data) == (online, reference, data)
    assert policy.trained_models == trained
    assert policy.published_models == published
    assert policy.scores == (name not in ("uniform", "top_share", "curriculum"))
    assert policy.joint == name.startswith("jest")
    assert policy.prepared == {"top_share": "share", "curriculum": "order"}.get(name)


def test_every_policy_of_the_table_is_registered():
    assert policies.names() == tuple(TABLE)


losses_of = hnp.arrays(np.float32, 7, elements=st.floats(0, 50, width=32))


@given(losses_of, losses_of)
def test_easy_plus_hard_is_learnability(online, reference):
    hard = score(policies.get("hard_learner"), online)
    easy = score(policies.get("easy_reference"), reference=reference)
    both = score(policies.get("learnability"), online, reference)
    # XLA on a CPU rounds numbers below the smallest normal one to 0, numpy does not.
    np.testing.assert_allclose(hard + easy, both, rtol=0, atol=np.finfo(np.float32).tiny)


@given(losses_of)
def test_equal_models_score_zero(loss):
    for name in ("rho", "learnability", "classact", "classact_ho", "classact_online"):
        np.testing.assert_array_equal(score(policies.get(name), loss, loss), 0.0)


def test_a_score_needs_a_model():
    with pytest.raises(ValueError, match="online or of a reference"):
        policies.loss_difference(None, None)


@pytest.mark.parametrize(
    ("name", "nearest"), [("clasact", "classact"), ("hard-learner", "hard_learner"), ("RHO", "rho")]
)
def test_an_unknown_name_gives_the_nearest(name, nearest):
    with pytest.raises(ValueError, match="unknown policy") as caught:
        policies.get(name)
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("online", "teacher"), ("reference", "learner"), ("reference_data", "test")]
)
def test_a_bad_field_is_named(field, value):
    with pytest.raises(ValueError, match=f"{field}='{value}'"):
        policies.Policy("mine", **{field: value})


def test_a_registered_policy_is_found_and_scores(no_new_policies):
    @policies.register_policy("sure_of_it", online="proxy")
    def sure_of_it(online, reference):
        assert reference is None
        return online["loss"] * online["logits"].max(axis=-1)

    found = policies.get("sure_of_it")
    assert found is sure_of_it
    assert found.published_models == ("online",)
    outputs = {"loss": jnp.array([1.0, 2.0]), "logits": jnp.array([[0.0, 3.0], [5.0, 4.0]])}
    np.testing.assert_array_equal(found.score(outputs, None), [3.0, 10.0])


def test_a_name_can_be_registered_once(no_new_policies):
    policies.register(policies.get("rho"))  # The same one again is no conflict.
    with pytest.raises(ValueError, match="'rho' is registered already"):
        policies.register(policies.Policy("rho", online="learner"))


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "users_policies.py").write_text(
        textwrap.dedent(
            """
            from classact.selection import policies

            LEARNT = policies.Policy("learnt", online="learner")
            NUMBER = 3
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_policies"
    sys.modules.pop("users_policies", None)


def test_a_policy_of_a_module_is_imported(user_module):
    assert policies.get(f"{user_module}:LEARNT").name == "learnt"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("users_policies:MISSING", "has no 'MISSING'"),
        ("no_such_module_anywhere:X", "no module no_such_module_anywhere.*PYTHONPATH"),
        ("users_policies:NUMBER", "is a int, expected a Policy"),
        (":LEARNT", "':LEARNT': expected package.module:name"),
    ],
)
def test_a_policy_that_cannot_be_imported(user_module, path, message):
    with pytest.raises(ValueError, match=message):
        policies.get(path)
