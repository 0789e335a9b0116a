"""What a checkpoint's model is, what it takes, and the model built from that."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from classact.models import execution, registry, text, transformer, two_tower
from classact.models.variant import Variant
from classact.models.vit import Pool

_MOST_BLOCKS = 1000


@dataclasses.dataclass(frozen=True)
class ImageTower:
    """A vision transformer.

    Attributes:
        size: of its blocks.
        patch_size: in pixels.
        image_size: (height, width) in pixels that its positions are for.
        outputs: classes, or channels of the common space; the width without a head.
        pool: see `vit.ViT`.
        channels: of the images that it was trained on.
        variant: its options, without a size of their own.
    """

    size: transformer.Size
    patch_size: int
    image_size: tuple[int, int]
    outputs: int
    pool: Pool = "cls"
    channels: int = 3
    variant: Variant = dataclasses.field(default_factory=Variant)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def class_token(self) -> bool:
        """Whether it has one."""
        asked = self.variant.class_token
        return self.pool == "cls" if asked is None else asked

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return next((f"vit_{name}" for name, size in transformer.SIZES.items() if size == self.size), "vit")

    @property
    def options(self) -> dict[str, Any]:
        """Its options in the registry: those that are not the defaults, as JSON has them."""
        found: dict[str, Any] = {} if self.pool == "cls" else {"pool": self.pool}
        if self.name == "vit":
            found |= dataclasses.asdict(self.size)
        for field in dataclasses.fields(Variant):
            value = getattr(self.variant, field.name)
            if value != field.default:
                found[field.name] = list(value) if isinstance(value, tuple) else value
        return found


@dataclasses.dataclass(frozen=True)
class TextTower:
    """A text transformer; see `text.TextTransformer` for the fields."""

    size: transformer.Size
    vocab_size: int
    context_length: int
    end_id: int
    causal: bool = True
    pool: str = "end"
    projection_bias: bool = False
    style: transformer.Style = transformer.PAPER


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model of images, or of images and texts.

    Attributes:
        image: its image tower.
        text: its text tower; None: it has none, and the logits are of classes.
        max_scale: see `two_tower.build`.
    """

    image: ImageTower
    text: TextTower | None = None
    max_scale: float = two_tower.MAX_SCALE

    def __post_init__(self) -> None:
        # Descriptions come from elsewhere, and each block takes time and memory before an array is read.
        for tower in (self.image, self.text):
            depth = tower.size.depth if tower is not None else 0
            if isinstance(depth, int) and depth > _MOST_BLOCKS:
                raise ValueError(f"a tower of {depth:,} blocks: expected at most {_MOST_BLOCKS:,}")

    def model(
        self, channels: int | None = None, dtype: str = "float32", remat: bool | str = False
    ) -> registry.Model:
        """Builds it.

        Args:
            channels: of the images that it will be given: its own, or 1 where it has `mean`.
            dtype: of the computation.
            remat: trade time for memory in the backward pass, see `execution.Execution`.

        Raises:
            ValueError: as `registry.create`.
        """
        tower = self.image
        image = registry.create(
            tower.name,
            num_classes=tower.outputs,
            image_shape=(*tower.image_size, channels or tower.channels),
            patch_size=tower.patch_size,
            dtype=dtype,
            remat=remat,
            **tower.options,
        )
        if self.text is None:
            return image
        own = self.text
        texts = text.TextTransformer(
            own.size,
            own.vocab_size,
            own.context_length,
            own.end_id,
            tower.outputs,
            own.causal,
            transformer.DTYPES[dtype],
            execution.of_options({"remat": remat}),
            own.style,
            own.pool,
            own.projection_bias,
        )
        return two_tower.build(image, texts, max_scale=self.max_scale)

    def as_json(self) -> dict[str, Any]:
        """Its description as JSON has it; `from_json` reads it back."""
        found = dataclasses.asdict(self)
        found["max_scale"] = self.max_scale if math.isfinite(self.max_scale) else None
        return found


def from_json(found: Mapping[str, Any]) -> Architecture:
    """Reads what `Architecture.as_json` has given.

    Raises:
        ValueError, TypeError, LookupError: if it is something else.
    """
    image, own = dict(found["image"]), found.get("text")
    image["size"] = transformer.Size(**image["size"])
    image["image_size"] = tuple(image["image_size"])
    image["variant"] = Variant(**image["variant"])
    texts = None
    if own is not None:
        style = transformer.Style(**own["style"])
        texts = TextTower(**{**own, "size": transformer.Size(**own["size"]), "style": style})
    scale = found["max_scale"]
    made = Architecture(ImageTower(**image), texts, math.inf if scale is None else float(scale))
    _check_numbers(made)
    return made


def _check_numbers(made: Architecture) -> None:
    tower, own = made.image, made.text
    numbers: list[Any] = [*dataclasses.astuple(tower.size), tower.patch_size, *tower.image_size]
    numbers += [tower.outputs, tower.channels]
    if own is not None:
        numbers += [*dataclasses.astuple(own.size), own.vocab_size, own.context_length]
    wrong = [number for number in numbers if type(number) is not int or number < 1]
    if wrong:
        raise ValueError(f"{wrong[0]!r} where a whole number of at least 1 is expected")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Which tokenizer a checkpoint's texts need.

    Attributes:
        kind: "clip" (its byte-pair encoding of 49,408 ids), "sentencepiece", "word", "hugging_face"
            or "unknown".
        name: what the checkpoint calls it, or the file beside it; "" if it does not say.
        end_id: what ends a text, and fills it up.
    """

    kind: str
    name: str
    end_id: int


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """What a checkpoint's model takes.

    Attributes:
        image_size: (height, width) in pixels.
        channels: of images.
        mean: of each channel, of pixels from 0 to 1.
        std: likewise.
        interpolation: "bicubic", "bilinear", "lanczos" or "nearest", with which images were resized.
        crop: share of the resized image that was cropped from its centre; 0: the image was
            stretched to the size.
        tokenizer: of its texts; None: it reads none.
        context_length: tokens of a text; 0: it reads none.
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop: float = 1.0
    tokenizer: Tokenizer | None = None
    context_length: int = 0


def input_of(
    architecture: Architecture,
    interpolation: str = "bicubic",
    crop: float = 1.0,
    tokenizer: Tokenizer | None = None,
) -> ModelInput:
    """The input of a model; what the architecture does not say is given."""
    tower, texts = architecture.image, architecture.text
    half = (0.5,) * tower.channels
    return ModelInput(
        tower.image_size,
        tower.channels,
        tower.variant.mean or half,
        tower.variant.std or half,
        interpolation,
        crop,
        tokenizer,
        texts.context_length if texts else 0,
    )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model with its weights.

    Attributes:
        source: the spec that it was read by, or what it is, for messages.
        architecture: its model.
        input: what the model takes.
        variables: {"params", "state"} as `architecture.model()` makes them, float32 numpy arrays.
        class_names: of the outputs, where they are known.
    """

    source: str
    architecture: Architecture
    input: ModelInput
    variables: Mapping[str, Any]
    class_names: tuple[str, ...] | None = None
