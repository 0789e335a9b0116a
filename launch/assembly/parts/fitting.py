"""Whether parameters that were read fit a model, and in words that a user knows."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from classact.models import registry

# Names from the root of a model's variables, such as ("params", "block_0", "mlp", "kernel").
Path = tuple[str, ...]


def flat(tree: Mapping[str, Any], before: Path = ()) -> dict[Path, Any]:
    """The leaves of nested dicts by their paths."""
    found: dict[Path, Any] = {}
    for name, value in tree.items():
        path = (*before, name)
        found |= flat(value, path) if isinstance(value, Mapping) else {path: value}
    return found


def expected(model: registry.Model) -> dict[Path, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a model's variables; no device is touched."""
    # As in `cost.forward_cost`.
    return flat(jax.eval_shape(lambda: model.init(jax.random.key(0))))


def output_axes(model_of: Callable[[int], registry.Model], number: int) -> dict[Path, int]:
    """A model's outputs: the arrays that grow with their number, each with the axis that does.

    None of a model without a head, whose outputs are its channels.

    Args:
        model_of: makes the model for a number of outputs.
        number: how many it has.
    """
    ours, larger = expected(model_of(number)), _with_one_more(model_of, number)
    more = ours if larger is None else expected(larger)
    found = {}
    for path, leaf in ours.items():
        sizes = zip(leaf.shape, more[path].shape if path in more else leaf.shape, strict=False)
        axis = next((axis for axis, (size, other) in enumerate(sizes) if size != other), None)
        if axis is not None:
            found[path] = axis
    return found


def misfit(variables: Mapping[str, Any], model_of: Callable[[int], registry.Model], num_classes: int) -> str:
    """Says how parameters differ from a model's; "" if they do not.

    Args:
        variables: that were read.
        model_of: makes the model for a number of classes; one without classes ignores it.
        num_classes: of the model that they should fit.

    Returns:
        That the number of classes is another, if it is; else the first parameter of which
        presence or shape differ.
    """
    theirs = _shapes(variables["params"])
    ours = _expected(model_of(num_classes))
    if theirs == ours:
        return ""
    larger = _with_one_more(model_of, num_classes)
    more = ours if larger is None else _expected(larger)
    learned = _classes_of(theirs, ours, more, num_classes)
    if learned not in (None, num_classes):
        return f"it has learned {learned} classes, expected {num_classes}"
    name = next(name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name))
    return f"{name} has shape {theirs.get(name, 'none')}, expected {ours.get(name, 'none')}"


def _with_one_more(model_of: Callable[[int], registry.Model], number: int) -> registry.Model | None:
    """The model with another output; None if there is none such, as where outputs are channels."""
    try:
        return model_of(number + 1)
    except ValueError:
        return None


def _classes_of(
    theirs: Mapping[str, tuple[int, ...]],
    ours: Mapping[str, tuple[int, ...]],
    with_one_more: Mapping[str, tuple[int, ...]],
    num_classes: int,
) -> int | None:
    """The number of classes that parameters are for: the size of what one class more makes larger."""
    for name, shape in ours.items():
        more, found = with_one_more.get(name, ()), theirs.get(name, ())
        if len(more) != len(shape) or len(found) != len(shape):
            continue
        for axis, size in enumerate(shape):
            if (size, more[axis]) == (num_classes, num_classes + 1):
                return found[axis]
    return None


def _expected(model: registry.Model) -> dict[str, tuple[int, ...]]:
    # As in `cost.forward_cost`, no device is touched.
    return _shapes(jax.eval_shape(lambda: model.init(jax.random.key(0)))["params"])


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
