"""Vision transformers: Table 4 of the paper, any patch size and image size.

Encoder blocks (`transformer`) with learned position embeddings and a final
LayerNorm, as in Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021).
What other families have instead are options, see `variant.Variant`: so the
models of CLIP, SigLIP, AugReg, DINOv2 and timm are this one.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from classact.models import execution as executions
from classact.models import images, pooling, registry, transformer
from classact.models import variant as variants

Pool = Literal["cls", "mean", "map"]
POOLS = ("cls", "mean", "map")
_NAMED = ("pool", *executions.OPTIONS)
_PAPER = variants.Variant()


class ViT(nn.Module):
    """A vision transformer.

    Attributes:
        size: width, depth, MLP and heads.
        num_classes: K.
        patch_size: side of a patch, in pixels; it divides both image sides.
        pool: "cls" reads the embedding from an extra learned token, "mean"
            averages the tokens of the patches (and has no extra token), "map"
            reads all tokens by attention, see `pooling.AttentionPool`.
        dtype: dtype of the computation; parameters, logits and the embedding are
            float32, and so are the statistics of LayerNorm and the softmax.
        execution: how the blocks are computed.
        variant: what else differs from family to family.
    """

    size: transformer.Size
    num_classes: int
    patch_size: int
    pool: Pool = "cls"
    dtype: Any = jnp.float32
    execution: executions.Execution = transformer.PLAIN
    variant: variants.Variant = _PAPER

    @property
    def class_token(self) -> bool:
        """Whether there is one."""
        asked = self.variant.class_token
        return self.pool == "cls" if asked is None else asked

    @nn.compact
    def __call__(self, pixels: jax.Array) -> registry.Outputs:
        """Maps images uint8[B, H, W, C] to logits and embedding (`registry.Outputs`)."""
        own = self.variant
        x = self._tokens(pixels)
        if own.pre_norm:
            x = transformer.layer_norm(x, self.dtype, "pre_norm", own.epsilon)
        x = transformer.encode(self, x, self.size, self.dtype, own.style, self.execution)
        x = self._pooled(x)
        if not own.head:
            return {"logits": x, "embedding": x}
        # Small, so that the first losses are close to log K.
        head = nn.Dense(
            self.num_classes,
            use_bias=own.head_bias,
            kernel_init=nn.initializers.normal(stddev=0.02),
            name="head",
        )
        return {"logits": head(x), "embedding": x}

    def _tokens(self, pixels: jax.Array) -> jax.Array:
        """Embeds the patches, with positions, class token and registers before them."""
        own, width = self.variant, self.size.width
        x = images.scale(pixels, self.dtype, own.mean, own.std) if own.mean else pixels
        x = patches(x, self.patch_size)
        x = x if own.mean else images.scale(x, self.dtype)
        x = transformer.Dense(width, use_bias=own.patch_bias, dtype=self.dtype, name="patch_embedding")(x)
        # Where it has a position, the class token comes first, as the positions are one array.
        first = self.class_token and own.class_position and own.positions == "learned"
        if first:
            x = self._after("cls", nn.initializers.zeros, 1, x)
        if own.positions == "learned":
            position_init = nn.initializers.normal(stddev=width**-0.5)
            positions = self.param("positions", position_init, (1, x.shape[1], width))
        else:
            rows, columns = (side // self.patch_size for side in pixels.shape[1:3])
            positions = jnp.asarray(sincos(rows, columns, width))
        x = x + positions.astype(self.dtype)
        if own.registers:
            registers_init = nn.initializers.normal(stddev=0.02)
            head, x = (x[:, :1], x[:, 1:]) if first else (x[:, :0], x)
            x = self._after("registers", registers_init, own.registers, x)
            x = jnp.concatenate([head, x], axis=1)
        if self.class_token and not first:
            x = self._after("cls", nn.initializers.zeros, 1, x)
        return x

    def _after(self, name: str, init: Any, number: int, x: jax.Array) -> jax.Array:
        """Puts learned tokens before those of `x` [B, N, D]."""
        tokens = self.param(name, init, (1, number, x.shape[-1])).astype(self.dtype)
        return jnp.concatenate([jnp.tile(tokens, (x.shape[0], 1, 1)), x], axis=1)

    def _pooled(self, x: jax.Array) -> jax.Array:
        """Maps tokens [B, N, D] to the embedding float32[B, D]."""
        own = self.variant

        def norm(x: jax.Array) -> jax.Array:
            return transformer.layer_norm(x, jnp.float32, "norm", own.epsilon)

        if self.pool == "cls":
            # LayerNorm is per token: there is no need to normalise the tokens that nobody reads.
            return norm(x[:, 0])
        before = own.norm == "tokens"
        x = norm(x) if before else x
        if self.pool == "mean":
            # An average in float32, of the patches alone.
            x = x[:, int(self.class_token) + own.registers :].astype(jnp.float32).mean(axis=1)
        else:
            pool = pooling.AttentionPool(self.size.mlp, self.size.heads, self.dtype, own.style, name="pool")
            x = pool(x).astype(jnp.float32)
        return x if before else norm(x)


def patches(pixels: jax.Array, patch_size: int) -> jax.Array:
    """Cuts images [B, H, W, C] into patches [B, N, patch_size² · C], row by row.

    A product with these is the convolution of kernel and stride `patch_size`,
    and several times faster on a CPU.
    """
    batch, height, width, channels = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    grid = pixels.reshape(batch, rows, patch_size, columns, patch_size, channels)
    return grid.swapaxes(2, 3).reshape(batch, rows * columns, patch_size**2 * channels)


def sincos(rows: int, columns: int, width: int) -> np.ndarray:
    """Fixed positions of two axes, float32[1, rows · columns, width], as MoCo v3 and big_vision have them.

    A quarter of the channels each: sine and cosine of the column, sine and cosine of the row.
    """
    row, column = np.mgrid[:rows, :columns].reshape(2, -1, 1).astype(np.float64)
    # A width of 4 has one frequency, 1.
    frequencies = 10_000.0 ** -(np.arange(width // 4) / max(width // 4 - 1, 1))
    parts = [wave(axis * frequencies) for axis in (column, row) for wave in (np.sin, np.cos)]
    return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")[None]


def build(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    patch_size: int,
    pool: Pool = "cls",
    dtype: str = "float32",
    remat: bool | str = False,
    scan: bool = False,
    attention: str = "auto",
    **options: Any,
) -> registry.Model:
    """Builds a ViT of `transformer.SIZES`, or of a size of its own; `registry.create` calls it.

    Args:
        name: "vit_" and a size, or "vit", whose size the options say.
        num_classes: K.
        image_shape: (height, width, channels) in pixels.
        patch_size: side of a patch in pixels; it must divide height and width.
        pool: "cls", "mean" or "map".
        dtype: dtype of the computation, "float32" or "bfloat16".
        remat: trade time for memory in the backward pass, see `execution.Execution`, as for the next two.
        scan: compile one block, which runs in a loop.
        attention: by which kernel.
        **options: the fields of `variant.Variant`.

    Returns:
        The model; its embedding is the output of the final LayerNorm, pooled,
        float32[B, width]. Parameters are float32, the state is {}.

    Raises:
        ValueError: if the patch size does not divide the image's sides, or an
            option or its value is unknown.
    """
    height, width, _ = image_shape
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"patch_size={patch_size} does not divide the image of {height}×{width} pixels: "
            f"expected one of {_divisors(height, width)}"
        )
    if pool not in POOLS:
        raise ValueError(f"pool={pool!r}: expected one of {POOLS}")
    if dtype not in transformer.DTYPES:
        raise ValueError(f"dtype={dtype!r}: expected one of {tuple(transformer.DTYPES)}")
    how = executions.of_options({"remat": remat, "scan": scan, "attention": attention})
    net = _net(name, num_classes, image_shape, patch_size, pool, dtype, how, options)

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


def _net(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    patch_size: int,
    pool: Pool,
    dtype: str,
    how: executions.Execution,
    options: Mapping[str, Any],
) -> ViT:
    own = variants.from_options(name, options, _NAMED)
    size = own.size(transformer.SIZES.get(name.removeprefix("vit_")))
    if own.mean and len(own.mean) != image_shape[2] != 1:
        raise ValueError(f"mean={own.mean}: expected {image_shape[2]} numbers, one for each channel")
    if own.class_token is False and pool == "cls":
        raise ValueError("pool='cls' reads the class token: class_token=False leaves nothing to read")
    if own.norm == "pooled" and pool == "map":
        raise ValueError("pool='map': its LayerNorm is of the tokens, norm='pooled' has none")
    if not own.head and num_classes != size.width:
        raise ValueError(f"head=False: the outputs are the {size.width} channels, expected {num_classes}")
    how.check(dtype, size.width // size.heads)
    return ViT(size, num_classes, patch_size, pool, transformer.DTYPES[dtype], how, own)


def _divisors(height: int, width: int) -> list[int]:
    return [p for p in range(1, min(height, width) + 1) if height % p == 0 and width % p == 0]


registry.register("vit")(build)
for _size in transformer.SIZES:
    registry.register(f"vit_{_size}")(build)
