"""An update compiled ahead is the update; `test_mesh` trains with one on several devices and hosts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.nodes import batches, compiled_ahead, training
from classact.selection import losses

OPTIMIZER = training.OptimizerConfig(learning_rate=0.1, steps=20, warmup_steps=0)


def batch(size=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (size, 2, 2, 1), dtype=np.uint8),
        "label": rng.integers(0, 3, size).astype(np.int32),
    }


def trained_with(model):
    return {"learner": training.TrainedModel(model, OPTIMIZER, {"digits": 1.0})}


def ahead(trained, update, record):
    shapes = {"digits": compiled_ahead.batch_shapes(record, 6)}
    return compiled_ahead.CompiledAhead(update, training.state_shapes(trained), shapes, {})


def two_updates(trained, update):
    state = training.init_state(trained, 0)
    for seed in range(2):
        state, metrics = update(state, {"digits": batch(seed=seed)}, {})
    return jax.device_get((state.models, metrics))


def test_it_is_the_same_update_and_is_compiled_once(linear_model):
    trained = trained_with(linear_model)
    update = training.make_update(trained, losses.Classification(0.1))
    found = two_updates(trained, ahead(trained, update, batch()))
    assert update._cache_size() == 0  # jit's own compilation was not needed.
    jax.tree.map(np.testing.assert_array_equal, found, two_updates(trained, update))


def test_a_model_that_gives_another_type_of_state_than_it_takes_is_trained_too(linear_model):
    def init(key):
        return {**linear_model.init(key), "state": {"seen": jnp.zeros((), jnp.int32)}}

    def apply(variables, batch, **_):
        outputs, _ = linear_model.apply({**variables, "state": {}}, batch, train=True)
        return outputs, {"seen": variables["state"]["seen"].astype(jnp.float32) + 1}

    trained = trained_with(dataclasses.replace(linear_model, init=init, apply=apply))
    update = training.make_update(trained, losses.Classification(0.1))
    models, _ = two_updates(trained, ahead(trained, update, batch()))
    assert models["learner"].state["seen"] == 2.0


def test_what_the_compilation_raises_is_raised_by_the_update(linear_model):
    trained = trained_with(linear_model)
    update = training.make_update(trained, losses.Classification(0.1))
    broken = ahead(trained, update, {"image": batch()["image"]})
    with pytest.raises(KeyError, match="label"):
        two_updates(trained, broken)


def test_shapes_are_those_of_what_is_moved_to_the_device():
    record = {**batch(), "id": np.arange(6), "score": np.zeros(6, np.float32), "wide": np.arange(6)}
    record["scored_step"] = np.zeros(6, np.int64)
    placed = batches.to_device(record).batch
    shapes = compiled_ahead.batch_shapes({name: array[:1] for name, array in record.items()}, 6)
    assert {name: (array.shape, array.dtype) for name, array in placed.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in shapes.items()
    }
    assert shapes["wide"].dtype == jnp.int32 and set(shapes) == {"image", "label", "wide"}
