"""What counts as diverged, and what does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.nodes import divergence, training
from classact.nodes.errors import DivergedError


def state_of(model):
    optimizer = training.OptimizerConfig(0.05, steps=10, warmup_steps=0)
    trained = {name: training.TrainedModel(model, optimizer, {"a": 1.0}) for name in ("learner", "online")}
    return training.init_state(trained, 0)


def poisoned(model, part, value):
    """The state of a model in which one entry of one array is another value."""
    leaves, structure = jax.tree.flatten(getattr(model, part))
    (index, *_) = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    leaves[index] = leaves[index].at[(0,) * leaves[index].ndim].set(value)
    return model.replace(**{part: jax.tree.unflatten(structure, leaves)})


def test_a_finite_state_passes(linear_model):
    divergence.check_state(3, state_of(linear_model))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["learner", "online"])
@pytest.mark.parametrize(
    ("part", "what"), [("params", "parameters"), ("opt_state", "the optimiser's moments")]
)
def test_one_number_is_enough(linear_model, value, name, part, what):
    state = state_of(linear_model)
    state.models[name] = poisoned(state.models[name], part, value)
    with pytest.raises(DivergedError, match=f"diverged at step 7: {what} of the {name} are not finite"):
        divergence.check_state(7, state)


def test_an_accelerators_arrays_are_looked_at_there():
    for value, finite in ((1.0, True), (np.nan, False), (np.inf, False)):
        for dtype in (jnp.float32, jnp.bfloat16):
            assert bool(divergence._finite_on_device(jnp.array([0.0, value], dtype))) is finite


def test_running_statistics_count_as_parameters(linear_model):
    state = state_of(linear_model)
    state.models["learner"] = state.models["learner"].replace(state={"mean": jnp.array([0.0, jnp.inf])})
    with pytest.raises(DivergedError, match="parameters of the learner"):
        divergence.check_state(7, state)


@pytest.mark.parametrize("name", ["train/loss", "train/online_loss", "train/icons/loss"])
def test_a_loss_that_is_not_finite(name):
    with pytest.raises(DivergedError, match=f"diverged at step 2: {name} is inf") as raised:
        divergence.checked_metrics(2, {"train/accuracy": jnp.nan, name: jnp.inf})
    assert raised.value.step == 2
    assert divergence.checked_metrics(2, {name: jnp.float32(1.5)}) == {name: 1.5}


@pytest.mark.parametrize(
    ("nonfinite", "examples", "fails"), [(10, 10, False), (11, 11, True), (20, 2000, False), (21, 2000, True)]
)
def test_the_scores_that_are_tolerated(nonfinite, examples, fails):
    if not fails:
        divergence.check_scores(4, nonfinite, examples, 0.01)
        return
    with pytest.raises(DivergedError, match=f"diverged at step 4: {nonfinite} of {examples} scores"):
        divergence.check_scores(4, nonfinite, examples, 0.01)


def test_scores_of_a_model_that_never_changes_have_no_step():
    with pytest.raises(DivergedError, match="diverged at step 0: 20 of 20"):
        divergence.check_scores(-1, 20, 20, 0.01)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_arrays_on_the_host_are_counted(dtype):
    good = {"w": np.ones((2, 2), dtype), "count": np.int32(3)}
    assert divergence.nonfinite_arrays({"params": good, "state": {}}) == ""
    bad = {**good, "b": np.array([1, np.nan], dtype)}
    assert divergence.nonfinite_arrays({"params": bad}) == "1 of its 2 arrays hold NaN or infinity"
    divergence.check_measured(5, good)
    with pytest.raises(DivergedError, match="diverged at step 5: the learner's parameters are not finite"):
        divergence.check_measured(5, bad)
