"""What the records of a joint policy carry, and the function that makes it of examples.

Of each model of the policy `joint_<role>`, float16[2, D], the embeddings of the image and of the text,
and `joint_<role>_scale`, float32[2], the scale and the bias of the similarities.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from classact.models import registry
from classact.selection import policies
from classact.selection.joint import Embedded, JointScore

PREFIX = "joint_"
_OUTPUTS = ("image_embedding", "text_embedding", "scale", "bias")
# As `scoring.ScoreBatch`, of a joint policy.
ScoreFields = Callable[[Mapping[str, Any], Mapping[str, Any], Any], dict[str, jax.Array]]


def scale_field(role: str) -> str:
    """The field of a model's scale and bias."""
    return f"{PREFIX}{role}_scale"


def empty_fields(roles_widths: Mapping[str, int]) -> dict[str, np.ndarray]:
    """One record's fields, all 0, for models that map into spaces of these widths, by role."""
    fields: dict[str, np.ndarray] = {}
    for role, width in roles_widths.items():
        fields[PREFIX + role] = np.zeros((1, 2, width), np.float16)
        fields[scale_field(role)] = np.zeros((1, 2), np.float32)
    return fields


def make_scorer(policy: policies.Policy, loss: str, models: Mapping[str, registry.Model]) -> ScoreFields:
    """Builds the jitted function that gives what a joint choice needs of each example.

    Args:
        policy: one that is joint.
        loss: ℓ_learn, of `selection.joint.LOSSES`.
        models: by role.

    Returns:
        As `scoring.make_scorer`: a function that gives `score`, float32[B], what an example is worth
        alone, and the fields of this module.
    """
    score = JointScore(policy, loss)

    @jax.jit
    def embed(variables: Mapping[str, Any], batch: Mapping[str, Any], step: Any) -> dict[str, jax.Array]:
        del step
        found: dict[str, jax.Array] = {}
        embedded = {}
        for role in score.roles:
            outputs, _ = models[role].apply(variables[role], batch, train=False)
            own = embedded[role] = Embedded(*(outputs[name] for name in _OUTPUTS))
            found[PREFIX + role] = jnp.stack([own.image, own.text], axis=1).astype(jnp.float16)
            scale = jnp.stack([own.scale, own.bias]).astype(jnp.float32)
            found[scale_field(role)] = jnp.broadcast_to(scale, (len(own.image), 2))
        return {"score": score.own(embedded), **found}

    return embed
