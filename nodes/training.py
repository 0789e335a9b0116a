"""One update of every model that a policy trains, as one jitted function.

Used by the learner node and by the synchronous oracle (`nodes/synchronous.py`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from classact.models import registry
from classact.selection import losses

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to 0 (Appendix A.2).

    Attributes:
        learning_rate: the maximum, reached after the warm-up.
        steps: updates of the whole run; the decay ends there.
        warmup_steps: updates of linear warm-up from 0.
        weight_decay: of AdamW, on every parameter with two or more axes.
        clip_norm: maximum global norm of the gradient; 0: no clipping.
    """

    learning_rate: float
    steps: int
    warmup_steps: int
    weight_decay: float = 1e-3
    clip_norm: float = 0.0

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

    def schedule(self) -> optax.Schedule:
        """Learning rate by update."""
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if self.warmup_steps else self.learning_rate,
            peak_value=self.learning_rate,
            warmup_steps=self.warmup_steps,
            decay_steps=self.steps,
        )

    def make(self) -> optax.GradientTransformation:
        """Builds the optimiser."""
        adamw = optax.adamw(
            self.schedule(),
            weight_decay=self.weight_decay,
            mask=lambda params: jax.tree.map(lambda array: array.ndim >= 2, params),
        )
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw) if self.clip_norm else adamw


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model that is trained, with its optimiser.

    Attributes:
        model: the network.
        optimizer: its optimiser.
        on_super_batch: whether it learns from the IID super-batch (the reference
            of Algorithm 2) instead of the sub-batch.
    """

    model: registry.Model
    optimizer: OptimizerConfig
    on_super_batch: bool = False


@flax.struct.dataclass
class ModelState:
    """Parameters, state (running statistics) and optimiser state of one model."""

    params: Any
    state: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What the model's `apply` takes."""
        return {"params": self.params, "state": self.state}


@flax.struct.dataclass
class TrainState:
    """Everything that an update changes.

    Attributes:
        step: int32[], number of updates made.
        rng: key that every update's randomness is derived from.
        models: by name: "learner", "online", "reference".
    """

    step: jax.Array
    rng: jax.Array
    models: dict[str, ModelState]

    def variables(self) -> dict[str, dict[str, Any]]:
        """Variables by model name."""
        return {name: model.variables for name, model in self.models.items()}


def init_state(trained: Mapping[str, TrainedModel], seed: int) -> TrainState:
    """Initialises all models; each name has its own random key.

    Args:
        trained: by name.
        seed: of the run.
    """
    key = jax.random.key(seed)
    models = {}
    for name, item in trained.items():
        # A name's key must not depend on which other models a policy trains, so
        # that all policies start from the same learner.
        variables = item.model.init(jax.random.fold_in(key, sum(map(ord, name))))
        opt_state = item.optimizer.make().init(variables["params"])
        models[name] = ModelState(variables["params"], variables["state"], opt_state)
    return TrainState(jnp.zeros((), jnp.int32), jax.random.fold_in(key, 0), models)


def make_update(
    trained: Mapping[str, TrainedModel], task: losses.Task
) -> Callable[[TrainState, Batch, Batch | None], tuple[TrainState, Metrics]]:
    """Builds the jitted update of every trained model.

    Algorithm 1, lines 7 and 8; with a model `on_super_batch` also Algorithm 2,
    line 5, in its corrected form: the reference learns from ℓ_learn(X; θ_r), its
    own loss on the super-batch (the paper prints θ_l).

    Args:
        trained: by name, "learner" among them.
        task: gives ℓ_learn and the metrics.

    Returns:
        `update(state, sub_batch, super_batch) -> (state, metrics)`. The state's
        buffers are donated. Metrics are scalars: `train/loss` and the task's
        metrics of the learner, `train/<model>_loss` of the others.
    """
    optimizers = {name: item.optimizer.make() for name, item in trained.items()}

    def update_model(
        name: str, current: ModelState, batch: Batch, rng: jax.Array
    ) -> tuple[ModelState, jax.Array, Any]:
        def loss_of(params: Any) -> tuple[jax.Array, tuple[Any, Any]]:
            variables = {"params": params, "state": current.state}
            outputs, new_state = trained[name].model.apply(variables, batch, train=True, rng=rng)
            return task.learn_loss(outputs, batch), (outputs, new_state)

        (loss, (outputs, new_state)), gradients = jax.value_and_grad(loss_of, has_aux=True)(current.params)
        changes, opt_state = optimizers[name].update(gradients, current.opt_state, current.params)
        return ModelState(optax.apply_updates(current.params, changes), new_state, opt_state), loss, outputs

    def update(state: TrainState, sub_batch: Batch, super_batch: Batch | None) -> tuple[TrainState, Metrics]:
        metrics: Metrics = {}
        models = {}
        rng = jax.random.fold_in(state.rng, state.step)
        for index, name in enumerate(trained):
            batch = super_batch if trained[name].on_super_batch else sub_batch
            if batch is None:
                raise ValueError(f"model {name!r} learns from the super-batch, but none was given")
            models[name], loss, outputs = update_model(
                name, state.models[name], batch, jax.random.fold_in(rng, index)
            )
            if name == "learner":
                metrics["train/loss"] = loss
                metrics |= {f"train/{key}": value for key, value in task.metrics(outputs, batch).items()}
            else:
                metrics[f"train/{name}_loss"] = loss
        return TrainState(state.step + 1, state.rng, models), metrics

    return jax.jit(update, donate_argnums=0)
