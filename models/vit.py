"""Vision transformers: Table 4 of the paper, any patch size and image size.

Pre-norm encoder blocks with learned position embeddings and a final LayerNorm,
as in Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from classact.models import images, registry

Pool = Literal["cls", "mean"]
_POOLS = ("cls", "mean")
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


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
    "vit_l": Size(1024, 24, 4096, 16),
    "vit_b": Size(768, 12, 3072, 12),
    "vit_s": Size(384, 12, 1536, 6),
    "vit_ti": Size(192, 12, 768, 3),
    "vit_mu_6_3": Size(192, 6, 768, 3),
    "vit_mu_12_2": Size(128, 12, 512, 2),
    "vit_mu_6_2": Size(128, 6, 512, 2),
    "vit_mu_12_1": Size(64, 12, 256, 1),
    "vit_mu_6_1": Size(64, 6, 256, 1),
    "vit_mu_3_1": Size(64, 3, 256, 1),
    "vit_mu_2_1": Size(64, 2, 256, 1),
    "vit_mu_1_1": Size(64, 1, 256, 1),
}

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


_Dense = functools.partial(nn.Dense, dot_general=_flat_dot)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens [B, N, D] to [B, N, D]."""
        batch, length, width = x.shape
        depth = width // self.heads
        qkv = _Dense(3 * width, dtype=self.dtype, kernel_init=_square_xavier, name="qkv")(x)
        split = jnp.split(qkv, 3, axis=-1)
        q, k, v = (part.reshape(batch, length, self.heads, depth) for part in split)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q * depth**-0.5, k)
        weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(self.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width)
        return _Dense(width, dtype=self.dtype, kernel_init=_square_xavier, name="out")(mixed)


class Block(nn.Module):
    """One pre-norm encoder block."""

    mlp: int
    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens [B, N, D] to [B, N, D]."""
        dense = functools.partial(_Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        y = nn.LayerNorm(dtype=self.dtype, name="norm_attention")(x)
        x = x + Attention(self.heads, self.dtype, name="attention")(y)
        y = nn.LayerNorm(dtype=self.dtype, name="norm_mlp")(x)
        y = dense(self.mlp, name="mlp_in")(y)
        return x + dense(x.shape[-1], name="mlp_out")(nn.gelu(y))


class ViT(nn.Module):
    """A vision transformer.

    Attributes:
        size: width, depth, MLP and heads.
        num_classes: K.
        patch_size: side of a patch, in pixels; it divides both image sides.
        pool: "cls" reads the embedding from an extra learned token, "mean"
            averages the tokens of the patches (and has no extra token).
        dtype: dtype of the computation; parameters, logits and the embedding are
            float32, and so are the statistics of LayerNorm and the softmax.
        remat: recompute each block's activations in the backward pass instead
            of keeping them.
    """

    size: Size
    num_classes: int
    patch_size: int
    pool: Pool = "cls"
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, pixels: jax.Array) -> registry.Outputs:
        """Maps images uint8[B, H, W, C] to logits and embedding (`registry.Outputs`)."""
        width = self.size.width
        x = images.scale(patches(pixels, self.patch_size), self.dtype)
        x = _Dense(width, dtype=self.dtype, name="patch_embedding")(x)
        if self.pool == "cls":
            cls = self.param("cls", nn.initializers.zeros, (1, 1, width))
            x = jnp.concatenate([jnp.tile(cls.astype(self.dtype), (x.shape[0], 1, 1)), x], axis=1)
        position_init = nn.initializers.normal(stddev=width**-0.5)
        x = x + self.param("positions", position_init, (1, x.shape[1], width)).astype(self.dtype)
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.size.depth):
            x = block(self.size.mlp, self.size.heads, self.dtype, name=f"block_{i}")(x)
        if self.pool == "cls":
            # LayerNorm is per token: there is no need to normalise the tokens that nobody reads.
            x = nn.LayerNorm(dtype=jnp.float32, name="norm")(x[:, 0])
        else:
            x = nn.LayerNorm(dtype=jnp.float32, name="norm")(x).mean(axis=1)
        # Small, so that the first losses are close to log K.
        head = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(stddev=0.02), name="head")
        return {"logits": head(x), "embedding": x}


def patches(pixels: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images [B, H, W, C] into patches [B, N, patch_size² · C], row by row.

    A product with these is the convolution of kernel and stride `patch_size`,
    and several times faster on a CPU.
    """
    batch, height, width, channels = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    grid = pixels.reshape(batch, rows, patch_size, columns, patch_size, channels)
    return grid.swapaxes(2, 3).reshape(batch, rows * columns, patch_size**2 * channels)


def build(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    patch_size: int,
    pool: Pool = "cls",
    dtype: str = "float32",
    remat: bool = False,
) -> registry.Model:
    """Builds a ViT of `SIZES`; `registry.create` calls it.

    Args:
        name: a key of `SIZES`.
        num_classes: K.
        image_shape: (height, width, channels) in pixels.
        patch_size: side of a patch in pixels; it must divide height and width.
        pool: "cls" or "mean".
        dtype: dtype of the computation, "float32" or "bfloat16".
        remat: trade time for memory in the backward pass.

    Returns:
        The model; its embedding is the output of the final LayerNorm, pooled,
        float32[B, width]. Parameters are float32, the state is {}.

    Raises:
        ValueError: if the patch size does not divide the image's sides, or
            `pool` or `dtype` is unknown.
    """
    height, width, _ = image_shape
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"patch_size={patch_size} does not divide the image of {height}×{width} pixels: "
            f"expected one of {_divisors(height, width)}"
        )
    if pool not in _POOLS:
        raise ValueError(f"pool={pool!r}: expected one of {_POOLS}")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {tuple(_DTYPES)}")
    net = ViT(SIZES[name], num_classes, patch_size, pool, _DTYPES[dtype], remat)

    def init(key: jax.Array) -> registry.Variables:
        # Lazily: the forward pass is only traced, and one compilation per shape of
        # parameter takes half as long as compiling all random draws together.
        params = net.lazy_init(key, jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8))["params"]
        return {"params": params, "state": {}}

    def apply(
        variables: registry.Variables,
        batch: Mapping[str, Any],
        *,
        train: bool,
        rng: jax.Array | None = None,
    ) -> tuple[registry.Outputs, Any]:
        del train, rng  # Neither dropout nor batch statistics.
        image = images.take(batch, image_shape, name)
        outputs = cast(registry.Outputs, net.apply({"params": variables["params"]}, image))
        return outputs, variables["state"]

    return registry.Model(name, init, apply)


def _divisors(height: int, width: int) -> list[int]:
    return [p for p in range(1, min(height, width) + 1) if height % p == 0 and width % p == 0]


for _name in SIZES:
    registry.register(_name)(build)
