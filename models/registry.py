"""Models by name, behind one interface.

A model is a pair of pure functions (`Model`), whichever library it was written
with. `create` builds one by name; `register` adds a name:

    @registry.register("my_net")
    def my_net(name, num_classes, image_shape, patch_size, **options) -> registry.Model:
        ...

A registration lives in one process. A program of several processes finds a
factory in all of them when the model is named `package.module:factory`.
"""

import dataclasses
import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from classact import user_code

PyTree = Any
# {"params": what the optimiser updates, "state": what the forward pass updates,
# for instance BatchNorm's running statistics, or {}}, both nested plain dicts
# with arrays as leaves.
Variables = Mapping[str, PyTree]
# "logits": float32[B, num_classes], "embedding": float32[B, D].
Outputs = dict[str, jax.Array]

_MODULES = ("classact.models.vit", "classact.models.haiku_nets")
_FACTORY_ARGUMENTS = ("name", "num_classes", "image_shape", "patch_size")


class Apply(Protocol):
    """The forward pass of a `Model`."""

    def __call__(
        self, variables: Variables, batch: Mapping[str, Any], *, train: bool, rng: jax.Array | None = None
    ) -> tuple[Outputs, PyTree]:
        """Computes logits and embeddings of a batch.

        Args:
            variables: as `Model.init` made them.
            batch: at least `image`: uint8[B, H, W, C]; the model scales it itself.
            train: whether to compute as in training (batch statistics, which
                update the state) or as in scoring and evaluation (running
                statistics, state unchanged). Static under `jax.jit`.
            rng: a key for models that draw random numbers in training; the
                models of this folder draw none.

        Returns:
            `(outputs, state)`: `logits` float32[B, num_classes] and `embedding`
            float32[B, D]; the state after the batch.

        Raises:
            ValueError: if the images have another shape than the model's.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as two pure functions, safe to trace, jit and differentiate.

    Attributes:
        name: the name it was created by.
        init: `init(key) -> Variables`, with float32 parameters.
        apply: the forward pass, see `Apply`.
        project: moves parameters ("params") that an update took out of bounds back to
            the bound; applied after every update. By default there are no bounds.
    """

    name: str
    init: Callable[[jax.Array], Variables]
    apply: Apply
    project: Callable[[PyTree], PyTree] = lambda params: params


Factory = Callable[..., Model]

_factories: dict[str, Factory] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Registers the decorated factory under `name`.

    The factory is called as `factory(name, num_classes, image_shape,
    patch_size, **options)`, with the options that `create` was given; the names
    of its further parameters are the options that it accepts.

    Args:
        name: the name that `create` takes: lower-case letters, digits and `_`.

    Raises:
        ValueError: if the name is taken or malformed.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"model name {name!r}: expected lower-case letters, digits and _, such as 'my_net'")

    def add(factory: Factory) -> Factory:
        if name in _factories:
            raise ValueError(f"model {name!r} is registered already, by {_factories[name].__module__}")
        _factories[name] = factory
        return factory

    return add


def names() -> tuple[str, ...]:
    """Returns the names that `create` knows, sorted."""
    for module in _MODULES:
        importlib.import_module(module)
    return tuple(sorted(_factories))


def importable_name(name: str) -> str:
    """The name under which every process finds a registered model.

    Returns:
        The name as it is, of one that is not registered or is classact's own;
        `package.module:factory` of one that another module has registered.

    Raises:
        ValueError: if that factory is in no module that can be imported.
    """
    factory = _factories.get(name)
    if factory is None or factory.__module__.startswith("classact."):
        return name
    return user_code.require_importable("model", name, factory)


def create(
    name: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    patch_size: int = 16,
    **options: Any,
) -> Model:
    """Builds the model `name`.

    Args:
        name: one of `names()`, or `package.module:factory`.
        num_classes: K of the logits float32[B, K].
        image_shape: (height, width, channels) of the images, in pixels.
        patch_size: side of a ViT's square patches, in pixels; convolutional
            networks and MLPs ignore it.
        **options: settings of the family, see `vit.build` and `haiku_nets`.

    Returns:
        The model. Nothing is computed or allocated before its `init`.

    Raises:
        ValueError: for an unknown name (the message has the nearest ones), an
            unknown option, or a size that the model cannot be built for.
    """
    _check_positive("num_classes", num_classes)
    _check_positive("patch_size", patch_size)
    shape = tuple(image_shape)
    if len(shape) != 3:
        raise ValueError(f"image_shape={image_shape!r}: expected (height, width, channels)")
    for axis, size in zip(("height", "width", "channels"), shape, strict=True):
        _check_positive(f"image_shape's {axis}", size)
    factory = _find(name)
    _check_options(name, factory, options)
    model = factory(name, int(num_classes), shape, int(patch_size), **options)
    if not isinstance(model, Model):
        raise ValueError(
            f"model {name!r}: its factory gave a {type(model).__name__}, expected a registry.Model"
        )
    for function in (model.init, model.apply):
        user_code.adopt(function)
    return model


def _check_positive(field: str, value: Any) -> None:
    # numpy's integers pass as well: they come out of data sets' arrays.
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{field}={value!r}: expected a positive integer")


def _find(name: str) -> Factory:
    if ":" in name:
        return _import_factory(name)
    for module in _MODULES:
        if name in _factories:
            break
        # One at a time, so that a process of ViTs never imports Haiku.
        importlib.import_module(module)
    if name not in _factories:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of {names()}"
        sized = re.fullmatch(r"(?P<model>vit_\w+?)_?(?P<side>\d+)", name)
        if sized and sized["model"] in names():
            hint = (
                f"for patches of {sized['side']} pixels say {sized['model']!r} and patch_size={sized['side']}"
            )
        raise ValueError(f"unknown model {name!r}: {hint}")
    return _factories[name]


def _import_factory(name: str) -> Factory:
    factory = user_code.find("model", name)
    if not callable(factory):
        attribute = name.partition(":")[2]
        raise user_code.UserCodeError(
            f"model {name!r}: {attribute} is no function, but {type(factory).__name__}"
        )
    return factory


def _check_options(name: str, factory: Factory, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    accepted = [p.name for p in parameters if p.name not in _FACTORY_ARGUMENTS]
    for option in options:
        if option not in accepted:
            raise ValueError(f"model {name!r} has no option {option!r}: expected one of {accepted}")
