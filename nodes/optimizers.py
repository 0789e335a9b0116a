"""Optimisers and their schedules, by optax."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

NAMES = ("adamw", "lion", "adafactor", "sgd")
SCHEDULES = ("cosine", "rsqrt", "constant")
DECAYED = ("matrices", "kernels")
# What a layer's weights are called by Flax and by Haiku.
_KERNELS = ("kernel", "w")
# Zhai et al., "Scaling Vision Transformers" (2022), as big_vision sets it.
_FACTORED_FROM, _DECAY_EXPONENT, _BLOCK_RMS = 32, 0.8, 1.0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimiser, by default AdamW with linear warm-up and cosine decay to 0 (Appendix A.2).

    Attributes:
        learning_rate: the maximum, reached after the warm-up.
        steps: updates of the whole run; the decay ends there.
        warmup_steps: updates of linear warm-up from 0.
        weight_decay: on the parameters that `decayed` says. It is never a part of the gradient.
        clip_norm: maximum global norm of the gradient; 0: no clipping.
        name: one of `NAMES`.
        shape: one of `SCHEDULES`, of the learning rate after the warm-up: a cosine to 0; the
            maximum times √(w / t) after t updates, w of them warm-up; the maximum.
        cooldown_steps: last updates, in which it falls linearly to 0; none with a cosine.
        beta1: of the mean of gradients: of "sgd" the momentum.
        beta2: of their squares; of "lion" of the mean that is kept; of "adafactor" the largest.
        epsilon: of "adamw".
        decayed: "matrices", parameters with two or more axes, positions and embeddings among them;
            "kernels", the weights of layers alone.
        decay_times_rate: whether the decay of an update is weight_decay times the learning rate, as
            in PyTorch and optax, or times the learning rate's share of its maximum, as Loshchilov
            and Hutter (2019) and big_vision have it.
        rates: by parameter ("block_0/mlp/kernel") what its learning rate, and so its decay, is
            multiplied by; 0: it stays as it is, and has no moments. Empty: 1 for all.
    """

    learning_rate: float
    steps: int
    warmup_steps: int
    weight_decay: float = 1e-3
    clip_norm: float = 0.0
    name: str = "adamw"
    shape: str = "cosine"
    cooldown_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decayed: str = "matrices"
    decay_times_rate: bool = True
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate!r}: must be above 0")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps!r}: must be at least 1")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps!r}: must be at least 0 and below steps={self.steps}"
            )
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay!r}: must be at least 0")
        if self.clip_norm < 0:
            raise ValueError(f"clip_norm={self.clip_norm!r}: must be at least 0 (0: no clipping)")
        for field, accepted in (("name", NAMES), ("shape", SCHEDULES), ("decayed", DECAYED)):
            if getattr(self, field) not in accepted:
                raise ValueError(f"{field}={getattr(self, field)!r}: expected one of {accepted}")

    def schedule(self) -> optax.Schedule:
        """Learning rate by update."""
        if self.shape == "cosine":
            return optax.warmup_cosine_decay_schedule(
                init_value=0.0 if self.warmup_steps else self.learning_rate,
                peak_value=self.learning_rate,
                warmup_steps=self.warmup_steps,
                decay_steps=self.steps,
            )

        def rate(count: Any) -> Any:
            step = jnp.asarray(count, jnp.float32)
            warm = float(max(self.warmup_steps, 1))
            rising = step / warm if self.warmup_steps else jnp.ones(())
            falling = jnp.sqrt(warm / jnp.maximum(step, warm)) if self.shape == "rsqrt" else jnp.ones(())
            left = (self.steps - step) / self.cooldown_steps if self.cooldown_steps else jnp.ones(())
            return self.learning_rate * jnp.minimum(rising, falling) * jnp.clip(left, 0.0, 1.0)

        return rate

    def make(self) -> optax.GradientTransformation:
        """Builds the optimiser."""
        made = self._clipped()
        if not self.rates:
            return made

        def scaled(updates: Any, params: Any) -> Any:
            del params
            return jax.tree_util.tree_map_with_path(
                lambda path, update: update * self.rates[parameter(path)], updates
            )

        def kinds(params: Any) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, _: "trained" if self.rates[parameter(path)] else "frozen", params
            )

        trained = optax.chain(made, optax.stateless(scaled))
        return optax.multi_transform({"trained": trained, "frozen": optax.set_to_zero()}, kinds)

    def _clipped(self) -> optax.GradientTransformation:
        made = self._by_name()
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), made) if self.clip_norm else made

    def _by_name(self) -> optax.GradientTransformation:
        schedule = self.schedule()
        # Of a decay that is not multiplied by the maximum that part of the rate is taken out.
        decay = self.weight_decay if self.decay_times_rate else self.weight_decay / self.learning_rate
        if self.name == "adamw":
            return optax.adamw(
                schedule, self.beta1, self.beta2, self.epsilon, weight_decay=decay, mask=self._is_decayed
            )
        if self.name == "lion":
            return optax.lion(schedule, self.beta1, self.beta2, weight_decay=decay, mask=self._is_decayed)
        scale = optax.trace(self.beta1) if self.name == "sgd" else self._adafactor()
        return optax.chain(
            scale,
            optax.add_decayed_weights(decay, self._is_decayed),
            optax.scale_by_learning_rate(schedule),
        )

    def _adafactor(self) -> optax.GradientTransformation:
        def decay(count: Any, exponent: float) -> Any:
            return jnp.minimum(self.beta2, 1.0 - (jnp.asarray(count, jnp.float32) + 1.0) ** -exponent)

        squares = optax.scale_by_factored_rms(
            min_dim_size_to_factor=_FACTORED_FROM, decay_rate=_DECAY_EXPONENT, decay_rate_fn=decay
        )
        mean = optax.ema(self.beta1, debias=False, accumulator_dtype=jnp.bfloat16)
        return optax.chain(squares, optax.clip_by_block_rms(_BLOCK_RMS), mean)

    def _is_decayed(self, params: Any) -> Any:
        if self.decayed == "matrices":
            return jax.tree.map(lambda array: array.ndim >= 2, params)
        return jax.tree_util.tree_map_with_path(
            lambda path, array: array.ndim >= 2 and parameter(path).rpartition("/")[2] in _KERNELS, params
        )


def parameter(path: Any) -> str:
    """A parameter's name: "block_0/mlp/kernel"."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def layer_rates(names: Mapping[str, int], decay: float) -> dict[str, float]:
    """Learning rates that fall from layer to layer, from the outputs to the images.

    As in Clark et al., "ELECTRA" (2020), and Bao et al., "BEiT" (2022): what comes before the blocks
    is layer 0, block i is layer i + 1, and what comes after the last one has the whole rate. Each
    tower of two counts its own blocks; what is in neither has the whole rate.

    Args:
        names: of all parameters, each with its number of axes.
        decay: what the rate is multiplied by from a layer to the one before.

    Returns:
        By parameter what its rate is multiplied by.

    Raises:
        ValueError: if there are no blocks.
    """
    deepest: dict[str, int] = {}
    for name in names:
        tower, block = _place(name)
        if block is not None:
            deepest[tower] = max(deepest.get(tower, 0), block)
    if not deepest:
        raise ValueError("expected 1, as the model has no numbered blocks (block_0, block_1, …)")
    found = {}
    for name, axes in names.items():
        tower, block = _place(name)
        last = deepest.get(tower, -1) + 2
        layer = last
        if block is not None:
            layer = block + 1
        elif axes and tower in deepest and _is_before(name):
            layer = 0
        found[name] = decay ** (last - layer)
    return found


def _place(name: str) -> tuple[str, int | None]:
    """In which tower a parameter is, and in which block of it."""
    tower = name.partition("/")[0] if name.startswith(("image/", "text/")) else ""
    block = re.search(r"(?:^|/)block_(\d+)/", name)
    return tower, int(block[1]) if block else None


def _is_before(name: str) -> bool:
    """Whether a parameter comes before the blocks."""
    own = name.removeprefix("image/").removeprefix("text/").partition("/")[0]
    return own in ("patch_embedding", "cls", "positions", "registers", "pre_norm", "tokens")
