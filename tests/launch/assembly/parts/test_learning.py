"""What is trained, and on how many devices."""

import pytest
from on_digits import resolved

from classact.experiments import config
from classact.launch.assembly.parts import learning


def test_the_trained_reference_has_twice_the_learning_rate(digits):
    trained = learning.trained_models(resolved(policy="classact_online"), digits)
    assert [item.on_super_batch for item in trained.values()] == [False, False, True]
    rates = {name: item.optimizer.learning_rate for name, item in trained.items()}
    assert rates["reference"] == 2 * rates["learner"] == 2 * rates["online"]


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
