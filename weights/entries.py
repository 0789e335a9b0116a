"""How arrays of ours are named and laid out elsewhere, both ways.

A layout is a list of entries. The same list reads a checkpoint and writes one, so what is
written and read back is equal to the bit: nothing is computed, only moved.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from classact.models import transformer

# Where an array is in the tree of parameters.
Path = tuple[str, ...]
Arrays = list[np.ndarray]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Some arrays of ours that hold what some arrays of theirs do.

    Attributes:
        ours: paths in `params`.
        theirs: names and shapes.
        read: from theirs to ours.
        write: the inverse.
    """

    ours: tuple[Path, ...]
    theirs: tuple[tuple[str, Shape], ...]
    read: Callable[[Arrays], Arrays]
    write: Callable[[Arrays], Arrays]


def reshaped(ours: Path, shape: Shape, name: str, theirs: Shape) -> Entry:
    """An array of another shape, and the same order."""
    return Entry(
        (ours,), ((name, theirs),), lambda a: [a[0].reshape(shape)], lambda a: [a[0].reshape(theirs)]
    )


def same(ours: Path, name: str, shape: Shape) -> Entry:
    """An array that is equal."""
    return reshaped(ours, shape, name, shape)


def transposed(ours: Path, name: str, shape: Shape) -> Entry:
    """A matrix of ours of `shape`, which PyTorch has the other way round."""
    return Entry((ours,), ((name, shape[::-1]),), lambda a: [a[0].T], lambda a: [a[0].T])


def names_of(layer: str) -> tuple[str, str]:
    """Names of a layer's weight and bias in PyTorch; its MultiheadAttention has them otherwise."""
    return (f"{layer}_weight", f"{layer}_bias") if layer.endswith("in_proj") else (
        f"{layer}.weight", f"{layer}.bias",
    )  # fmt: skip


def linear(ours: Path, layer: str, shape: tuple[int, int], bias: bool = True) -> Iterator[Entry]:
    """A `torch.nn.Linear`; `shape` is (inputs, outputs)."""
    weight, its_bias = names_of(layer)
    yield transposed((*ours, "kernel"), weight, shape)
    if bias:
        yield same((*ours, "bias"), its_bias, shape[1:])


def norm(ours: Path, layer: str, width: int) -> Iterator[Entry]:
    """A `torch.nn.LayerNorm`."""
    yield same((*ours, "scale"), f"{layer}.weight", (width,))
    yield same((*ours, "bias"), f"{layer}.bias", (width,))


def joined(ours: Path, layers: Sequence[str], width: int, bias: bool = True) -> Iterator[Entry]:
    """Several linear layers of `width` to `width`, which are one of ours, side by side."""
    weights, biases = zip(*map(names_of, layers), strict=True)
    count = len(layers)
    yield Entry(
        ((*ours, "kernel"),),
        tuple((name, (width, width)) for name in weights),
        lambda a: [np.concatenate([each.T for each in a], axis=1)],
        lambda a: [part.T for part in np.split(a[0], count, axis=1)],
    )
    if bias:
        yield Entry(
            ((*ours, "bias"),),
            tuple((name, (width,)) for name in biases),
            lambda a: [np.concatenate(a)],
            lambda a: np.split(a[0], count),
        )


def split(query: Path, key_value: Path, layer: str, width: int) -> Iterator[Entry]:
    """A layer that makes queries, keys and values of one input; ours are a layer of queries, and another."""
    weight, bias = names_of(layer)
    yield Entry(
        ((*query, "kernel"), (*key_value, "kernel")),
        ((weight, (3 * width, width)),),
        lambda a: [a[0][:width].T, a[0][width:].T],
        lambda a: [np.concatenate([a[0].T, a[1].T])],
    )
    yield Entry(
        ((*query, "bias"), (*key_value, "bias")),
        ((bias, (3 * width,)),),
        lambda a: [a[0][:width], a[0][width:]],
        lambda a: [np.concatenate(a)],
    )


def patches(
    layer: str, width: int, patch: int, channels: int, bias: bool = True, ours: Path = ("patch_embedding",)
) -> Iterator[Entry]:
    """A `torch.nn.Conv2d` of kernel and stride `patch`; ours is a product, see `vit.patches`."""
    yield Entry(
        ((*ours, "kernel"),),
        ((f"{layer}.weight", (width, channels, patch, patch)),),
        lambda a: [a[0].transpose(2, 3, 1, 0).reshape(-1, width)],
        lambda a: [a[0].reshape(patch, patch, channels, width).transpose(3, 2, 0, 1)],
    )
    if bias:
        yield same((*ours, "bias"), f"{layer}.bias", (width,))


@dataclasses.dataclass(frozen=True)
class BlockNames:
    """What the layers of a block are called in PyTorch.

    Attributes:
        norm_attention: the LayerNorm before the attention.
        qkv: queries, keys and values: three layers, or one of all.
        out: the attention's projection.
        norm_mlp: the LayerNorm before the MLP.
        mlp_in: its first layer.
        mlp_out: its second one.
        scales: layer scale of attention and MLP.
    """

    norm_attention: str
    qkv: tuple[str, ...]
    out: str
    norm_mlp: str
    mlp_in: str
    mlp_out: str
    scales: tuple[str, str] = ("", "")


def blocks(
    place: str,
    names: BlockNames,
    size: transformer.Size,
    style: transformer.Style,
    ours: Path = (),
) -> Iterator[Entry]:
    """The blocks of a tower.

    Args:
        place: what the names begin with, with {} for the block's number.
        names: of the layers.
        size: of the tower.
        style: likewise.
        ours: where the tower is in our parameters.
    """
    width = size.width
    for i in range(size.depth):
        prefix, block = place.format(i), (*ours, f"block_{i}")
        yield from norm((*block, "norm_attention"), prefix + names.norm_attention, width)
        qkv, layers = (*block, "attention", "qkv"), [prefix + layer for layer in names.qkv]
        if len(layers) == 1:
            yield from linear(qkv, layers[0], (width, 3 * width), style.qkv_bias)
        else:
            yield from joined(qkv, layers, width, style.qkv_bias)
        yield from linear((*block, "attention", "out"), prefix + names.out, (width, width))
        yield from norm((*block, "norm_mlp"), prefix + names.norm_mlp, width)
        yield from linear((*block, "mlp_in"), prefix + names.mlp_in, (width, size.mlp))
        yield from linear((*block, "mlp_out"), prefix + names.mlp_out, (size.mlp, width))
        if style.layer_scale:
            for own, name in zip(("scale_attention", "scale_mlp"), names.scales, strict=True):
                yield same((*block, own), prefix + name, (width,))
