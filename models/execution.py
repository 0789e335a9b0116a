"""How a transformer's blocks are computed: what is kept, how many are compiled, by which kernel.

Nothing of it shows in the parameters, nor, but for rounding, in what is computed.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend import backend

# Options of a model that say how it is computed, beside its parameters. "dtype" rounds more than the others.
OPTIONS = ("dtype", "remat", "scan", "attention")
# What is computed again in the backward pass instead of being kept, from least to most.
REMAT = ("none", "attention", "dots", "full")
KERNELS = ("auto", "cudnn")
# Of the heads that cuDNN's kernel takes on every GPU that has it.
_CUDNN_HEAD, _CUDNN_MULTIPLE = 128, 8

_counting = contextvars.ContextVar("counting", default=False)


@dataclasses.dataclass(frozen=True)
class Execution:
    """How blocks are computed.

    Attributes:
        remat: what the backward pass computes again instead of keeping it: "none"; "attention":
            the weights of the keys, N² a head, from queries and keys (Korthikanti et al., "Reducing
            Activation Recomputation in Large Transformer Models", 2022); "dots": all but the products with
            parameters, so everything element-wise, and attention; "full": a block from its input.
        scan: whether one block is compiled, which runs in a loop over all blocks' parameters: for
            accelerators, whose compilers take each block for new work. The parameters keep their
            names and shapes; the loop needs a copy of those of all blocks, and of their gradients.
        attention: "auto": what `jax.nn.dot_product_attention` takes by itself, which is XLA's products
            on every device (JAX 0.12); "cudnn": cuDNN's fused kernel, which keeps no weights, where
            the process computes on an NVIDIA GPU, and on any other device what "auto" takes.

    Raises:
        ValueError: for a value that is none of these; it names the option.
    """

    remat: str = "none"
    scan: bool = False
    attention: str = "auto"

    def __post_init__(self) -> None:
        # As it was before there were several ways.
        if isinstance(self.remat, bool):
            object.__setattr__(self, "remat", "full" if self.remat else "none")
        for name, accepted in (("remat", REMAT), ("attention", KERNELS)):
            value = getattr(self, name)
            if value not in accepted:
                also = ", true (full) or false (none)" if name == "remat" else ""
                raise ValueError(f"{name}={value!r}: expected one of {accepted}{also}")
        if not isinstance(self.scan, bool):
            raise ValueError(f"scan={self.scan!r}: expected true or false")

    def check(self, dtype: str, head: int) -> None:
        """Checks that the kernel takes a model's heads, wherever the model is built.

        Args:
            dtype: of the computation.
            head: channels of a head.

        Raises:
            ValueError: naming the option.
        """
        if self.attention != "cudnn":
            return
        if dtype != "bfloat16":
            raise ValueError(f"attention='cudnn' with dtype={dtype!r}: its kernel takes bfloat16 alone")
        if head > _CUDNN_HEAD or head % _CUDNN_MULTIPLE:
            raise ValueError(
                f"attention='cudnn' with heads of {head} channels: its kernel takes at most {_CUDNN_HEAD}, "
                f"a multiple of {_CUDNN_MULTIPLE}"
            )

    def block(self, function: Callable[..., Any], checkpoint: Callable[..., Any]) -> Any:
        """A block that recomputes what it should.

        Args:
            function: the block, or its class.
            checkpoint: `jax.checkpoint`, or Flax's for classes.
        """
        policies = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}
        if self.remat not in policies:
            return function
        return checkpoint(function, policy=policies[self.remat], prevent_cse=self._prevents)

    @property
    def _prevents(self) -> bool:
        # In a loop XLA cannot take what was computed in the forward pass for the same anyway.
        return not self.scan

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, lengths: jax.Array | None
    ) -> jax.Array:
        """softmax(q kᵀ / √D) v by the kernel, with the softmax in float32.

        Args:
            q: queries [B, N, heads, D].
            k: keys, likewise.
            v: values, likewise.
            causal: whether a query sees only the keys up to its own place.
            lengths: int32[B], the number of keys that an example's queries see, from the first; None: all.

        Returns:
            [B, N, heads, D].
        """

        def attended(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array | None) -> jax.Array:
            kernel: Literal["cudnn"] | None = "cudnn" if self.attention == "cudnn" and has_cudnn() else None
            # It takes the scale of bfloat16 for a float32 of its own accord.
            with jax.numpy_dtype_promotion("standard"):
                return jax.nn.dot_product_attention(
                    q, k, v, is_causal=causal, key_value_seq_lengths=lengths, implementation=kernel
                )

        if self.remat == "attention":
            return jax.checkpoint(attended, prevent_cse=self._prevents)(q, k, v, lengths)
        return attended(q, k, v, lengths)


def of_options(options: Mapping[str, Any]) -> Execution:
    """What a model's options say of how it is computed; the others are left alone.

    Raises:
        ValueError: as `Execution`.
    """
    names = [field.name for field in dataclasses.fields(Execution)]
    return Execution(**{name: options[name] for name in names if name in options})


def has_cudnn() -> bool:
    """Whether this process computes on an NVIDIA GPU, and is not merely counting."""
    return not _counting.get() and "cuda" in backend.get_backend().platform_version


@contextlib.contextmanager
def as_products() -> Iterator[None]:
    """What is traced within consists of products that can be counted, the same on every device."""
    token = _counting.set(True)
    try:
        yield
    finally:
        _counting.reset(token)


def stacked(trees: list[Any]) -> Any:
    """Trees of one structure as one, whose arrays have a first axis more."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
