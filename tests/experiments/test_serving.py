"""A configuration whose sub-batches are handed on."""

import pytest

from classact.experiments import base, resolution
from classact.experiments.config import ConfigError
from classact.experiments.serving import ServeConfig
from classact.launch.assembly.parts import learning, networks, shapes
from classact.selection import policies


def resolved(**changes):
    config = base.get_config()
    config.policy = "classact_online"
    config.serve.on = True
    config.update_from_flattened_dict(changes)
    return resolution.resolve(config.to_dict())


def test_the_learner_is_the_scorer_and_the_online_model():
    config = resolved(**{"scorer.model": "vit_mu_1_1", "selection.learning_rate_factor": 3.0})
    assert (config.learner.model, config.learner.freeze) == ("vit_mu_1_1", "")
    (own,) = config.data_sets.values()
    policy = config.policy_of(own)
    assert policy.published_models == ("learner", "reference")
    assert policy.trained_models == ("learner", "reference")
    # With its rate; nothing is trained twice.
    data = shapes.DataShape(name="x", num_examples=99, image_shape=(8, 8, 1), num_classes=3, codec=None)
    trained = learning.trained_models(config, data)
    assert set(trained) == set(networks.make_models(config, data)) == {"learner", "reference"}
    assert trained["learner"].optimizer.learning_rate == pytest.approx(3.0 * config.learning_rate)


def test_without_it_all_is_as_it_was():
    config = resolved(**{"serve.on": False})
    (own,) = config.data_sets.values()
    assert config.policy_of(own) is policies.get("classact_online")
    assert config.learner.model != config.scorer.model


@pytest.mark.parametrize("policy", ["hard_learner", "learnability", "rho"])
def test_a_policy_that_scores_with_the_learner_is_refused(policy):
    needs = {} if policy == "hard_learner" else {"reference.checkpoint": "somewhere"}
    if policy == "rho":
        needs |= {"held_out": 0.5, "train_split": "rest"}
    with pytest.raises(ConfigError, match=f"policy='{policy}' of icons: scores with the learner's own"):
        resolved(policy=policy, **needs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("listen", "somewhere:80"),
        ("listen", "127.0.0.1"),
        ("listen", "127.0.0.1:99999"),
        ("listen", "unix:relative"),
        ("ahead", 0),
        ("kept", -1),
    ],
)
def test_a_bad_value_names_its_field(field, value):
    with pytest.raises(ConfigError, match=rf"serve\.{field}={value!r}"):
        ServeConfig(**{field: value})


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::1]:5557", "unix:/run/socket"])
def test_addresses_that_can_be_listened_at(address):
    assert ServeConfig(listen=address).listen == address


def test_several_hosts_are_refused():
    with pytest.raises(ConfigError, match=r"mesh\.hosts=2"):
        resolved(**{"mesh.hosts": 2})
