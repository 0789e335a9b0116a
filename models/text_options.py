"""What text towers of one size differ in from family to family, and a tower by its name and these."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from classact.models import text, transformer

# The name of a tower that says its size by its options alone.
SIZELESS = "text"
_SIZES = tuple(field.name for field in dataclasses.fields(transformer.Size))


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """Options of a text tower; the defaults are the paper's.

    Attributes:
        width: channels of a token; 0, as for the next three: as the tower's name says.
        depth: number of blocks.
        mlp: channels of the hidden layer of an MLP.
        heads: number of attention heads.
        activation: see `transformer.Style`, as the next three.
        epsilon: of every LayerNorm.
        qkv_bias: whether queries, keys and values have a bias.
        layer_scale: initial value of the blocks' layer scale; 0: there is none.
        pool: see `text.TextTransformer`, as the next one.
        projection_bias: whether the projection has a bias.
        vocab_size: ids that it has embeddings for; 0: those of the tokenizer. Published towers
            often have more than their tokenizer.
        end_id: the token at which a text is read; -1: the tokenizer's.
        max_scale: bound of the similarities' factor, see `two_tower.build`; 0: there is none.

    Raises:
        ValueError: for a value that is none of these; it names the option.
    """

    width: int = 0
    depth: int = 0
    mlp: int = 0
    heads: int = 0
    activation: str = transformer.PAPER.activation
    epsilon: float = transformer.PAPER.epsilon
    qkv_bias: bool = transformer.PAPER.qkv_bias
    layer_scale: float = transformer.PAPER.layer_scale
    pool: str = "end"
    projection_bias: bool = False
    vocab_size: int = 0
    end_id: int = -1
    max_scale: float = 100.0

    def __post_init__(self) -> None:
        for name in (*_SIZES, "vocab_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name}={value!r}: expected a whole number of at least 0")
        if type(self.end_id) is not int or self.end_id < -1:
            raise ValueError(f"end_id={self.end_id!r}: expected a token, or -1")
        if self.pool not in text.POOLS:
            raise ValueError(f"pool={self.pool!r}: expected one of {text.POOLS}")
        if not 0 <= self.max_scale < math.inf:
            raise ValueError(f"max_scale={self.max_scale!r}: expected a number above 0, or 0 (no bound)")
        self.style  # noqa: B018 - its values are checked when it is made.

    @property
    def style(self) -> transformer.Style:
        """Of the blocks."""
        return transformer.Style(self.activation, self.epsilon, self.qkv_bias, self.layer_scale)

    @property
    def scale_bound(self) -> float:
        """`max_scale` as `two_tower.build` takes it."""
        return self.max_scale or math.inf


def from_options(name: str, options: Mapping[str, Any]) -> TextOptions:
    """Reads a tower's options, as a configuration has them.

    Raises:
        ValueError: for an unknown option or value.
    """
    accepted = [field.name for field in dataclasses.fields(TextOptions)]
    for option in options:
        if option not in accepted:
            near = difflib.get_close_matches(option, accepted, n=1)
            hint = f"did you mean {near[0]!r}? Else " if near else ""
            raise ValueError(
                f"text model {name!r} has no option {option!r}: {hint}expected one of {accepted}"
            )
    return TextOptions(**options)


def size(name: str, options: TextOptions) -> transformer.Size:
    """The size of a tower: what its name says, but for what its options say.

    Raises:
        ValueError: for an unknown name, if neither says it, or if the heads do not divide the width.
    """
    named = None if name == SIZELESS else text.size(name)
    own = {field: getattr(options, field) or (getattr(named, field) if named else 0) for field in _SIZES}
    lacks = [field for field, value in own.items() if not value]
    if lacks:
        raise ValueError(f"text model {name!r} needs the options {', '.join(lacks)}")
    if own["width"] % own["heads"]:
        raise ValueError(f"heads={own['heads']}: it must divide width={own['width']}")
    return transformer.Size(**own)
