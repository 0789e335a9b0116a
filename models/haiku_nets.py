"""The networks of `hk.nets` behind the registry's interface.

BatchNorm's running statistics live in the state: a forward pass with
`train=True` uses the batch's statistics and returns updated running ones, one
with `train=False` uses the running statistics and leaves them as they are, so
an example's score does not depend on its neighbours in the batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from classact.models import images, registry

# Takes pixels float32[B, H, W, C] and whether to use batch statistics, gives logits.
Network = Callable[[jax.Array, bool], jax.Array]


@registry.register("haiku_mlp")
def mlp(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    patch_size: int,
    hidden: tuple[int, ...] = (512, 512),
) -> registry.Model:
    """Builds `hk.nets.MLP` over the flattened image.

    Args:
        name: the model's name.
        num_classes: K.
        image_shape: (height, width, channels) in pixels.
        patch_size: ignored.
        hidden: sizes of the hidden layers, at least one.

    Returns:
        The model; its embedding is the last hidden layer after its ReLU,
        float32[B, hidden[-1]].

    Raises:
        ValueError: if `hidden` is empty or not of positive sizes.
    """
    del patch_size
    if not hidden or any(size < 1 for size in hidden):
        raise ValueError(f"hidden={hidden!r}: expected one or more positive sizes")

    def network(pixels: jax.Array, train: bool) -> jax.Array:
        del train
        return hk.nets.MLP((*hidden, num_classes))(hk.Flatten()(pixels))

    return from_network(name, image_shape, network)


def resnet(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    patch_size: int,
    resnet_v2: bool = False,
) -> registry.Model:
    """Builds `hk.nets.ResNet18`, `ResNet34` or `ResNet50`.

    Args:
        name: "haiku_resnet18", "haiku_resnet34" or "haiku_resnet50".
        num_classes: K.
        image_shape: (height, width, channels) in pixels. The network halves the
            resolution five times, whatever the size.
        patch_size: ignored.
        resnet_v2: pre-activation blocks (He et al., 2016b) instead of the first
            version's.

    Returns:
        The model; its embedding is the average-pooled last feature map,
        float32[B, 512] or, for ResNet-50, float32[B, 2048].
    """
    del patch_size
    constructor = {
        "haiku_resnet18": hk.nets.ResNet18,
        "haiku_resnet34": hk.nets.ResNet34,
        "haiku_resnet50": hk.nets.ResNet50,
    }[name]

    def network(pixels: jax.Array, train: bool) -> jax.Array:
        return constructor(num_classes, resnet_v2=resnet_v2)(pixels, is_training=train)

    return from_network(name, image_shape, network)


for _name in ("haiku_resnet18", "haiku_resnet34", "haiku_resnet50"):
    registry.register(_name)(resnet)


@registry.register("haiku_mobilenet")
def mobilenet(
    name: str, num_classes: int, image_shape: tuple[int, int, int], patch_size: int
) -> registry.Model:
    """Builds `hk.nets.MobileNetV1`.

    Args:
        name: the model's name.
        num_classes: K.
        image_shape: (height, width, channels) in pixels, at least 3×3 pixels.
        patch_size: ignored.

    Returns:
        The model; its embedding is the average-pooled last feature map,
        float32[B, 1024].

    Raises:
        ValueError: if the image is too small for the first convolution.
    """
    del patch_size
    if min(image_shape[:2]) < 3:
        raise ValueError(f"image_shape={image_shape}: {name} takes images of 3×3 pixels or more")

    def network(pixels: jax.Array, train: bool) -> jax.Array:
        return hk.nets.MobileNetV1(num_classes=num_classes)(pixels, is_training=train)

    return from_network(name, image_shape, network)


def from_network(name: str, image_shape: tuple[int, int, int], network: Network) -> registry.Model:
    """Makes a model of any Haiku network; for a factory of one's own.

    Args:
        name: the model's name.
        image_shape: (height, width, channels) in pixels.
        network: a function that builds and calls Haiku modules: takes pixels
            float32[B, H, W, C] in [-1, 1] and whether to use batch statistics,
            returns logits float32[B, K]. Its last `hk.Linear` is the head.

    Returns:
        The model; its embedding is the head's input.
    """

    @hk.transform_with_state
    def transformed(pixels: jax.Array, train: bool) -> registry.Outputs:
        # Haiku's moving averages raise a float to an integer count: they cannot be run with strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            return _with_embedding(network, images.scale(pixels), train)

    def init(key: jax.Array) -> registry.Variables:
        params, state = transformed.init(key, jnp.zeros((1, *image_shape), jnp.uint8), True)
        return {"params": _plain(params), "state": _standard_averages(_plain(state))}

    def apply(
        variables: registry.Variables,
        batch: Mapping[str, Any],
        *,
        train: bool,
        rng: jax.Array | None = None,
    ) -> tuple[registry.Outputs, Any]:
        pixels = images.take(batch, image_shape, name)
        outputs, state = transformed.apply(variables["params"], variables["state"], rng, pixels, train)
        # With train=False Haiku copies the state through; the caller's own is surely unchanged.
        return outputs, _plain(state) if train else variables["state"]

    return registry.Model(name, init, apply)


def _with_embedding(network: Network, pixels: jax.Array, train: bool) -> registry.Outputs:
    """Runs the network and keeps what its last `hk.Linear`, the head, was given."""
    inputs: list[jax.Array] = []

    def keep_input(
        call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: hk.MethodContext
    ) -> Any:
        if isinstance(context.module, hk.Linear) and context.method_name == "__call__":
            inputs.append(args[0])
        return call(*args, **kwargs)

    with hk.intercept_methods(keep_input):
        logits = network(pixels, train)
    return {"logits": logits, "embedding": inputs[-1]}


def _plain(tree: Mapping[str, Mapping[str, jax.Array]]) -> dict[str, dict[str, jax.Array]]:
    return {module: dict(leaves) for module, leaves in tree.items()}


def _standard_averages(state: dict[str, dict[str, jax.Array]]) -> dict[str, dict[str, jax.Array]]:
    """Starts BatchNorm's running averages at mean 0 and variance 1.

    Haiku starts them at the statistics of the images that shaped the parameters,
    here a constant one with variance 0: scoring before the first update would
    divide by the square root of epsilon in every layer, and a ResNet's outputs
    overflow. The first update replaces these values: Haiku's moving averages are
    corrected for their start.
    """
    start = {"mean_ema": jnp.zeros_like, "var_ema": jnp.ones_like}
    averages = {}
    for module, leaves in state.items():
        kind = module.rpartition("/")[2]
        averages[module] = {**leaves, "average": start[kind](leaves["average"])} if kind in start else leaves
    return averages
