"""The contrastive task: image–text pairs, each the others' negatives (section 3.4, A.3).

Outputs are those of `models.two_tower`: `image_embedding` and `text_embedding`,
float32[B, D] of norm 1, and the scalars `scale` and `bias`.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from classact.selection.losses import Batch, Outputs

# loss(scaled similarities [b, B], index of each query's own key int32[b], bias) -> float32[b]
RowLoss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def softmax_rows(logits: jax.Array, own: jax.Array, bias: jax.Array) -> jax.Array:
    """−log of the softmax over all keys, at the own one: one direction of InfoNCE (Eq. 10).

    The paper prints exp(z_i^im · z_i^txt); the sum of the denominator runs over j.
    """
    del bias  # The same for all keys.
    return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, own[:, None], axis=-1)[:, 0]


def sigmoid_rows(logits: jax.Array, own: jax.Array, bias: jax.Array) -> jax.Array:
    """−Σ_j log σ(±(scale · similarity + bias)), + at the own key: SigLIP (Zhai et al., 2023)."""
    sign = 2.0 * jax.nn.one_hot(own, logits.shape[-1]) - 1.0
    return -jax.nn.log_sigmoid(sign * (logits + bias)).sum(-1)


LEARN_LOSSES: Mapping[str, RowLoss] = {"infonce": softmax_rows, "sigmoid": sigmoid_rows}
ACT_LOSSES = ("dot", "infonce")
# Of the product that similarities are.
PRECISIONS: Mapping[str, jax.lax.Precision | None] = {
    "default": None,
    "high": jax.lax.Precision.HIGH,
    "highest": jax.lax.Precision.HIGHEST,
}


class Contrastive:
    """ℓ_learn is InfoNCE or the sigmoid loss, ℓ_act the negative dot product.

    Every data set's sub-batch is its own set of negatives.
    """

    def __init__(
        self,
        learn: str = "infonce",
        act: str = "dot",
        mesh: Mesh | None = None,
        precision: str = "default",
    ) -> None:
        """Builds the task.

        Args:
            learn: ℓ_learn, a key of `LEARN_LOSSES`.
            act: ℓ_act, one of `ACT_LOSSES`.
            mesh: devices over all of whose axes, in their order, a batch is sharded.
                Each then holds its rows of the similarity matrix only,
                [B / devices, B], against the gathered embeddings of all. None: one
                device.
            precision: of the product of all queries and keys, a key of `PRECISIONS`: "highest" is
                float32's. By default it is what JAX takes: float32 on CPUs, TF32 on GPUs that have
                it, and on TPUs bfloat16, which rounds embeddings to 8 bits.

        Raises:
            ValueError: for an unknown name.
        """
        if learn not in LEARN_LOSSES:
            raise ValueError(f"loss {learn!r}: expected one of {tuple(LEARN_LOSSES)}")
        if act not in ACT_LOSSES:
            raise ValueError(f"act_loss {act!r}: expected one of {ACT_LOSSES}")
        if precision not in PRECISIONS:
            raise ValueError(f"similarity_precision {precision!r}: expected one of {tuple(PRECISIONS)}")
        self._precision = PRECISIONS[precision]
        self.learn = learn
        self._symmetric = learn == "infonce"
        self._rows = LEARN_LOSSES[learn]
        self._act = act
        self._mesh = mesh

    def act_loss(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """ℓ_act: float32[B].

        "dot": −z_im · z_txt (Eq. 9), which no other example has a part in.
        "infonce": the example's two terms of Eq. 10 among the scored batch.
        `batch["valid"]`, bool[B] if there, says which rows are examples: the
        others are nobody's negatives.
        """
        image, text = outputs["image_embedding"], outputs["text_embedding"]
        if self._act == "dot":
            return -jnp.sum(image * text, axis=-1)
        logits = self._similarities(outputs["scale"] * image, text)
        valid = batch.get("valid", jnp.ones(len(image), bool))
        # Its own match stays, so that no sum is empty.
        kept = valid[None, :] | jnp.eye(len(image), dtype=bool)
        own = jnp.diagonal(logits)
        to_text = jax.nn.logsumexp(logits, axis=1, where=kept)
        to_image = jax.nn.logsumexp(logits.T, axis=1, where=kept)
        return (to_text + to_image) / 2 - own

    def learn_loss(self, outputs: Outputs, batch: Batch) -> jax.Array:
        """ℓ_learn: float32[], the mean over the batch; all pairs of it are negatives."""
        del batch
        image, text = outputs["image_embedding"], outputs["text_embedding"]
        if self._mesh is None:
            return self._mean(image, text, outputs["scale"], outputs["bias"])

        def local_mean(*local: jax.Array) -> jax.Array:
            return jax.lax.pmean(self._mean(*local, axes=axes), axes)

        axes = self._mesh.axis_names
        rows, whole = PartitionSpec(axes), PartitionSpec()
        sharded = jax.shard_map(
            local_mean, mesh=self._mesh, in_specs=(rows, rows, whole, whole), out_specs=whole
        )
        return sharded(image, text, outputs["scale"], outputs["bias"])

    def metrics(self, outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        """`top1`: share of images whose own text is the nearest of the batch; `scale`."""
        del batch
        similarities = self._similarities(outputs["image_embedding"], outputs["text_embedding"])
        nearest = jnp.argmax(similarities, axis=-1)
        return {"top1": jnp.mean(nearest == jnp.arange(len(nearest))), "scale": outputs["scale"]}

    def _similarities(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
        return jnp.matmul(queries, keys.T, precision=self._precision)

    def _mean(
        self,
        image: jax.Array,
        text: jax.Array,
        scale: jax.Array,
        bias: jax.Array,
        *,
        axes: tuple[str, ...] = (),
    ) -> jax.Array:
        """The mean over this device's rows, against the keys of all devices."""
        first = jax.lax.axis_index(axes) * len(image) if axes else 0
        own = first + jnp.arange(len(image))

        def of_all(local: jax.Array) -> jax.Array:
            return jax.lax.all_gather(local, axes, tiled=True) if axes else local

        def one_way(queries: jax.Array, keys: jax.Array) -> jax.Array:
            return self._rows(self._similarities(scale * queries, of_all(keys)), own, bias).mean()

        loss = one_way(image, text)
        return (loss + one_way(text, image)) / 2 if self._symmetric else loss
