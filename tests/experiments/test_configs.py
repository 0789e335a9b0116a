"""Every configuration that ships can be resolved, and says how to run it."""

import dataclasses
import importlib

import golden_configs
import pytest

from classact.experiments import resolution
from classact.experiments.configs import demo_clip, icons_table2, image_text_sets
from classact.selection import policies

PARTS = [(name, part) for name in golden_configs.names() for part in golden_configs.parts(name) or ("",)]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_a_configuration_resolves(name, part):
    resolved = golden_configs.resolved(name, part)
    assert resolved.steps > 0
    assert "Command" in importlib.import_module(f"classact.experiments.configs.{name}").__doc__
    if part in policies.names():
        assert resolved.policy == part


def test_the_demonstration_differs_in_the_policy_alone():
    from classact.experiments.configs import demo

    uniform, classact = (demo.get_config(part).to_dict() for part in ("uniform", "classact"))
    different = {name for name in uniform if uniform[name] != classact[name]}
    assert different == {"policy", "reference"}


def test_the_demonstrations_of_activeclip_differ_in_the_selection_alone():
    parts = [demo_clip.get_config(part).to_dict() for part in ("uniform", "active_noisy", "active_clean")]
    different = {name for name in parts[0] if any(part[name] != parts[0][name] for part in parts)}
    assert different == {"policy", "reference"}


def test_several_data_sets_score_with_the_reference_that_their_commands_train():
    reference = resolution.resolve(demo_clip.get_config("reference_clean").to_dict())
    config = resolution.resolve(image_text_sets.get_config().to_dict())
    scorer, learner = dataclasses.asdict(config.scorer), dataclasses.asdict(reference.learner)
    assert scorer == {name: learner[name] for name in scorer}
    assert config.contrastive == reference.contrastive


def test_an_unknown_part_is_refused():
    from classact.experiments.configs import demo

    for module in (demo_clip, icons_table2):
        with pytest.raises(ValueError, match="expected one of reference_noisy"):
            module.get_config("active")
    with pytest.raises(ValueError, match=r"demo.py:classact"):
        demo.get_config("clasact")
