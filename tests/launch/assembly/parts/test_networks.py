"""The networks of a run, made to fit its data."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from on_digits import only, open_train, resolved

from classact.experiments import config, model_config
from classact.launch.assembly.parts import networks, shapes
from classact.models import inputs
from classact.nodes import scoring
from classact.selection import losses, policies


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
        ({"learner__image_size": 6}, r"learner\.model.*patch_size=4 does not divide the image of 6×6"),
        ({"learner__patch_size": 3}, r"learner\.model.*patch_size=3 does not divide"),
    ],
)
def test_a_model_that_cannot_be_built_is_named(digits, change, match):
    with pytest.raises(config.ConfigError, match=match):
        networks.make_models(resolved(**change), digits)


def test_all_interpolations_are_told_of():
    assert typing.get_args(inputs.Interpolation) == model_config.INTERPOLATIONS


def test_only_square_images_are_resized(digits):
    wide = dataclasses.replace(digits, image_shape=(8, 12, 1))
    with pytest.raises(config.ConfigError, match=r"scorer\.image_size=4: must be 0 with images of 8×12"):
        networks.make_models(resolved(policy="classact_online", scorer__image_size=4), wide)


def test_models_of_several_sizes_score_together(digits):
    """The same pixels, at each one's own resolution."""
    chosen = resolved(
        policy="classact_online", scorer__image_size=4, reference__model="vit_mu_1_1", reference__patch_size=2
    )
    own = only(chosen)
    models = networks.role_models(chosen, own, digits)
    variables = jax.jit(lambda: {role: model.init(jax.random.key(0)) for role, model in models.items()})()
    tokens = {role: own["params"]["positions"].shape[1] - 1 for role, own in variables.items()}
    assert tokens == {"online": 1, "reference": 16}
    batch = open_train().batch(np.arange(6))
    batch = {name: jnp.asarray(batch[name]) for name in ("image", "label")}
    score = scoring.make_scorer(policies.get(own.policy), losses.Classification(), models)
    # A model that is given images of its own size does nothing with them.
    small = dataclasses.replace(digits, image_shape=(4, 4, 1))
    alone = {"online": networks.scorer(chosen, small), "reference": models["reference"]}

    @jax.jit
    def each(variables, batch):
        images = {"online": inputs.resized(batch["image"], (4, 4, 1)), "reference": batch["image"]}
        outputs = [
            model.apply(variables[role], {"image": images[role]}, train=False)[0]
            for role, model in alone.items()
        ]
        return [losses.Classification().act_loss(found, batch) for found in outputs]

    expected = each(variables, batch)
    found = score(variables, batch, np.int32(0))
    np.testing.assert_allclose(found, expected[0] - expected[1], atol=1e-5)


def test_both_towers_compute_as_the_options_say():
    settings = {"task": "contrastive", "train_data": "icon_pairs", "patch_size": 8}
    half = {"dtype": "bfloat16", "remat": "dots", "scan": True}
    plain, chosen = (resolved(**settings, learner__options=options) for options in ({}, half))
    shape = shapes.data_shape(plain, open_train(**settings))
    models = [networks.make_models(item, shape)["learner"] for item in (plain, chosen)]
    variables = jax.jit(models[0].init)(jax.random.key(0))
    shapes_of = jax.eval_shape(models[1].init, jax.random.key(0))
    assert all(array.dtype == np.float32 for array in jax.tree.leaves(shapes_of))
    rng = np.random.default_rng(0)
    images = {"image": rng.integers(0, 256, (4, *shape.image_shape), dtype=np.uint8)}
    texts = {"text": np.full((4, plain.contrastive.context_length), shape.end_id, np.int32)}
    for batch, name in ((images, "image_embedding"), (texts, "text_embedding")):

        def embed(params, model, batch=batch, name=name):
            return model.apply({"params": params, "state": {}}, batch, train=True)[0][name].sum()

        values = [float(jax.jit(embed, static_argnums=1)(variables["params"], model)) for model in models]
        assert values[0] != values[1] and values[1] == pytest.approx(values[0], abs=0.3)
        trace = jax.make_jaxpr(jax.grad(embed), static_argnums=1)
        traced = [str(trace(variables["params"], model)) for model in models]
        for what in ("bf16", "remat", "scan["):
            assert [what in text for text in traced] == [False, True]
