"""The score of a batch, as one jitted function of models and examples."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from classact.models import registry
from classact.selection import losses, policies

Variables = Any
# score(variables by role, batch) -> float32[B]; roles: "online", "reference".
ScoreBatch = Callable[[Mapping[str, Variables], Mapping[str, Any]], jax.Array]


def make_scorer(
    policy: policies.Policy, task: losses.Task, models: Mapping[str, registry.Model]
) -> ScoreBatch:
    """Builds the jitted score function of a policy.

    Args:
        policy: which losses the score needs, and the score itself.
        task: gives ℓ_act.
        models: by role: "online" and "reference", those that the policy has.

    Returns:
        A function of variables by role and of a batch, that gives float32[B]
        (Eq. 2 to 5 for the policies of the paper).
    """
    roles = {"online": policy.online is not None, "reference": policy.reference is not None}

    def outputs_of(role: str, variables: Mapping[str, Variables], batch: Mapping[str, Any]) -> Any:
        if not roles[role]:
            return None
        outputs, _ = models[role].apply(variables[role], batch, train=False)
        return {**outputs, "loss": task.act_loss(outputs, batch)}

    @jax.jit
    def score(variables: Mapping[str, Variables], batch: Mapping[str, Any]) -> jax.Array:
        online = outputs_of("online", variables, batch)
        reference = outputs_of("reference", variables, batch)
        return policy.score(online, reference)

    return score


def published_name(policy: policies.Policy, role: str) -> str:
    """The name under which the learner publishes the model of a role."""
    return "learner" if role == "online" and policy.online == "learner" else role


# The names of arrays that a score may need; the rest of a batch stays with the run loop.
def scoring_fields(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a batch that is sent for scoring: what models and losses read."""
    return {name: array for name, array in batch.items() if name not in ("id", "clean_label", "corrupted")}
