"""The text tower: a transformer over tokens, read at the end token or the last one.

As the text encoder of Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision" (2021), with the sizes of the image towers; with
`pool="last"` and without `causal` that of Zhai et al., "Sigmoid Loss for Language
Image Pre-Training" (2023).
"""

import difflib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from classact.models import transformer
from classact.models.execution import Execution

POOLS = ("end", "last")


class TextTransformer(nn.Module):
    """A text transformer.

    Attributes:
        size: width, depth, MLP and heads.
        vocab_size: number of token ids.
        context_length: L, tokens of a text with its start, end and padding.
        end_id: the token at which a text ends and its embedding is read.
        features: D, width of the projection.
        causal: whether a token sees only itself and those before it, or all up
            to the end token. What follows the end token is never seen.
        dtype: dtype of the computation; parameters and the result are float32.
        execution: how the blocks are computed.
        style: of the blocks.
        pool: "end" reads the embedding at the end token; "last" at the last place, as SigLIP,
            whose texts are padded with what it has learned to read. Without `causal` a token
            then sees all others, padding included.
        projection_bias: whether the projection has a bias.
    """

    size: transformer.Size
    vocab_size: int
    context_length: int
    end_id: int
    features: int
    causal: bool = True
    dtype: Any = jnp.float32
    execution: Execution = transformer.PLAIN
    style: transformer.Style = transformer.PAPER
    pool: str = "end"
    projection_bias: bool = False

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f"pool={self.pool!r} of texts: expected one of {POOLS}")
        super().__post_init__()

    @nn.compact
    def __call__(self, text: jax.Array) -> jax.Array:
        """Maps token ids int32[B, L] to float32[B, D].

        A text without end token is read at its first token.

        Raises:
            ValueError: if L is not the context length.
        """
        length = self.context_length
        if text.ndim != 2 or text.shape[1] != length:
            raise ValueError(f"texts of {list(text.shape)} tokens: expected [B, {length}]")
        width = self.size.width
        embed = nn.Embed(
            self.vocab_size,
            width,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(0.02),
            name="tokens",
        )
        positions = self.param("positions", nn.initializers.normal(0.01), (length, width))
        x = embed(text) + positions[None].astype(self.dtype)
        end = jnp.argmax(text == self.end_id, axis=1)
        # The end token of a causal text sees nothing after it anyway, and the last one is to see all.
        whole = self.causal or self.pool == "last"
        x = transformer.encode(
            self,
            x,
            self.size,
            self.dtype,
            self.style,
            self.execution,
            self.causal,
            None if whole else end + 1,
        )
        x = x[:, -1] if self.pool == "last" else jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        x = transformer.layer_norm(x, jnp.float32, "norm", self.style.epsilon)
        return nn.Dense(
            self.features,
            use_bias=self.projection_bias,
            kernel_init=nn.initializers.normal(width**-0.5),
            name="projection",
        )(x)


def size(name: str) -> transformer.Size:
    """Returns the size of the text tower `name`, such as "text_mu_6_1".

    Raises:
        ValueError: for an unknown name; the message has the nearest ones.
    """
    known = {f"text_{size}": value for size, value in transformer.SIZES.items()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of {tuple(known)}"
        raise ValueError(f"unknown text model {name!r}: {hint}")
    return known[name]
