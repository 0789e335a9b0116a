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

from classact.data import seeds
from classact.models import registry
from classact.nodes import mesh as mesh_lib
from classact.nodes import two_passes
from classact.nodes.optimizers import OptimizerConfig as OptimizerConfig
from classact.selection import losses

Batch = Mapping[str, Any]
# A batch of each data set, by the data set's name.
Batches = Mapping[str, Batch]
Metrics = dict[str, jax.Array]


# XLA's, on a CPU: code that runs once need not be fast, and draws are the same.
_RUNS_ONCE: Any = {"xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model that is trained, with its optimiser.

    Attributes:
        model: the network.
        optimizer: its optimiser.
        weights: by data set that it learns from, what each one's loss counts in
            the mean of all; above 0.
        on_super_batch: whether it learns from the IID super-batches (the
            reference of Algorithm 2) instead of the sub-batches.
    """

    model: registry.Model
    optimizer: OptimizerConfig
    weights: Mapping[str, float]
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


def init_state(
    trained: Mapping[str, TrainedModel], seed: int, mesh: jax.sharding.Mesh | None = None
) -> TrainState:
    """Initialises all models; each name has its own random key.

    Args:
        trained: by name.
        seed: of the run, below 2^32.
        mesh: devices that the state is spread over; it is made there, and never
            whole on one of them. None: one device.

    Raises:
        ValueError: for a seed whose parameters another seed has as well.
    """
    seed = seeds.checked(seed)
    # One compilation, of draws that run once: a model's parts one by one take twice as long.
    return jax.jit(
        lambda: _initial(trained, seed),
        out_shardings=_sharding(trained, mesh) if mesh is not None else None,
        compiler_options=_RUNS_ONCE if jax.default_backend() == "cpu" else None,
    )()


def state_shapes(trained: Mapping[str, TrainedModel], mesh: jax.sharding.Mesh | None = None) -> TrainState:
    """What `init_state` gives, as shapes, dtypes and, with a mesh, shardings; computes nothing."""
    shapes: TrainState = jax.eval_shape(lambda: _initial(trained, 0))
    if mesh is None:
        return shapes

    def placed(of: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(of.shape, of.dtype, sharding=sharding)

    found: TrainState = jax.tree.map(placed, shapes, _sharding(trained, mesh))
    return found


def _initial(trained: Mapping[str, TrainedModel], seed: int) -> TrainState:
    key = jax.random.key(seed)
    models = {}
    for name, item in trained.items():
        # A name's key must not depend on which other models a policy trains, so
        # that all policies start from the same learner.
        variables = item.model.init(jax.random.fold_in(key, sum(map(ord, name))))
        opt_state = item.optimizer.make().init(variables["params"])
        models[name] = ModelState(variables["params"], variables["state"], opt_state)
    return TrainState(jnp.zeros((), jnp.int32), jax.random.fold_in(key, 0), models)


def _sharding(trained: Mapping[str, TrainedModel], mesh: jax.sharding.Mesh) -> Any:
    """Where a state's arrays lie: parameters and moments split, all else on every device."""
    whole: Any = mesh_lib.replicated(mesh)
    models = {
        name: ModelState(
            mesh_lib.split(mesh, model.params),
            jax.tree.map(lambda _: whole, model.state),
            mesh_lib.split(mesh, model.opt_state),
        )
        for name, model in state_shapes(trained).models.items()
    }
    return TrainState(whole, whole, models)


# (state, sub-batches, super-batches) → (state, metrics)
Update = Callable[[TrainState, Batches, Batches], tuple[TrainState, Metrics]]


def make_update(
    trained: Mapping[str, TrainedModel],
    task: losses.Task,
    mesh: jax.sharding.Mesh | None = None,
    accumulation: int = 1,
    whole_loss: bool = False,
) -> Update:
    """Builds the jitted update of every trained model.

    Algorithm 1, lines 7 and 8; with a model `on_super_batch` also Algorithm 2,
    line 5, in its corrected form: the reference learns from ℓ_learn(X; θ_r), its
    own loss on the super-batch (the paper prints θ_l).

    A loss is the weighted mean of the data sets' losses; the batches of different
    data sets never meet in one ℓ_learn, nor in the statistics of a BatchNorm,
    which is updated by one after the other.

    With `accumulation` a batch is cut into micro-batches, which go through the model
    one after another, and whose gradients and metrics are averaged. Where the loss is
    a mean over examples that is the gradient of the whole batch. It is another one
    where examples meet: in a contrastive loss a pair's negatives are those of its
    micro-batch, and a BatchNorm normalises each micro-batch by itself and updates its
    running statistics after each. With `whole_loss` the loss is that of the whole batch all the
    same, with all negatives, for one more forward pass (`two_passes`).

    Args:
        trained: by name, "learner" among them.
        task: gives ℓ_learn and the metrics.
        mesh: the devices, which compute what one would but for the order of sums:
            each on its own rows of every batch. None: one device.
        accumulation: micro-batches of a batch; it divides every batch (and each
            device's rows of it).
        whole_loss: whether the loss is of the whole batch, not the mean of its micro-batches'.

    Returns:
        `update(state, sub_batches, super_batches) -> (state, metrics)`, batches by
        data set. The state's buffers are donated. Metrics are scalars:
        `train/loss` and the task's metrics of the learner, `train/<model>_loss` of
        the others; with several data sets also `train/<data set>/…` of the learner.
    """
    optimizers = {name: item.optimizer.make() for name, item in trained.items()}

    def differentiate(
        item: TrainedModel, params: Any, state: Any, batches: Batches, rng: jax.Array
    ) -> tuple[Any, Any, tuple[jax.Array, dict[str, Metrics]]]:
        """The gradients, the state afterwards, and (loss, metrics by data set)."""
        total = sum(item.weights.values())
        before = state

        def loss_of(params: Any) -> tuple[jax.Array, tuple[Any, dict[str, Metrics]]]:
            state, loss, found = before, jnp.zeros(()), {}
            params = mesh_lib.gather(mesh, params)
            for index, (data_set, weight) in enumerate(item.weights.items()):
                batch = batches[data_set]
                outputs, state = item.model.apply(
                    {"params": params, "state": state}, batch, train=True, rng=jax.random.fold_in(rng, index)
                )
                own = task.learn_loss(outputs, batch)
                loss += weight / total * own
                found[data_set] = {"loss": own, **task.metrics(outputs, batch)}
            return loss, (state, found)

        (loss, (state, found)), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return mesh_lib.scatter(mesh, gradients), state, (loss, found)

    def accumulate(
        item: TrainedModel, params: Any, state: Any, batches: Batches, rng: jax.Array
    ) -> tuple[Any, Any, tuple[jax.Array, dict[str, Metrics]]]:
        """The same from one micro-batch after another."""

        def add(carry: Any, micro: Any) -> Any:
            (index, batches), (gradients, state) = micro, carry
            more, state, found = differentiate(item, params, state, batches, jax.random.fold_in(rng, index))
            return (jax.tree.map(jnp.add, gradients, more), state), found

        cut = mesh_lib.micro_batches(mesh, {name: batches[name] for name in item.weights}, accumulation)
        zeros = mesh_lib.scatter(mesh, jax.tree.map(jnp.zeros_like, params))
        (gradients, state), found = jax.lax.scan(add, (zeros, state), (jnp.arange(accumulation), cut))
        gradients = jax.tree.map(lambda array: array / accumulation, gradients)
        return gradients, state, jax.tree.map(lambda values: jnp.mean(values, axis=0), found)

    def in_two_passes(
        item: TrainedModel, params: Any, state: Any, batches: Batches, rng: jax.Array
    ) -> tuple[Any, Any, tuple[jax.Array, dict[str, Metrics]]]:
        """The same, with a loss of the whole batch of each data set."""
        total, loss, found = sum(item.weights.values()), jnp.zeros(()), {}
        gradients = mesh_lib.scatter(mesh, jax.tree.map(jnp.zeros_like, params))
        for index, (data_set, weight) in enumerate(item.weights.items()):
            key, share = jax.random.fold_in(rng, index), weight / total
            variables, batch = {"params": params, "state": state}, batches[data_set]
            more, state, (own, metrics) = two_passes.differentiate(
                item.model, task, mesh, accumulation, variables, batch, key, share
            )
            gradients = jax.tree.map(jnp.add, gradients, more)
            loss += share * own
            found[data_set] = {"loss": own, **metrics}
        return gradients, state, (loss, found)

    def update_model(
        name: str, current: ModelState, batches: Batches, rng: jax.Array
    ) -> tuple[ModelState, jax.Array, dict[str, Metrics]]:
        compute = differentiate if accumulation == 1 else in_two_passes if whole_loss else accumulate
        gradients, state, (loss, found) = compute(trained[name], current.params, current.state, batches, rng)
        # Optax raises a float to an integer count: it cannot be run with strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            changes, opt_state = optimizers[name].update(gradients, current.opt_state, current.params)
        params = trained[name].model.project(optax.apply_updates(current.params, changes))
        return ModelState(params, state, opt_state), loss, found

    def update(state: TrainState, sub_batches: Batches, super_batches: Batches) -> tuple[TrainState, Metrics]:
        metrics: Metrics = {}
        models = {}
        rng = jax.random.fold_in(state.rng, state.step)
        for index, (name, item) in enumerate(trained.items()):
            batches = super_batches if item.on_super_batch else sub_batches
            missing = sorted(set(item.weights) - set(batches))
            if missing:
                kind = "super-batches" if item.on_super_batch else "sub-batches"
                raise ValueError(f"model {name!r} learns from {kind} of {', '.join(missing)}: none was given")
            models[name], loss, found = update_model(
                name, state.models[name], batches, jax.random.fold_in(rng, index)
            )
            if name == "learner":
                metrics |= _learner_metrics(loss, found)
            else:
                metrics[f"train/{name}_loss"] = loss
        return TrainState(state.step + 1, state.rng, models), metrics

    if mesh is None:
        return jax.jit(update, donate_argnums=0)
    out = (_sharding(trained, mesh), mesh_lib.replicated(mesh))
    return jax.jit(update, donate_argnums=0, out_shardings=out)


def _learner_metrics(loss: jax.Array, by_data_set: Mapping[str, Metrics]) -> Metrics:
    """`train/<metric>`, the plain mean over the data sets, and each one's if there are several."""
    found = list(by_data_set.values())
    metrics = {f"train/{name}": jnp.mean(jnp.stack([values[name] for values in found])) for name in found[0]}
    metrics["train/loss"] = loss
    if len(found) > 1:
        for data_set, values in by_data_set.items():
            metrics |= {f"train/{data_set}/{name}": value for name, value in values.items()}
    return metrics
