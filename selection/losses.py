"""A task: ℓ_act, the loss that scores an example, and ℓ_learn, which trains a model.

A task is two pure functions of a model's outputs and of the batch. Which data a
task needs in a batch is its own affair; nodes pass both through.
"""

from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import optax

Batch = Mapping[str, jax.Array]
Outputs = Mapping[str, jax.Array]


class Task(Protocol):
    """What the learner and the inference servers ask of a task."""

    def act_loss(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """ℓ_act: float32[B], one loss per example, used only for scoring."""

    def learn_loss(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """ℓ_learn: float32[], differentiable, averaged over the batch."""

    def metrics(self, outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        """Scalars to log beside the loss, for instance the accuracy."""


class Classification:
    """Softmax cross-entropy (Eq. 8), label smoothing in ℓ_learn only (A.2)."""

    def __init__(self, label_smoothing: float = 0.1) -> None:
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing={label_smoothing!r}: must be at least 0 and below 1")
        self._label_smoothing = label_smoothing

    def act_loss(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """Cross-entropy per example, float32[B], without label smoothing."""
        logits = outputs["logits"].astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])

    def learn_loss(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """Mean cross-entropy against smoothed labels, float32[]."""
        logits = outputs["logits"].astype(jnp.float32)
        targets = jax.nn.one_hot(batch["label"], logits.shape[-1])
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, self._label_smoothing)).mean()

    def metrics(self, outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        """`top1`: share of the batch whose largest logit is its label."""
        return {"top1": jnp.mean(outputs["logits"].argmax(-1) == batch["label"])}
