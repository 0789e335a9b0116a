"""How parameters that were read differ from a model's, in words."""

import jax
import numpy as np
import pytest

from classact.launch.assembly.parts import fitting
from classact.models import registry


def model_of(name="vit_mu_1_1", image_shape=(8, 8, 1), patch_size=4, **options):
    return lambda number: registry.create(
        name, num_classes=number, image_shape=image_shape, patch_size=patch_size, **options
    )


def variables(made, number):
    """Arrays of the right shapes; what is in them does not matter."""
    shapes = jax.eval_shape(lambda: made(number).init(jax.random.key(0)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


# Among the sizes of a network there may be one that is the number of its classes.
@pytest.mark.parametrize("name", ["vit_mu_1_1", "haiku_mlp"])
@pytest.mark.parametrize("number", [3, 16, 256])
def test_another_number_of_classes_is_said_in_classes(name, number):
    made = model_of(name)
    assert fitting.misfit(variables(made, number), made, number) == ""
    said = fitting.misfit(variables(made, number), made, 5)
    assert said == f"it has learned {number} classes, expected 5"
    assert fitting.misfit(variables(made, 5), made, number) == f"it has learned 5 classes, expected {number}"


def test_anything_else_is_said_by_the_first_parameter():
    said = fitting.misfit(variables(model_of(patch_size=2), 3), model_of(), 3)
    assert "'patch_embedding'" in said and "shape (4, 64), expected (16, 64)" in said
    assert "expected none" in fitting.misfit(variables(model_of(), 3), model_of("haiku_mlp"), 3)


def test_a_model_without_a_head_has_no_outputs_of_its_own():
    """As SigLIP's image tower, which is no other one with one channel more."""
    headless = model_of(head=False)
    assert fitting.output_axes(headless, 64) == {}
    assert set(fitting.output_axes(model_of(), 64).values()) == {0, 1}
    assert "'patch_embedding'" in fitting.misfit(
        variables(model_of(patch_size=2, head=False), 64), headless, 64
    )
