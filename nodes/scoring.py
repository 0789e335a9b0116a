"""The score of a batch, as one jitted function of models and examples."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from classact.data.carried.sealing import as_scored
from classact.models import registry
from classact.nodes import joint_fields
from classact.selection import losses, policies
from classact.selection.contrastive import Contrastive
from classact.selection.weighting import OnlineWeight

Variables = Any
# In what is sent for scoring: the losses of a reference that score files stand for.
REFERENCE_LOSS = "reference_loss"
# Of a batch no score may need these; they stay with the run loop.
_UNSEEN = ("id", "clean_label", "corrupted")
# score(variables by role, batch, learner's step int32[]) -> float32[B]; roles: "online", "reference".
# Of a joint policy `score` among what else its examples carry, by field.
ScoreBatch = Callable[[Mapping[str, Variables], Mapping[str, Any], Any], jax.Array | dict[str, jax.Array]]


def make_scorer(
    policy: policies.Policy,
    task: losses.Task,
    models: Mapping[str, registry.Model],
    online_weight: OnlineWeight | None = None,
    reference_from_file: bool = False,
) -> ScoreBatch:
    """Builds the jitted score function of a policy.

    Args:
        policy: which losses the score needs, and the score itself.
        task: gives ℓ_act.
        models: by role: "online" and "reference", those that the policy has.
        online_weight: α, which the online model's loss is multiplied by before the policy
            sees it; None: 1.
        reference_from_file: whether the batch has the reference's losses, as
            `reference_loss`, float32[B], and no model is asked for them.

    Returns:
        A function of variables by role, of a batch and of the learner's step, that gives
        float32[B] (Eq. 2 to 5 for the policies of the paper); of a joint policy what
        `joint_fields.make_scorer` says.

    Raises:
        ValueError: for a joint policy with another task than pairs, or with the reference's losses alone.
    """
    if policy.joint:
        if not isinstance(task, Contrastive) or reference_from_file:
            raise ValueError(f"policy {policy.name!r} is joint: it compares the embeddings of pairs")
        return joint_fields.make_scorer(policy, task.learn, models)
    roles = {"online": policy.online is not None, "reference": policy.reference is not None}
    weighted = None if online_weight is None or online_weight.is_one else online_weight

    def outputs_of(role: str, variables: Mapping[str, Variables], batch: Mapping[str, Any]) -> Any:
        if not roles[role]:
            return None
        if role == "reference" and reference_from_file:
            return {"loss": batch[REFERENCE_LOSS]}
        outputs, _ = models[role].apply(variables[role], batch, train=False)
        return {**outputs, "loss": task.act_loss(outputs, batch)}

    @jax.jit
    def score(variables: Mapping[str, Variables], batch: Mapping[str, Any], step: Any) -> jax.Array:
        online = outputs_of("online", variables, batch)
        if online is not None and weighted is not None:
            online["loss"] *= weighted.at(jnp.asarray(step))
        reference = outputs_of("reference", variables, batch)
        return policy.score(online, reference)

    return score


def make_file_scorer(policy: policies.Policy) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Builds the score function of a policy whose only model is a reference with score files.

    Returns:
        A function of a batch with `reference_loss`, float32[B], that gives float32[B].
    """
    score = jax.jit(lambda loss: policy.score(None, {"loss": loss}))
    return lambda batch: np.asarray(score(batch[REFERENCE_LOSS]))


def published_name(policy: policies.Policy, role: str) -> str:
    """The name under which the learner publishes the model of a role."""
    return "learner" if role == "online" and policy.online == "learner" else role


def request(
    batch: Mapping[str, np.ndarray], reference_losses: Callable[[np.ndarray], np.ndarray] | None
) -> dict[str, np.ndarray]:
    """What a score is asked for with: `scoring_fields`, and the reference's losses if they were read.

    Args:
        batch: of a source.
        reference_losses: gives those of ids int64[B], float32[B]; None: a model does.
    """
    fields = scoring_fields(batch)
    if reference_losses is not None:
        fields[REFERENCE_LOSS] = reference_losses(batch["id"])
    return fields


def scoring_fields(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a batch that is sent for scoring: what models and losses read."""
    return {
        name: array
        for name, array in as_scored(batch).items()
        if name not in _UNSEEN and not name.startswith(joint_fields.PREFIX)
    }
