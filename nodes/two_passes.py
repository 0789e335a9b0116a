"""Gradients of a loss in which all examples of a batch meet, from one micro-batch after another.

As in Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (2021,
GradCache): what a loss is made of is small beside what a model keeps for its backward pass. A first
pass computes every micro-batch's outputs and keeps nothing else; the loss of the whole batch gives its
gradient with respect to them; a second pass computes each micro-batch again, and goes back from there.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from classact.models import registry
from classact.nodes import mesh as mesh_lib
from classact.selection import losses


def differentiate(
    model: registry.Model,
    task: losses.Task,
    mesh: jax.sharding.Mesh | None,
    parts: int,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    rng: jax.Array,
    weight: float = 1.0,
) -> tuple[Any, Any, tuple[jax.Array, dict[str, jax.Array]]]:
    """Differentiates ℓ_learn of a whole batch; inside a jitted function.

    The loss and its gradients are those of the batch in one piece but for the order of sums, as
    long as an example's outputs depend on nothing but itself. A BatchNorm normalises
    each micro-batch by itself and updates its statistics after each, once. What a model draws at random
    is the same in both passes.

    Args:
        model: whose outputs of an example have the batch's axis first, and others none.
        task: gives the loss and the metrics.
        mesh: the devices; None: one.
        parts: micro-batches of the batch.
        variables: `{"params", "state"}`, the parameters as they lie between updates.
        batch: of all examples [B, …].
        rng: of the update.
        weight: what the loss is multiplied by.

    Returns:
        The gradients with respect to the parameters of `weight` times the loss, which lie as those do;
        the state afterwards; the loss itself and the metrics.
    """
    # Each micro-batch's number, with which its key is made in both passes.
    numbered = jnp.arange(parts), mesh_lib.micro_batches(mesh, dict(batch), parts)

    def outputs_of(params: Any, state: Any, micro: Any) -> tuple[registry.Outputs, Any]:
        index, examples = micro
        whole = {"params": mesh_lib.gather(mesh, params), "state": state}
        return model.apply(whole, examples, train=True, rng=jax.random.fold_in(rng, index))

    def first(state: Any, micro: Any) -> tuple[Any, registry.Outputs]:
        outputs, state = outputs_of(variables["params"], state, micro)
        return state, outputs

    _, found = jax.lax.scan(first, variables["state"], numbered)
    outputs = {name: _joined(mesh, array) for name, array in found.items()}
    loss, by_outputs = jax.value_and_grad(lambda outputs: task.learn_loss(outputs, batch))(outputs)
    cut = {name: _cut(mesh, weight * array, parts) for name, array in by_outputs.items()}

    def second(carry: Any, both: Any) -> tuple[Any, None]:
        (gradients, state), (micro, by_outputs) = carry, both
        _, back, state = jax.vjp(
            lambda params: outputs_of(params, state, micro), variables["params"], has_aux=True
        )
        more = mesh_lib.scatter(mesh, back(by_outputs)[0])
        return (jax.tree.map(jnp.add, gradients, more), state), None

    zeros = mesh_lib.scatter(mesh, jax.tree.map(jnp.zeros_like, variables["params"]))
    (gradients, state), _ = jax.lax.scan(second, (zeros, variables["state"]), (numbered, cut))
    return gradients, state, (loss, task.metrics(outputs, batch))


def _joined(mesh: jax.sharding.Mesh | None, array: jax.Array) -> jax.Array:
    """Outputs [parts, B / parts, …] in the order of the batch; the mean of those that are of no example."""
    if array.ndim == 1:
        return array.mean()
    whole = array.swapaxes(0, 1).reshape(-1, *array.shape[2:])
    return whole if mesh is None else jax.lax.with_sharding_constraint(whole, mesh_lib.rows(mesh))


def _cut(mesh: jax.sharding.Mesh | None, array: jax.Array, parts: int) -> jax.Array:
    """The reverse for gradients: each micro-batch's share."""
    if array.ndim == 0:
        return jnp.broadcast_to(array / parts, (parts,))
    cut: jax.Array = mesh_lib.micro_batches(mesh, array, parts)
    return cut
