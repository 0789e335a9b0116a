"""What towers of one size differ in from family to family, of images and of texts alike."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, Self

from classact.models import transformer

SIZES = tuple(field.name for field in dataclasses.fields(transformer.Size))


@dataclasses.dataclass(frozen=True)
class TowerOptions:
    """Options of a tower's blocks; the defaults are the paper's.

    Attributes:
        width: channels of a token; 0, as for the next three: as the model's name says.
        depth: number of blocks.
        mlp: channels of the hidden layer of an MLP.
        heads: number of attention heads.
        activation: see `transformer.Style`, as the next three.
        epsilon: of every LayerNorm.
        qkv_bias: whether queries, keys and values have a bias.
        layer_scale: initial value of the blocks' layer scale; 0: there is none.

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

    def __post_init__(self) -> None:
        self._check_counts(*SIZES)
        self.style  # noqa: B018 - its values are checked when it is made.

    def _check_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name}={value!r}: expected a whole number of at least 0")

    @property
    def style(self) -> transformer.Style:
        """Of the blocks."""
        return transformer.Style(self.activation, self.epsilon, self.qkv_bias, self.layer_scale)

    def sized(self, named: transformer.Size | None, what: str) -> transformer.Size:
        """The size of a tower: what its name says, but for what its options say.

        Args:
            named: what its name says; None: nothing.
            what: it is, for messages.

        Raises:
            ValueError: if neither says it, or if the heads do not divide the width.
        """
        own = {name: getattr(self, name) or (getattr(named, name) if named else 0) for name in SIZES}
        lacks = [name for name, value in own.items() if not value]
        if lacks:
            raise ValueError(f"{what} needs the options {', '.join(lacks)}")
        if own["width"] % own["heads"]:
            raise ValueError(f"heads={own['heads']}: it must divide width={own['width']}")
        return transformer.Size(**own)

    @classmethod
    def read(cls, what: str, options: Mapping[str, Any], others: tuple[str, ...] = ()) -> Self:
        """Reads a tower's options, as a configuration has them.

        Args:
            what: whose they are, for messages.
            options: by name.
            others: names of options that are not of this kind, for messages.

        Raises:
            ValueError: for an unknown option or value.
        """
        accepted = [*others, *(field.name for field in dataclasses.fields(cls))]
        for option in options:
            if option not in accepted:
                near = difflib.get_close_matches(option, accepted, n=1)
                hint = f"did you mean {near[0]!r}? Else " if near else ""
                raise ValueError(f"{what} has no option {option!r}: {hint}expected one of {accepted}")
        return cls(**options)
