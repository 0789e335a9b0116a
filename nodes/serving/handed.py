"""From a sampled sub-batch to what a trainer is handed."""

import dataclasses
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from classact.client.protocol import Values
from classact.data.carried.kinds import ENCODED, PIXELS
from classact.nodes.batches import Sampled


@dataclasses.dataclass(frozen=True)
class Handing:
    """What is handed on of a data set.

    Attributes:
        images: of `kinds.IMAGES`: what the replay carries.
        temperature: of the softmax by which examples were drawn; None: they were not scored.
        captions: gives the texts of tokens int32[n, L]; None: there are none.
    """

    images: str
    temperature: float | None = None
    captions: Callable[[np.ndarray], list[str]] | None = None

    def __call__(self, sampled: Sampled) -> dict[str, Values]:
        """The fields of a sub-batch; copies from the devices, and blocks for the time that it takes."""
        found: dict[str, Values] = {"id": sampled.ids}
        if sampled.labels is not None:
            found["label"] = sampled.labels
        if "text" in sampled.batch:
            found["text"] = np.asarray(sampled.batch["text"])
            if self.captions is not None:
                found["caption"] = self.captions(np.asarray(sampled.batch["text"]))
        weight = np.ones(len(sampled.ids), np.float32)
        if self.temperature is not None and sampled.scores is not None:
            found["score"] = sampled.scores
            weight = importance_weights(sampled.scores, self.temperature)
        found["weight"] = weight
        if self.images == PIXELS:
            found["image"] = np.asarray(sampled.batch["image"])
        elif self.images == ENCODED:
            found["encoded"] = _files(sampled)
        return found


def importance_weights(scores: np.ndarray, temperature: float) -> np.ndarray:
    """1/(B · p) of examples that were drawn with p in proportion to exp(score / temperature).

    The sum in p is over a super-batch of B that nobody holds any more. It is estimated by the
    sub-batch itself: E_p[1/(B · p)] = 1, so that weights with a mean of 1 are self-normalised importance
    weights (e.g. Owen, Monte Carlo theory, 9.2).

    Args:
        scores: float32[b].
        temperature: above 0.

    Returns:
        float32[b], above 0 (or rounded to 0), with a mean of 1.
    """
    exponents = -scores.astype(np.float64) / temperature
    weights = np.exp(exponents - exponents.max())
    return (weights / weights.mean()).astype(np.float32)


def _files(sampled: Sampled) -> list[bytes]:
    """The image files; a PNG of the pixels where these are carried, as they take less."""
    if sampled.files is None:
        raise ValueError("sub-batches without files: they were not kept when they were opened")
    images = None
    found = list(sampled.files)
    for row, content in enumerate(found):
        if not content:
            images = np.asarray(sampled.batch["image"]) if images is None else images
            found[row] = _png(images[row])
    return found


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG", compress_level=1)
    return file.getvalue()
