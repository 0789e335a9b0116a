"""What is trained, and on how many devices."""

import dataclasses

import pytest
from on_digits import resolved

from classact.experiments import config
from classact.launch.assembly.parts import learning


def test_the_trained_reference_has_twice_the_learning_rate(digits):
    trained = learning.trained_models(resolved(policy="classact_online"), digits)
    assert [item.on_super_batch for item in trained.values()] == [False, False, True]
    rates = {name: item.optimizer.learning_rate for name, item in trained.items()}
    assert rates["reference"] == 2 * rates["learner"] == 2 * rates["online"]


def rates_of(data, **changes):
    started = {"learner__init": "runs/a", **changes}
    found = learning.trained_models(resolved(policy="classact_online", **started), data)
    assert not found["online"].optimizer.rates and not found["reference"].optimizer.rates
    return found["learner"].optimizer.rates


def test_a_head_alone_learns(digits):
    rates = rates_of(digits, learner__freeze="all_but_head")
    assert {name for name, rate in rates.items() if rate} == {"head/kernel", "head/bias"}
    assert len(rates) > 10 and rates_of(digits) == {}
    both = rates_of(digits, learner__freeze="all_but_head", learner__layer_decay=0.5)
    assert both == rates
    headless = {"learner__model": "vit_mu_2_1", "learner__options": {"head": False}}
    with pytest.raises(config.ConfigError, match=r"freeze='all_but_head' .*expected a model with a head"):
        rates_of(dataclasses.replace(digits, num_classes=64), learner__freeze="all_but_head", **headless)


def test_a_tower_stays_as_it_is(digits):
    data = dataclasses.replace(digits, num_classes=0, class_names=None, vocab_size=50, end_id=1)
    paired = {"task": "contrastive", "train_data": "icon_pairs"}
    for tower, other in (("image", "text"), ("text", "image")):
        rates = rates_of(data, learner__freeze=tower, **paired)
        learns = {name.partition("/")[0] for name, rate in rates.items() if rate}
        assert learns == {other, "log_scale", "bias"}
    learns = {name for name, rate in rates_of(data, learner__freeze="all_but_head", **paired).items() if rate}
    heads = {"image/head/kernel", "image/head/bias", "text/projection/kernel"}
    assert learns == {*heads, "log_scale", "bias"}


def test_layers_decay_where_there_are_layers(digits):
    rates = rates_of(digits, learner__layer_decay=0.5, learner__model="vit_mu_2_1")
    found = {name.partition("/")[0]: rate for name, rate in rates.items()}
    assert (found["patch_embedding"], found["block_0"], found["block_1"], found["head"]) == (
        0.125,
        0.25,
        0.5,
        1,
    )
    with pytest.raises(config.ConfigError, match=r"learner\.layer_decay=0\.5 with haiku_mlp: .*no numbered"):
        rates_of(digits, learner__layer_decay=0.5, learner__model="haiku_mlp")


def test_all_models_have_the_run_s_optimiser(digits):
    chosen = resolved(
        policy="classact_online", optimizer__name="lion", optimizer__schedule="rsqrt",
        optimizer__cooldown_steps=7, optimizer__beta1=0.8, optimizer__epsilon=1e-3,
        optimizer__decayed="kernels", optimizer__decay_times_rate=False,
    )  # fmt: skip
    for item in learning.trained_models(chosen, digits).values():
        own = item.optimizer
        assert (own.name, own.shape, own.cooldown_steps, own.decayed) == ("lion", "rsqrt", 7, "kernels")
        assert (own.beta1, own.beta2, own.epsilon, own.decay_times_rate) == (0.8, 0.99, 1e-3, False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 20}, "batch_size=20 of digits: must be divisible by 8: .* 8 devices"),
        ({"batch_size": 24, "gradient_accumulation": 2}, "batch_size=24 of digits: must be divisible by 16"),
        ({"policy": "classact_online", "batch_size": 8, "filter_ratio": 0.2}, "filter_ratio.*=10 of digits"),
        (
            {"policy": "classact_online", "batch_size": 32, "filter_ratio": 0.2, "gradient_accumulation": 4,
             "reference__super_batch": 40},
            r"reference\.super_batch=40 of digits: must be divisible by 32",
        ),
        ({"batch_size": 64}, None),
    ],
)  # fmt: skip
def test_devices_share_every_batch_evenly(changes, named):
    chosen = resolved(**changes)
    learning.check_batches(chosen, 1)
    if named is None:
        learning.check_batches(chosen, 8)
        return
    with pytest.raises(config.ConfigError, match=named):
        learning.check_batches(chosen, 8)
