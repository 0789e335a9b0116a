"""Vision transformers: Table 4 of the paper, any patch size and image size.

Encoder blocks (`transformer`) with learned position embeddings and a final
LayerNorm, as in Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021).
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from classact.models import images, registry, transformer

Pool = Literal["cls", "mean"]
_POOLS = ("cls", "mean")


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

    size: transformer.Size
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
        x = transformer.Dense(width, dtype=self.dtype, name="patch_embedding")(x)
        if self.pool == "cls":
            cls = self.param("cls", nn.initializers.zeros, (1, 1, width))
            x = jnp.concatenate([jnp.tile(cls.astype(self.dtype), (x.shape[0], 1, 1)), x], axis=1)
        position_init = nn.initializers.normal(stddev=width**-0.5)
        x = x + self.param("positions", position_init, (1, x.shape[1], width)).astype(self.dtype)
        block = nn.remat(transformer.Block) if self.remat else transformer.Block
        for i in range(self.size.depth):
            x = block(self.size.mlp, self.size.heads, self.dtype, name=f"block_{i}")(x)
        if self.pool == "cls":
            # LayerNorm is per token: there is no need to normalise the tokens that nobody reads.
            x = transformer.layer_norm(x[:, 0], jnp.float32, "norm")
        else:
            x = transformer.layer_norm(x, jnp.float32, "norm").mean(axis=1)
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
    """Builds a ViT of `transformer.SIZES`; `registry.create` calls it.

    Args:
        name: "vit_" and a size.
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
    if dtype not in transformer.DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {tuple(transformer.DTYPES)}")
    net = ViT(
        transformer.SIZES[name.removeprefix("vit_")],
        num_classes,
        patch_size,
        pool,
        transformer.DTYPES[dtype],
        remat,
    )

    def init(key: jax.Array) -> registry.Variables:
        # Lazily: the forward pass is only traced.
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


for _size in transformer.SIZES:
    registry.register(f"vit_{_size}")(build)
