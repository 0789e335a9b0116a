"""Attention pooling: one learned query reads an image's tokens.

The multi-head attention pooling head of Zhai et al., "Scaling Vision
Transformers" (2022), as SigLIP, big_vision and timm have it.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from classact.models import transformer


class AttentionPool(nn.Module):
    """Attention of one learned query to the tokens, then an MLP.

    Attributes:
        mlp: channels of the MLP's hidden layer.
        heads: number of attention heads; it divides the width.
        dtype: of the computation; parameters are float32.
        style: its activation and LayerNorm; the pool's layers have biases, and no layer scale.
    """

    mlp: int
    heads: int
    dtype: Any
    style: transformer.Style = transformer.PAPER

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens [B, N, D] to [B, D]."""
        batch, length, width = x.shape
        depth = width // self.heads
        dense = functools.partial(
            transformer.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform()
        )
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width)).astype(self.dtype)
        query = dense(width, name="query")(probe).reshape(self.heads, depth)
        both = dense(2 * width, name="key_value")(x.astype(self.dtype))
        k, v = (part.reshape(batch, length, self.heads, depth) for part in jnp.split(both, 2, axis=-1))
        scores = jnp.einsum("hd,bkhd->bhk", query * depth**-0.5, k)
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(self.dtype)
        mixed = jnp.einsum("bhk,bkhd->bhd", weights, v).reshape(batch, 1, width)
        x = dense(width, name="out")(mixed)
        y = transformer.layer_norm(x, self.dtype, "norm", self.style.epsilon)
        y = transformer.ACTIVATIONS[self.style.activation](dense(self.mlp, name="mlp_in")(y))
        return (x + dense(width, name="mlp_out")(y))[:, 0]
