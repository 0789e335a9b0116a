"""What is said of a model makes it again."""

import dataclasses
import json
import math

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weights_cases import SPECS

from classact.models import registry, transformer, vit
from classact.models.variant import NORMS, POSITIONS, Variant
from classact.weights import architecture, opening
from classact.weights.architecture import Architecture, ImageTower, TextTower

CHANNELS = st.sampled_from([(), (0.5, 0.25, 0.125)])
VARIANTS = st.builds(
    Variant,
    activation=st.sampled_from(list(transformer.ACTIVATIONS)),
    epsilon=st.sampled_from([1e-6, 1e-5, 1e-12]),
    qkv_bias=st.booleans(),
    layer_scale=st.sampled_from([0.0, 1e-5]),
    pre_norm=st.booleans(),
    patch_bias=st.booleans(),
    class_token=st.sampled_from([None, True]),
    class_position=st.booleans(),
    registers=st.integers(0, 3),
    positions=st.sampled_from(POSITIONS),
    norm=st.sampled_from(NORMS),
    head_bias=st.booleans(),
    mean=st.shared(CHANNELS, key="channels"),
    std=st.shared(CHANNELS, key="channels"),
)
SIZES = st.sampled_from([transformer.SIZES["mu_1_1"], transformer.Size(8, 1, 12, 2)])
TOWERS = st.builds(
    ImageTower,
    size=SIZES,
    patch_size=st.just(4),
    image_size=st.sampled_from([(8, 8), (4, 12)]),
    outputs=st.integers(1, 5),
    pool=st.sampled_from(vit.POOLS),
    variant=VARIANTS,
)
TEXTS = st.builds(
    TextTower,
    size=SIZES,
    vocab_size=st.just(9),
    context_length=st.just(3),
    end_id=st.integers(0, 8),
    causal=st.booleans(),
    pool=st.sampled_from(["end", "last"]),
    projection_bias=st.booleans(),
    style=st.builds(transformer.Style, epsilon=st.sampled_from([1e-6, 1e-5])),
)
ARCHITECTURES = st.builds(
    Architecture, image=TOWERS, text=st.none() | TEXTS, max_scale=st.sampled_from([100.0, math.inf])
)


@given(ARCHITECTURES)
def test_an_architecture_is_said_in_json(found):
    assert architecture.from_json(json.loads(json.dumps(found.as_json()))) == found


@settings(max_examples=15)
@given(TOWERS.filter(lambda tower: tower.pool != "map" or tower.variant.norm == "tokens"))
def test_name_and_options_in_the_registry_make_the_tower(tower):
    """As a configuration has them, in JSON; sizes are where the tower says."""
    model = registry.create(
        tower.name,
        num_classes=tower.outputs,
        image_shape=(*tower.image_size, 3),
        patch_size=tower.patch_size,
        **json.loads(json.dumps(tower.options)),
    )
    params = jax.eval_shape(model.init, jax.random.key(0))["params"]
    variant, width = tower.variant, tower.size.width
    assert params["head"]["kernel"].shape == (width, tower.outputs)
    assert ("bias" in params["head"]) == variant.head_bias and ("pre_norm" in params) == variant.pre_norm
    assert ("cls" in params) == tower.class_token and ("registers" in params) == bool(variant.registers)
    if variant.positions == "learned":
        rows, columns = tower.grid
        together = tower.class_token and variant.class_position
        assert params["positions"].shape == (1, rows * columns + together, width)
    assert ("scale_mlp" in params["block_0"]) == bool(variant.layer_scale)


def test_a_tower_of_a_known_size_has_its_name():
    tower = opening.read(SPECS["hf_clip"]).architecture.image
    assert tower.name == "vit" and tower.options["heads"] == 2
    named = dataclasses.replace(tower, size=transformer.SIZES["b"])
    assert named.name == "vit_b" and "heads" not in named.options


@pytest.mark.parametrize("damage", [{"image": 3}, {"text": {"size": 1}}, {"max_scale": "high"}])
def test_what_is_no_description_is_an_error(damage):
    said = opening.read(SPECS["hf_clip"]).architecture.as_json()
    with pytest.raises((ValueError, TypeError, LookupError)):
        architecture.from_json({**said, **damage})
