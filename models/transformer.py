"""Transformer encoder blocks and their sizes: what images' and texts' towers share.

Pre-norm blocks as in Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from classact.models.execution import Execution, stacked

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Size:
    """A row of Table 4.

    Attributes:
        width: channels of a token.
        depth: number of encoder blocks.
        mlp: channels of the hidden layer in a block's MLP.
        heads: number of attention heads; it divides the width.
    """

    width: int
    depth: int
    mlp: int
    heads: int


# Table 4 prints an MLP of 3072 and 12 heads for S. Only 1536 and 6 give the
# parameters and FLOPs printed beside them, and the cost ratio of section 4.2.
SIZES: Mapping[str, Size] = {
    "l": Size(1024, 24, 4096, 16),
    "b": Size(768, 12, 3072, 12),
    "s": Size(384, 12, 1536, 6),
    "ti": Size(192, 12, 768, 3),
    "mu_6_3": Size(192, 6, 768, 3),
    "mu_12_2": Size(128, 12, 512, 2),
    "mu_6_2": Size(128, 6, 512, 2),
    "mu_12_1": Size(64, 12, 256, 1),
    "mu_6_1": Size(64, 6, 256, 1),
    "mu_3_1": Size(64, 3, 256, 1),
    "mu_2_1": Size(64, 2, 256, 1),
    "mu_1_1": Size(64, 1, 256, 1),
}


def _quick_gelu(x: jax.Array) -> jax.Array:
    """The approximation of GELU that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


# "gelu" is the exact one, by the error function; "gelu_tanh" is Flax's and big_vision's.
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": nn.gelu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "quick_gelu": _quick_gelu,
}


@dataclasses.dataclass(frozen=True)
class Style:
    """What blocks of one size differ in from family to family; the defaults are the paper's.

    Attributes:
        activation: of the MLP, one of `ACTIVATIONS`.
        epsilon: added to the variance by every LayerNorm.
        qkv_bias: whether queries, keys and values have a bias.
        layer_scale: initial value of a learned factor for each channel of what a block
            adds (Touvron et al., "Going deeper with Image Transformers", 2021); 0: there is none.

    Raises:
        ValueError: for a value that is none of these.
    """

    activation: str = "gelu_tanh"
    epsilon: float = 1e-6
    qkv_bias: bool = True
    layer_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r}: expected one of {tuple(ACTIVATIONS)}")
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon={self.epsilon!r}: expected a number above 0 and below 1")
        if not 0 <= self.layer_scale < math.inf:
            raise ValueError(f"layer_scale={self.layer_scale!r}: expected a number above 0, or 0 for none")


PAPER = Style()
PLAIN = Execution()

# Xavier's uniform limit for a square matrix: the fused query, key and value
# projection must not be initialised as one wide matrix.
_square_xavier = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def _flat_dot(x: jax.Array, kernel: jax.Array, *unused: Any, **settings: Any) -> jax.Array:
    """Multiplies the last axis of `x` by `kernel`, as one product of two matrices.

    For XLA on a CPU. The gradient of a product with a batch of matrices takes
    half as long again as this one's. Keeping the tokens of a batch in one matrix
    throughout does not do: GELU between two products then takes eight times as
    long, it seems because XLA lets it work in place and then cannot vectorise it.
    """
    del unused, settings
    product = jnp.dot(x.reshape(-1, x.shape[-1]), kernel)
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


def layer_norm(x: jax.Array, dtype: Any, name: str, epsilon: float = PAPER.epsilon) -> jax.Array:
    """LayerNorm with statistics in float32 and a result in `dtype`; called in a module, as its `name`."""
    # Flax promotes bfloat16 for its statistics: it cannot be run with strict promotion.
    with jax.numpy_dtype_promotion("standard"):
        return cast(jax.Array, nn.LayerNorm(epsilon=epsilon, dtype=dtype, name=name)(x))


Dense = functools.partial(nn.Dense, dot_general=_flat_dot)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection.

    Attributes:
        heads: their number.
        dtype: of the computation.
        bias: whether queries, keys and values have one.
        causal: whether a token sees only itself and those before it.
        execution: by which kernel, see `Execution.attend`.
    """

    heads: int
    dtype: Any
    bias: bool = True
    causal: bool = False
    execution: Execution = PLAIN

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Maps tokens [B, N, D] to [B, N, D].

        Args:
            x: the tokens.
            lengths: int32[B], how many tokens of an example may be seen, from the first on, one at
                least; None: all.
        """
        batch, length, width = x.shape
        depth = width // self.heads
        qkv = Dense(3 * width, use_bias=self.bias, dtype=self.dtype, kernel_init=_square_xavier, name="qkv")(
            x
        )
        split = jnp.split(qkv, 3, axis=-1)
        q, k, v = (part.reshape(batch, length, self.heads, depth) for part in split)
        mixed = self.execution.attend(q, k, v, self.causal, lengths).reshape(batch, length, width)
        return Dense(width, dtype=self.dtype, kernel_init=_square_xavier, name="out")(mixed)


class Block(nn.Module):
    """One pre-norm encoder block; the attributes are those of `encode`."""

    mlp: int
    heads: int
    dtype: Any
    style: Style = PAPER
    causal: bool = False
    execution: Execution = PLAIN

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Maps tokens [B, N, D] to [B, N, D]; `lengths` as for `Attention`."""
        dense = functools.partial(Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        style = self.style
        y = layer_norm(x, self.dtype, "norm_attention", style.epsilon)
        attention = Attention(
            self.heads, self.dtype, style.qkv_bias, self.causal, self.execution, name="attention"
        )
        x = x + self._scaled(attention(y, lengths), "scale_attention")
        y = layer_norm(x, self.dtype, "norm_mlp", style.epsilon)
        y = dense(self.mlp, name="mlp_in")(y)
        y = dense(x.shape[-1], name="mlp_out")(ACTIVATIONS[style.activation](y))
        return x + self._scaled(y, "scale_mlp")

    def _scaled(self, y: jax.Array, name: str) -> jax.Array:
        if not self.style.layer_scale:
            return y
        initial = nn.initializers.constant(self.style.layer_scale)
        scale = self.param(name, initial, (y.shape[-1],))
        return y * scale.astype(self.dtype)[None, None]


def encode(
    tower: nn.Module,
    x: jax.Array,
    size: Size,
    dtype: Any,
    style: Style = PAPER,
    execution: Execution = PLAIN,
    causal: bool = False,
    lengths: jax.Array | None = None,
) -> jax.Array:
    """Sends tokens [B, N, D] through all blocks of a tower, its `block_0`, `block_1`, ….

    Args:
        tower: whose parameters they have; called while it is.
        x: the tokens, in `dtype`.
        size: of the blocks, and their number.
        dtype: of the computation.
        style: of the blocks.
        execution: how they are computed. However that is, the parameters are the same.
        causal: as of `Attention`.
        lengths: likewise.
    """
    block = functools.partial(
        execution.block(Block, nn.remat), size.mlp, size.heads, dtype, style, causal, execution
    )
    names = [f"block_{index}" for index in range(size.depth)]
    # Parameters are made one by one, by their names.
    if not execution.scan or tower.is_initializing():
        for name in names:
            x = block(name=name)(x, lengths)
        return x
    # Of no tower, and so without parameters of its own.
    alone = block(parent=None)
    params = tower.variables["params"]

    def following(x: jax.Array, own: Any) -> tuple[jax.Array, None]:
        return cast(jax.Array, alone.apply({"params": own}, x, lengths)), None

    return jax.lax.scan(following, x, stacked([params[name] for name in names]))[0]
