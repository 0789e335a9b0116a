"""What vision transformers of one size differ in from family to family."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from classact.models import transformer

POSITIONS = ("learned", "sincos")
NORMS = ("tokens", "pooled")


@dataclasses.dataclass(frozen=True)
class Variant:
    """Options of a ViT; the defaults are the paper's, and big_vision's but for `class_position`.

    Attributes:
        width: channels of a token; 0, as for the next three: as the model's name says.
        depth: number of blocks.
        mlp: channels of the hidden layer of an MLP.
        heads: number of attention heads.
        activation: see `transformer.Style`, as the next three.
        epsilon: of every LayerNorm.
        qkv_bias: whether queries, keys and values have a bias.
        layer_scale: initial value of the blocks' layer scale; 0: there is none.
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

    width: int = 0
    depth: int = 0
    mlp: int = 0
    heads: int = 0
    activation: str = "gelu_tanh"
    epsilon: float = 1e-6
    qkv_bias: bool = True
    layer_scale: float = 0.0
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
        for name in ("mean", "std"):
            # Configurations have lists.
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        for name in ("width", "depth", "mlp", "heads", "registers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a whole number of at least 0")
        for name, accepted in (("positions", POSITIONS), ("norm", NORMS)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {accepted}")
        if len(self.mean) != len(self.std) or any(value <= 0 for value in self.std):
            raise ValueError(
                f"mean={self.mean}, std={self.std}: expected a number for each channel, std's above 0"
            )
        self.style  # noqa: B018 - its values are checked when it is made.

    @property
    def style(self) -> transformer.Style:
        """Of the blocks."""
        return transformer.Style(self.activation, self.epsilon, self.qkv_bias, self.layer_scale)

    def size(self, named: transformer.Size | None) -> transformer.Size:
        """The size of a model: what its name says, but for what the options say.

        Raises:
            ValueError: if neither says it, or the heads do not divide the width.
        """
        fields = [field.name for field in dataclasses.fields(transformer.Size)]
        own = {name: getattr(self, name) or (getattr(named, name) if named else 0) for name in fields}
        lacks = [name for name, value in own.items() if not value]
        if lacks:
            raise ValueError(f"a vit without a size in its name needs the options {', '.join(lacks)}")
        if own["width"] % own["heads"]:
            raise ValueError(f"heads={own['heads']}: it must divide width={own['width']}")
        if self.positions == "sincos" and own["width"] % 4:
            raise ValueError(f"positions='sincos': width={own['width']} must be a multiple of 4")
        return transformer.Size(**own)


def from_options(name: str, options: Mapping[str, Any], others: tuple[str, ...]) -> Variant:
    """Reads a model's options.

    Args:
        name: of the model, for messages.
        options: as a configuration has them.
        others: names of options that are not a `Variant`'s, for messages.

    Raises:
        ValueError: for an unknown option or value.
    """
    accepted = [*others, *(field.name for field in dataclasses.fields(Variant))]
    for option in options:
        if option not in accepted:
            near = difflib.get_close_matches(option, accepted, n=1)
            hint = f"did you mean {near[0]!r}? Else " if near else ""
            raise ValueError(f"model {name!r} has no option {option!r}: {hint}expected one of {accepted}")
    return Variant(**options)
