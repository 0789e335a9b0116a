"""Exact costs of a model: multiply-accumulates (MACs) and parameters.

MACs are counted by walking the jaxpr of a function, so any function that JAX can
trace can be counted. Only shapes are needed: no weights are allocated, and
ViT-L takes seconds. One MAC is one multiplication with its addition, about two
FLOPs. Counted are matrix products and convolutions; element-wise work,
reductions, normalisation and softmax are not, as is the custom (Table 4 of the
paper mixes MACs and FLOPs, so compare with counts made here). Attention is counted as its
two products, whichever kernel computes it, so that a count is the same on every device.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import partial_eval

from classact.models import execution, registry

# What recomputes its body when it is differentiated, by its names in several versions of JAX.
_RECOMPUTED = ("checkpoint", "remat", "remat2")
# Call-like primitives: their one body runs once.
_CALLS = (
    *_RECOMPUTED,
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "jit",
    "pjit",
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a forward pass takes.

    Attributes:
        macs: multiply-accumulates for one example.
        parameters: number of trained scalars that the pass reads.
    """

    macs: int
    parameters: int


def count_macs(function: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Counts the MACs of `function(*args, **kwargs)`.

    A convolution counts every tap of its kernel at every output, those on
    padding included. `scan` counts its body times its length, `cond` its most
    expensive branch.

    Args:
        function: anything that `jax.make_jaxpr` can trace, jitted or not, a
            gradient included.
        *args: arrays, or `jax.ShapeDtypeStruct`s in their place.
        **kwargs: the same.

    Returns:
        The exact number of MACs of the whole call, not per example.

    Raises:
        ValueError: if a `while` loop (whose number of turns is unknown) or a
            primitive with a body of unknown use contains MACs.
    """
    with execution.as_products():
        return _macs(jax.make_jaxpr(function)(*args, **kwargs).jaxpr)


def count_parameters(variables: registry.Variables) -> int:
    """Returns the number of scalars in `variables["params"]`, the head's included."""
    return _size(variables["params"])


def forward_macs(model: registry.Model, image_shape: tuple[int, int, int], text_length: int = 0) -> int:
    """Returns the MACs of scoring one example; see `forward_cost`."""
    return forward_cost(model, image_shape, text_length=text_length).macs


def forward_cost(
    model: registry.Model,
    image_shape: tuple[int, int, int],
    output: str | None = None,
    text_length: int = 0,
) -> Cost:
    """Counts what `model` needs to compute its outputs for one example.

    Args:
        model: any model of the registry, or of `two_tower`.
        image_shape: (height, width, channels) that it was built for.
        output: for instance "embedding", for the model without its classification
            head: whatever only the other outputs need is left out, of both
            counts. None: all outputs.
        text_length: tokens of the example's text; 0: it has none.

    Returns:
        The cost; a training step takes about three times its MACs.

    Raises:
        ValueError: if the model has no such output.
    """
    variables, batch = _shapes(model, image_shape, text_length)
    params, tree = jax.tree.flatten(variables["params"])

    def forward(leaves: list[jax.Array], state: Any, batch: dict[str, jax.Array]) -> list[jax.Array]:
        full = {"params": jax.tree.unflatten(tree, leaves), "state": state}
        outputs, _ = model.apply(full, batch, train=False)
        if output is None:
            return list(outputs.values())
        if output not in outputs:
            raise ValueError(f"output={output!r}: model {model.name!r} has {sorted(outputs)}")
        return [outputs[output]]

    with execution.as_products():
        jaxpr = jax.make_jaxpr(forward)(params, variables["state"], batch).jaxpr
    jaxpr, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    parameters = sum(leaf.size for leaf, is_used in zip(params, used, strict=False) if is_used)
    return Cost(_macs(jaxpr), parameters)


def recomputed_macs(model: registry.Model, image_shape: tuple[int, int, int], text_length: int = 0) -> int:
    """Counts what a training step computes once more for one example, because it was not kept.

    Those are the parts of a model that rematerialise (`remat` of the ViTs, `jax.checkpoint`
    of any model): what their backward pass needs of the forward pass. It is less than
    the forward pass, as a block's last product is not needed again.

    Args:
        model: as for `forward_cost`.
        image_shape: as there.
        text_length: as there.

    Returns:
        MACs; 0 for a model that keeps everything.

    Raises:
        ValueError: as `count_macs`.
    """
    variables, batch = _shapes(model, image_shape, text_length)
    leaves, tree = jax.tree.flatten(variables["params"])

    def forward(leaves: list[jax.Array], state: Any, batch: dict[str, jax.Array]) -> list[jax.Array]:
        full = {"params": jax.tree.unflatten(tree, leaves), "state": state}
        outputs, _ = model.apply(full, batch, train=True, rng=jax.random.key(0))
        return list(outputs.values())

    with execution.as_products():
        traced = jax.make_jaxpr(forward)(leaves, variables["state"], batch)
    if not _recomputes(traced.jaxpr):
        return 0
    arguments = leaves, jax.tree.leaves((variables["state"], batch))

    def gradient(traced: Any) -> int:
        run = core.jaxpr_as_fun(traced)

        def loss(leaves: list[jax.Array], others: list[Any]) -> jax.Array:
            return sum((output.sum().astype(jnp.float32) for output in run(*leaves, *others)), jnp.zeros(()))

        return count_macs(jax.grad(loss), *arguments)

    return gradient(traced) - gradient(_keeping(traced))


def residual_bytes(model: registry.Model, image_shape: tuple[int, int, int], text_length: int = 0) -> int:
    """Counts what a training step keeps of one example from the forward to the backward pass.

    Those are the arrays that JAX's gradient holds (the residuals), by shapes alone. XLA may keep less:
    what is cheap to make again from another one of them, or more, for a while.

    Args:
        model: as for `forward_cost`.
        image_shape: as there.
        text_length: as there.

    Returns:
        Bytes, by which every further example of a batch adds to the parameters' own.
    """

    def kept(examples: int) -> int:
        variables, batch = _shapes(model, image_shape, text_length, examples)

        def residuals(params: Any, state: Any, batch: Any) -> Any:
            def forward(params: Any) -> Any:
                full = {"params": params, "state": state}
                return model.apply(full, batch, train=True, rng=jax.random.key(0))[0]

            return jax.vjp(forward, params)[1]

        held = jax.eval_shape(residuals, variables["params"], variables["state"], batch)
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in jax.tree.leaves(held))

    return kept(2) - kept(1)


def _shapes(
    model: registry.Model, image_shape: tuple[int, int, int], text_length: int, examples: int = 1
) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    """A model's variables and a batch, without their values."""
    # The key within: outside, it would be made on a device, which must stay free for the learner.
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    batch = {"image": jax.ShapeDtypeStruct((examples, *image_shape), jnp.uint8)}
    if text_length:
        batch["text"] = jax.ShapeDtypeStruct((examples, text_length), jnp.int32)
    return variables, batch


def _recomputes(jaxpr: Any) -> bool:
    return any(
        equation.primitive.name in _RECOMPUTED or any(map(_recomputes, _bodies(equation.params)))
        for equation in jaxpr.eqns
    )


def _keeping(value: Any) -> Any:
    """A jaxpr whose parts keep all that they compute for their backward pass."""
    if not isinstance(value, (core.Jaxpr, core.ClosedJaxpr)):
        return value
    # Newer versions of JAX have one class for both.
    if not isinstance(value, core.Jaxpr):
        return value.replace(jaxpr=_keeping(value.jaxpr))
    equations = []
    for equation in value.eqns:
        params = {name: _keeping(item) for name, item in equation.params.items()}
        if equation.primitive.name in _RECOMPUTED:
            params["policy"] = jax.checkpoint_policies.everything_saveable
        equations.append(equation.replace(params=params))
    return value.replace(eqns=equations)


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _macs(jaxpr: Any) -> int:
    return sum(_equation_macs(equation) for equation in jaxpr.eqns)


def _equation_macs(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot_macs(equation)
    if name == "conv_general_dilated":
        return _convolution_macs(equation)
    bodies = [_macs(body) for body in _bodies(params)]
    if not any(bodies):
        return 0
    if name == "scan":
        return params["length"] * sum(bodies)
    if name == "cond":
        return max(bodies)
    if name in _CALLS:
        return sum(bodies)
    raise ValueError(f"cannot count the MACs inside {name!r}: how often its body runs is unknown")


def _bodies(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _dot_macs(equation: Any) -> int:
    left = equation.invars[0].aval.shape
    (left_contracted, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in left_contracted)


def _convolution_macs(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    out_channels_axis = equation.params["dimension_numbers"].rhs_spec[0]
    # The kernel's input axis is that of one group already.
    taps = math.prod(kernel) // kernel[out_channels_axis]
    return math.prod(equation.outvars[0].aval.shape) * taps
