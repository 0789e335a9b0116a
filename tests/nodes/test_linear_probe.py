"""A linear head on features: that of scikit-learn's logistic regression, whatever the features' scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from classact.nodes import linear_probe


def drawn(seed, count=300, width=5, classes=4):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    features = rng.normal(size=(classes, width))[labels] + rng.normal(size=(count, width))
    return features.astype(np.float32), labels


def probabilities(head, features):
    logits = features @ head.kernel + head.bias
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 99), st.sampled_from([1e-3, 1e-2, 1e-1]), st.sampled_from([1e-2, 1.0, 50.0]))
def test_it_is_the_logistic_regression_of_scaled_features(seed, l2, scale):
    features, labels = drawn(seed)
    head = linear_probe.fit(scale * features + 3, labels, 4, [l2])
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    own = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-7, max_iter=2000).fit(scaled, labels)
    np.testing.assert_allclose(
        probabilities(head, scale * features + 3), own.predict_proba(scaled), atol=5e-3
    )
    assert head.l2 == l2 and head.passes % len(labels) == 0
    assert head.macs == 2 * 5 * 4 * head.passes


def test_of_several_penalties_that_is_taken_that_tells_most_of_others():
    """Of features that say nothing of the classes the strongest, of ones that say all the weakest."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    noise = rng.normal(size=(300, 40)).astype(np.float32)
    assert linear_probe.fit(noise, labels, 3, [1e-5, 10.0]).l2 == 10.0
    telling = np.eye(3, dtype=np.float32)[labels] + 0.01 * noise[:, :3]
    assert linear_probe.fit(telling, labels, 3, [1e-5, 10.0]).l2 == 1e-5
    # Of few examples none can be set apart.
    assert linear_probe.fit(telling[:9], labels[:9], 3, [1e-5, 1e-3, 10.0]).l2 == 1e-3


def test_classes_that_do_not_come_are_improbable():
    features, labels = drawn(1, classes=2)
    features[:, 2] = 7.0
    found = probabilities(linear_probe.fit(features, labels, 5, [1e-3]), features)
    assert found[:, 2:].max() < 1e-2 and found[np.arange(300), labels].mean() > 0.6


@pytest.mark.parametrize("features", [np.empty((0, 3), np.float32), np.full((4, 3), np.nan, np.float32)])
def test_nothing_and_what_is_not_finite_are_refused(features):
    with pytest.raises(ValueError, match="expected at least one, and finite features"):
        linear_probe.fit(features, np.zeros(len(features), int), 2)
