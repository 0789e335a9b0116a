"""The jitted score is the policy's score of the models' losses."""

import jax
import numpy as np
import pytest

from classact.nodes import scoring
from classact.selection import losses, policies
from classact.selection.weighting import OnlineWeight

BATCH = {
    "image": np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1), dtype=np.uint8),
    "label": np.array([0, 1, 2, 0, 1], np.int32),
}


STEP = np.int32(0)


def cross_entropy(variables):
    pixels = BATCH["image"].reshape(5, -1) / 255.0
    logits = pixels @ np.asarray(variables["params"]["w"]) + np.asarray(variables["params"]["b"])
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(5), BATCH["label"]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hard_learner", lambda online, reference: online),
        ("easy_reference", lambda online, reference: -reference),
        ("classact", lambda online, reference: online - reference),
        ("classact_online", lambda online, reference: online - reference),
    ],
)
def test_scores_equal_numpy(linear_model, name, expected):
    policy = policies.get(name)
    online, reference = (linear_model.init(jax.random.key(seed)) for seed in (1, 2))
    roles = {"online": policy.online, "reference": policy.reference}
    models = {role: linear_model for role, kind in roles.items() if kind}
    variables = {"online": online, "reference": reference}
    score = scoring.make_scorer(policy, losses.Classification(0.1), models)
    found = score({role: variables[role] for role in models}, BATCH, STEP)
    # No label smoothing: that is for the learner's loss alone.
    np.testing.assert_allclose(
        found, expected(cross_entropy(online), cross_entropy(reference)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("step", "weight"), [(-1, 0.5), (0, 0.5), (50, 0.375), (100, 0.25), (130, 0.25)])
def test_the_online_loss_is_weighed_by_the_step(linear_model, step, weight):
    online, reference = (linear_model.init(jax.random.key(seed)) for seed in (1, 2))
    score = scoring.make_scorer(
        policies.get("classact"),
        losses.Classification(),
        {"online": linear_model, "reference": linear_model},
        OnlineWeight(0.5, 0.25, 100),
    )
    found = score({"online": online, "reference": reference}, BATCH, np.int32(step))
    expected = weight * cross_entropy(online) - cross_entropy(reference)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_policy_may_use_all_that_a_model_returns(linear_model):
    policy = policies.Policy("embedding", online="proxy", score=lambda online, _: online["embedding"].sum(-1))
    score = scoring.make_scorer(policy, losses.Classification(), {"online": linear_model})
    found = score({"online": linear_model.init(jax.random.key(0))}, BATCH, STEP)
    np.testing.assert_allclose(found, BATCH["image"].reshape(5, -1).sum(-1) / 255.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "role", "published"),
    [
        ("hard_learner", "online", "learner"),
        ("classact", "online", "online"),
        ("classact_online", "reference", "reference"),
    ],
)
def test_the_name_under_which_a_role_is_published(name, role, published):
    assert scoring.published_name(policies.get(name), role) == published


def test_only_what_is_read_for_scoring_is_sent():
    batch = {"id": 1, "image": 2, "label": 3, "clean_label": 4, "text": 5}
    assert scoring.scoring_fields(batch) == {"image": 2, "label": 3, "text": 5}
