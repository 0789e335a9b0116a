"""What the families share: a checkpoint that was read, one that is to be written, and its fields."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from classact.models import transformer
from classact.weights.architecture import Architecture, Checkpoint
from classact.weights.errors import WeightsError

# What OpenAI's CLIP was trained with, and ImageNet's mean.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
# "random" is timm's: either of two.
INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "nearest", "random")


@dataclasses.dataclass(frozen=True)
class Written:
    """What a checkpoint of another tool consists of.

    Attributes:
        arrays: by name.
        weights: the file that they go to.
        files: objects of JSON, by the name of the file.
        said: texts in the header of the weights' file.
        load: lines of code that load it, for the model card.
    """

    arrays: Mapping[str, np.ndarray]
    weights: str
    files: Mapping[str, Any]
    said: Mapping[str, str]
    load: str


class Fields:
    """An object of a configuration: fields with the defaults of the tool, which it may leave out."""

    def __init__(self, label: str, found: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Reads `found`; `label` is for messages."""
        self._label = label
        self._found = {**defaults, **found}

    def get(self, name: str, default: Any = None) -> Any:
        """A field."""
        return self._found.get(name, default)

    def whole(self, name: str, least: int = 1) -> int:
        """A field that is a whole number.

        Raises:
            WeightsError: if it is something else, or below `least`.
        """
        value = self._found.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(name, f"a whole number of at least {least}")
        return int(value)

    def number(self, name: str) -> float:
        """A field that is a number above 0.

        Raises:
            WeightsError: if it is something else.
        """
        value = self._found.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            self.refuse(name, "a number above 0")
        return float(value)

    def one_of(self, name: str, accepted: Mapping[Any, Any]) -> Any:
        """What a field's value stands for.

        Raises:
            WeightsError: if it is none of `accepted`.
        """
        value = self._found.get(name)
        if not isinstance(value, (str, bool, type(None))) or value not in accepted:
            self.refuse(name, f"one of {', '.join(map(str, accepted))}")
        return accepted[value]

    def group(self, name: str, defaults: Mapping[str, Any]) -> "Fields":
        """A field that is an object itself.

        Raises:
            WeightsError: if it is something else.
        """
        value = self._found.get(name) or {}
        if not isinstance(value, dict):
            self.refuse(name, "an object")
        return Fields(f"{self._label}: {name}", value, defaults)

    def sides(self, name: str) -> tuple[int, int]:
        """A field that is a size in pixels: one number, or height and width."""
        value = self._found.get(name)
        if isinstance(value, (list, tuple)) and len(value) == 2:
            return (self._side(name, value[0]), self._side(name, value[1]))
        return (self._side(name, value), self._side(name, value))

    def _side(self, name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.refuse(name, "a size in pixels")
        return int(value)

    def refuse(self, name: str, accepted: str) -> NoReturn:
        """Raises WeightsError about a field."""
        raise WeightsError(f"{self._label}: {name}={self._found.get(name)!r}: expected {accepted}")

    def forbid(self, **usual: Any) -> None:
        """Refuses what we have no counterpart of: fields that are there and have another value.

        Raises:
            WeightsError: naming the first.
        """
        for name, value in usual.items():
            found = self._found.get(name, value)
            if found != value and (found or value):
                self.refuse(name, f"{value!r}: nothing else is read")


def group(found: Mapping[str, Any], name: str, label: str) -> Mapping[str, Any]:
    """A field that is an object, or is not there; WeightsError if it is something else."""
    value = found.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WeightsError(f"{label}: {name}={value!r}: expected an object")
    return value


def share(value: Any, default: float, label: str) -> float:
    """A number from 0 to 1; WeightsError if it is something else, the default if it is not there."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise WeightsError(f"{label}={value!r}: expected a number from 0 to 1")
    return float(value)


def interpolation(value: Any, label: str) -> str:
    """A way to resize images by its name; bicubic if it is not there.

    Raises:
        WeightsError: if it is none of `INTERPOLATIONS`.
    """
    if value is None:
        return "bicubic"
    if not isinstance(value, str) or value not in INTERPOLATIONS:
        raise WeightsError(f"{label}={value!r}: expected one of {', '.join(INTERPOLATIONS)}")
    return value


def sized(fields: Fields, width: str, depth: str, mlp: int, heads: str) -> transformer.Size:
    """A tower's size by the names of its fields.

    Raises:
        WeightsError: if the heads do not divide the width.
    """
    size = transformer.Size(fields.whole(width), fields.whole(depth), mlp, fields.whole(heads))
    if size.width % size.heads:
        fields.refuse(heads, f"a divisor of {width}={size.width}")
    return size


def per_channel(value: Any, default: tuple[float, ...], label: str) -> tuple[float, ...]:
    """Mean or standard deviation of the channels.

    Raises:
        WeightsError: if they are no numbers.
    """
    if value is None:
        return default
    try:
        found = tuple(float(each) for each in value)
    except (TypeError, ValueError):
        raise WeightsError(f"{label}={value!r}: expected a number for each channel") from None
    if len(found) != len(default):
        raise WeightsError(f"{label}={value!r}: expected {len(default)} numbers, one for each channel")
    return found


def needs(checkpoint: Checkpoint, tool: str, **usual: tuple[Any, Any]) -> None:
    """Refuses to write a model that a tool has no counterpart of.

    Args:
        checkpoint: to write.
        tool: for messages.
        **usual: what the tool has, and what the model has, by the option's name.

    Raises:
        WeightsError: naming all that differ.
    """
    differ = [
        f"{name}={theirs!r} (this has {ours!r})" for name, (theirs, ours) in usual.items() if theirs != ours
    ]
    if differ:
        raise WeightsError(
            f"{checkpoint.source}: {tool} has no such model: it would need {', '.join(differ)}; "
            "--format=safetensors holds every model"
        )


def two_towers(architecture: Architecture) -> bool:
    """Whether it is a model of images and texts."""
    return architecture.text is not None


def no_bias() -> np.ndarray:
    """The bias of similarities of a model that has none."""
    return np.zeros((), np.float32)
