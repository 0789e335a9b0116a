"""What text towers of one size differ in from family to family, and a tower by its name and these."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from classact.models import text, tower_options, transformer

# The name of a tower that says its size by its options alone.
SIZELESS = "text"


@dataclasses.dataclass(frozen=True)
class TextOptions(tower_options.TowerOptions):
    """Options of a text tower; the defaults are the paper's.

    Attributes:
        pool: see `text.TextTransformer`, as the next one.
        projection_bias: whether the projection has a bias.
        vocab_size: ids that it has embeddings for; 0: those of the tokenizer. Published towers
            often have more than their tokenizer.
        end_id: the token at which a text is read; -1: the tokenizer's.
        max_scale: bound of the similarities' factor, see `two_tower.build`; 0: there is none.

    Raises:
        ValueError: for a value that is none of these; it names the option.
    """

    pool: str = "end"
    projection_bias: bool = False
    vocab_size: int = 0
    end_id: int = -1
    max_scale: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("vocab_size")
        if type(self.end_id) is not int or self.end_id < -1:
            raise ValueError(f"end_id={self.end_id!r}: expected a token, or -1")
        if self.pool not in text.POOLS:
            raise ValueError(f"pool={self.pool!r}: expected one of {text.POOLS}")
        if not 0 <= self.max_scale < math.inf:
            raise ValueError(f"max_scale={self.max_scale!r}: expected a number above 0, or 0 (no bound)")

    @property
    def scale_bound(self) -> float:
        """`max_scale` as `two_tower.build` takes it."""
        return self.max_scale or math.inf


def from_options(name: str, options: Mapping[str, Any]) -> TextOptions:
    """Reads a tower's options, as a configuration has them.

    Raises:
        ValueError: for an unknown option or value.
    """
    return TextOptions.read(f"text model {name!r}", options)


def size(name: str, options: TextOptions) -> transformer.Size:
    """The size of a tower: what its name says, but for what its options say.

    Raises:
        ValueError: for an unknown name, if neither says it, or if the heads do not divide the width.
    """
    return options.sized(None if name == SIZELESS else text.size(name), f"text model {name!r}")
