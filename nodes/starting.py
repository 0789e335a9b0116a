"""A train state whose models start from weights that were there before."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from classact.nodes import training


def start_from(state: training.TrainState, found: Mapping[str, Mapping[str, Any]]) -> training.TrainState:
    """Puts weights into a state.

    Args:
        state: of `training.init_state`; its optimisers' states do not depend on the weights.
        found: by model `{"params", "state"}`, numpy arrays of the shapes that the model's have, of
            each as much as is known.

    Returns:
        The state, on the devices where it was, with these arrays in place of its own.
    """
    models = dict(state.models)
    for name, variables in found.items():
        own = models[name]
        models[name] = dataclasses.replace(
            own,
            params=_merged(own.params, variables.get("params", {})),
            state=_merged(own.state, variables.get("state", {})),
        )
    return dataclasses.replace(state, models=models)


def _merged(own: Any, found: Any) -> Any:
    if isinstance(own, Mapping):
        return {name: _merged(value, found[name]) if name in found else value for name, value in own.items()}
    array = np.asarray(found, own.dtype)
    # Of several hosts each has its part.
    return jax.make_array_from_callback(own.shape, own.sharding, lambda index: array[index])
