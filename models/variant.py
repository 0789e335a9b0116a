"""What vision transformers of one size differ in from family to family."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from classact.models import tower_options, transformer

POSITIONS = ("learned", "sincos")
NORMS = ("tokens", "pooled")


@dataclasses.dataclass(frozen=True)
class Variant(tower_options.TowerOptions):
    """Options of a ViT; the defaults are the paper's, and big_vision's but for `class_position`.

    Attributes:
        pre_norm: a LayerNorm before the first block, as in CLIP.
        patch_bias: whether the patches' embedding has a bias.
        class_token: whether there is a class token; None: where it is what is read.
        class_position: whether the class token has a position embedding, too.
        registers: number of learned tokens that nobody reads (Darcet et al., "Vision
            Transformers Need Registers", 2024), between class token and patches, without positions.
        positions: "learned", or "sincos": fixed ones of two axes, as of MoCo v3 and big_vision,
            for the patches alone.
        norm: of which the final LayerNorm is: of the "tokens", or of what was "pooled".
        head: whether there is a linear head; without it the logits are the embedding.
        head_bias: whether the head has a bias.
        mean: of the images' channels, see `images.scale`; empty: pixels become [-1, 1].
        std: likewise.

    Raises:
        ValueError: for a value that is none of these; it names the option.
    """

    pre_norm: bool = False
    patch_bias: bool = True
    class_token: bool | None = None
    class_position: bool = True
    registers: int = 0
    positions: str = "learned"
    norm: str = "tokens"
    head: bool = True
    head_bias: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mean", "std"):
            # Configurations have lists.
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        self._check_counts("registers")
        for name, accepted in (("positions", POSITIONS), ("norm", NORMS)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {accepted}")
        if len(self.mean) != len(self.std) or any(value <= 0 for value in self.std):
            raise ValueError(
                f"mean={self.mean}, std={self.std}: expected a number for each channel, std's above 0"
            )

    def size(self, named: transformer.Size | None) -> transformer.Size:
        """The size of a model: what its name says, but for what the options say.

        Raises:
            ValueError: if neither says it, or the heads do not divide the width.
        """
        found = self.sized(named, "a vit without a size in its name")
        if self.positions == "sincos" and found.width % 4:
            raise ValueError(f"positions='sincos': width={found.width} must be a multiple of 4")
        return found


def from_options(name: str, options: Mapping[str, Any], others: tuple[str, ...]) -> Variant:
    """Reads a model's options.

    Args:
        name: of the model, for messages.
        options: as a configuration has them.
        others: names of options that are not a `Variant`'s, for messages.

    Raises:
        ValueError: for an unknown option or value.
    """
    return Variant.read(f"model {name!r}", options, others)
