"""What `augment` may say, and what it makes of an image.

| part | what it does |
|---|---|
| `flip` | exchanges left and right in half of the cases |
| `crop` | moves the window by up to an eighth of each side, over the image's reflection at the border |
| `inception` | a part of 8 % to 100 % of the area, 3:4 to 4:3, scaled to the run's size |
| `resize_small_crop` | the shorter side scaled to the run's size, a square anywhere along the longer one |
| `module:function` | a function of a user's own, on what the others have made |

Parts are joined by `+`: `inception+flip`. At most one of the crops.
"""

import dataclasses
import difflib
import math

import numpy as np

from classact import user_code
from classact.data.augment import draws
from classact.data.decoding.frames import Box, Frame, Size, middle_box

NONE = "none"
CROPS = ("crop", "inception", "resize_small_crop")
ACCEPTED = f"none, or of flip, {', '.join(CROPS)} and module:function some, joined by + (inception+flip)"
# Padding on each side of a crop, as a share of the side: 4 of 32 pixels (He et al., 2016, section 4.2).
_PADDING = 1 / 8
# Of a random part (Szegedy et al., 2015, section 6): its share of the area, and its width to its height.
_LEAST_AREA = 0.08
_ASPECTS = (3 / 4, 4 / 3)
# Random parts that are tried: one that is too wide or too high for the image is none.
_TRIES = 10
# Which of an example's random numbers decide what.
_FLIP, _ACROSS, _DOWN, _FIRST_TRY = 0, 1, 2, 3
_NUMBERS_OF_A_TRY = 4


class AugmentError(ValueError):
    """What `augment` says is not understood; the message says why."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is done with the images of a data set.

    Attributes:
        crop: one of `CROPS`, or empty.
        flip: whether half of them are mirrored.
        functions: of a user's own, `module:function` each, in their order.
    """

    crop: str = ""
    flip: bool = False
    functions: tuple[str, ...] = ()

    def numbers(self, seed: int, epoch: int, ids: np.ndarray) -> np.ndarray:
        """The random numbers float64[N, K] that decide about the examples of an epoch."""
        count = _FIRST_TRY + (_NUMBERS_OF_A_TRY * _TRIES if self.crop == "inception" else 0)
        return draws.uniform(seed, epoch, ids, count)

    def frame(self, numbers: np.ndarray, width: int, height: int, size: Size) -> Frame:
        """What is shown of an image.

        Args:
            numbers: float64[K], a row of `numbers`.
            width: of the upright image.
            height: the same.
            size: of the result.
        """
        box = middle_box(width, height, size)
        if self.crop == "inception":
            box = _random_part(numbers[_FIRST_TRY:], width, height, size, box)
        elif self.crop == "resize_small_crop":
            box = _along(box, numbers)
        return Frame(box, size, self.flips(numbers), self.shift(numbers, size))

    def flips(self, numbers: np.ndarray) -> bool:
        """Whether an image is mirrored."""
        return self.flip and bool(numbers[_FLIP] < 0.5)

    def shift(self, numbers: np.ndarray, size: Size) -> tuple[int, int]:
        """How far the window moves, right and down, in pixels."""
        if self.crop != "crop":
            return 0, 0
        most = [min(round(side * _PADDING), side - 1) for side in size]
        across, down = (
            int(number * (2 * pixels + 1)) - pixels
            for number, pixels in zip(numbers[[_ACROSS, _DOWN]], most, strict=True)
        )
        return across, down


def parse(text: str) -> Recipe:
    """Reads what a configuration says; imports a user's module.

    Raises:
        AugmentError: for a part that there is not, or that is there twice, or a function
            that is not found.
    """
    if text == NONE:
        return Recipe()
    crop, flip, functions = "", False, []
    for part in text.split("+"):
        if part in CROPS:
            if crop:
                raise AugmentError(f"it has two crops, {crop} and {part}")
            crop = part
        elif part == "flip":
            if flip:
                raise AugmentError("it has flip twice")
            flip = True
        elif user_code.is_name(part):
            _function(part)
            functions.append(part)
        else:
            near = difflib.get_close_matches(part, (*CROPS, "flip"), n=1)
            raise AugmentError(f"there is no {part!r}" + (f", did you mean {near[0]}?" if near else ""))
    return Recipe(crop, flip, tuple(functions))


def _function(name: str) -> None:
    try:
        found = user_code.find("augmentation", name)
    except user_code.UserCodeError as error:
        raise AugmentError(str(error)) from None
    if not callable(found):
        raise AugmentError(f"{name} is no function, but a {type(found).__name__}")


def _random_part(numbers: np.ndarray, width: int, height: int, size: Size, middle: Box) -> Box:
    """A random part, as GoogLeNet was trained; the middle if none of the tries fits."""
    lowest, highest = map(math.log, _ASPECTS)
    for area, aspect, across, down in numbers.reshape(-1, _NUMBERS_OF_A_TRY):
        pixels = width * height * (_LEAST_AREA + area * (1 - _LEAST_AREA))
        # Of a result that is no square it is the distortion.
        ratio = math.exp(lowest + aspect * (highest - lowest)) * size[0] / size[1]
        wide, high = math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)
        if wide <= width and high <= height:
            left, top = across * (width - wide), down * (height - high)
            return left, top, left + wide, top + high
    return middle


def _along(box: Box, numbers: np.ndarray) -> Box:
    """The box in the middle, moved along the side on which there is room."""
    left, top, right, bottom = box
    x, y = 2 * left * numbers[_ACROSS], 2 * top * numbers[_DOWN]
    return x, y, x + right - left, y + bottom - top
