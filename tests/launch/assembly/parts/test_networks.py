"""The networks of a run, made to fit its data."""

import jax
import numpy as np
import pytest
from on_digits import only, open_train, resolved

from classact.experiments import config
from classact.launch.assembly.parts import networks, shapes


@pytest.fixture(scope="module")
def digits():
    return shapes.data_shape(resolved(), open_train())


@pytest.mark.parametrize(
    ("policy", "names", "roles"),
    [
        ("uniform", {"learner"}, set()),
        ("hard_learner", {"learner"}, {"online"}),
        ("classact_online", {"learner", "online", "reference"}, {"online", "reference"}),
    ],
)
def test_models_by_name_and_by_role(digits, policy, names, roles):
    chosen = resolved(policy=policy, learner__model="vit_mu_2_1")
    models = networks.make_models(chosen, digits)
    assert set(models) == names
    assert models["learner"].name == "vit_mu_2_1"
    found = networks.role_models(chosen, only(chosen), digits)
    assert set(found) == roles
    if policy == "hard_learner":
        assert found["online"].name == "vit_mu_2_1"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"learner__model": "vit_mu_1_2"}, "unknown model 'vit_mu_1_2'.*did you mean"),
        ({"patch_size": 3}, "vit_mu_1_1.*digits.*3"),
        ({"learner__options": {"pols": "mean"}}, "no option 'pols'"),
    ],
)
def test_a_model_that_cannot_be_built_is_named(digits, change, match):
    with pytest.raises(config.ConfigError, match=match):
        networks.make_models(resolved(**change), digits)


def test_both_towers_compute_as_the_options_say():
    settings = {"task": "contrastive", "train_data": "icon_pairs", "patch_size": 8}
    half = {"dtype": "bfloat16", "remat": True}
    plain, chosen = (resolved(**settings, learner__options=options) for options in ({}, half))
    shape = shapes.data_shape(plain, open_train(**settings))
    models = [networks.make_models(item, shape)["learner"] for item in (plain, chosen)]
    variables = models[0].init(jax.random.key(0))
    assert all(array.dtype == np.float32 for array in jax.tree.leaves(models[1].init(jax.random.key(0))))
    rng = np.random.default_rng(0)
    images = {"image": rng.integers(0, 256, (4, *shape.image_shape), dtype=np.uint8)}
    texts = {"text": np.full((4, plain.contrastive.context_length), shape.end_id, np.int32)}
    for batch, name in ((images, "image_embedding"), (texts, "text_embedding")):

        def embed(params, model, batch=batch, name=name):
            return model.apply({"params": params, "state": {}}, batch, train=True)[0][name].sum()

        values = [float(embed(variables["params"], model)) for model in models]
        assert values[0] != values[1] and values[1] == pytest.approx(values[0], abs=0.3)
        trace = jax.make_jaxpr(jax.grad(embed), static_argnums=1)
        traced = [str(trace(variables["params"], model)) for model in models]
        assert ["bf16" in text for text in traced] == ["remat" in text for text in traced] == [False, True]
