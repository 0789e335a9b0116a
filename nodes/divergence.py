"""When a run has diverged: its loss, its parameters or its scores are no finite numbers any more.

One check for every launch. The learner and the synchronous loop use it for what they
train, run loops and the synchronous loop for scores, evaluators for what they measure.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from classact.nodes.errors import DivergedError

if TYPE_CHECKING:
    from classact.nodes import training

# A few scores may be no numbers in any run, however short.
_TOLERATED_SCORES = 10.0


def checked_metrics(step: int, metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    """Brings an update's metrics to the host; blocks until it is computed.

    Raises:
        DivergedError: if a loss is not finite, the first one by name.
    """
    values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
    for name, value in values.items():
        if name.endswith("loss") and not math.isfinite(value):
            raise DivergedError(step, f"{name} is {value}")
    return values


def check_state(step: int, state: "training.TrainState") -> None:
    """Checks everything that a checkpoint holds and that the next update starts from.

    A finite loss does not show this: it is that of the parameters before its update.
    Reads each array once, on its devices, and blocks until the update is computed; so
    it is called where a state is saved or measured, and not after every update.
    Several hosts that share the state must all call it.

    Raises:
        DivergedError: if a parameter, a running statistic or a moment of the optimiser is
            NaN or infinite.
    """
    found = {
        name: [
            [_finite(array) for array in jax.tree.leaves(tree) if jnp.issubdtype(array.dtype, jnp.inexact)]
            for tree in (model.variables, model.opt_state)
        ]
        for name, model in state.models.items()
    }
    for name, (variables, moments) in jax.device_get(found).items():
        if not all((*variables, *moments)):
            what = "the optimiser's moments" if all(variables) else "parameters"
            raise DivergedError(step, f"{what} of the {name} are not finite")


def _finite(array: jax.Array) -> Any:
    """Whether an array is finite; on an accelerator without waiting for it."""
    if array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices()):
        return np.isfinite(np.asarray(array)).all()
    return _finite_on_device(array)


@jax.jit
def _finite_on_device(array: jax.Array) -> jax.Array:
    """One array at a time: few have a shape of their own, and to compile hundreds together takes seconds."""
    return jnp.all(jnp.isfinite(array))


def nonfinite_arrays(variables: Any) -> str:
    """Says how many of a model's arrays hold NaN or infinity; "" if none does.

    Args:
        variables: of arrays on the host; each is read once.
    """
    arrays = [np.asarray(array) for array in jax.tree.leaves(variables)]
    arrays = [array for array in arrays if jnp.issubdtype(array.dtype, jnp.inexact)]
    bad = sum(not np.isfinite(array).all() for array in arrays)
    return f"{bad} of its {len(arrays)} arrays hold NaN or infinity" if bad else ""


def check_measured(step: int, variables: Any) -> None:
    """Checks parameters of the learner that are about to be measured.

    Raises:
        DivergedError: if they are not finite: an accuracy of them would look like one.
    """
    found = nonfinite_arrays(variables)
    if found:
        raise DivergedError(step, f"the learner's parameters are not finite ({found})")


def check_scores(step: int, nonfinite: int, examples: int, max_share: float) -> None:
    """Checks how many of the scores so far are not finite; ten are tolerated in any case.

    Args:
        step: of the parameters that made the last ones; -1: of a model that never changes.
        nonfinite: how many are not.
        examples: how many there are.
        max_share: `max_nonfinite_share` of the configuration.

    Raises:
        DivergedError: past that share.
    """
    if nonfinite > max(_TOLERATED_SCORES, max_share * examples):
        raise DivergedError(
            max(step, 0),
            f"{nonfinite} of {examples} scores are NaN or infinite, more than "
            f"max_nonfinite_share={max_share}; parameters of learner step {step}",
        )
