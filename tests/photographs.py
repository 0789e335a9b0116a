"""The photographs that scikit-learn ships, as files of some size."""

import functools
import io

import numpy as np
from PIL import Image, ImageOps
from sklearn import datasets


class Encoded:
    """A file in memory."""

    def __init__(self, content):
        self.content = content

    def open(self, mode):
        assert mode == "rb"
        return io.BytesIO(self.content)


@functools.cache
def photograph(number, size):
    """The Summer Palace (0) or a flower (1), scaled and cut to (width, height)."""
    image = Image.fromarray(datasets.load_sample_images().images[number])
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def encoded(image, kind="JPEG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Encoded(content.getvalue())


def fully_decoded(file, mode, size):
    """What Pillow gives that decodes all of a file, turns it and resizes it with its own filter."""
    with Image.open(io.BytesIO(file.content)) as image:
        whole = ImageOps.exif_transpose(image).convert(mode)
    return np.asarray(ImageOps.fit(whole, size, Image.Resampling.BICUBIC)).reshape(size[1], size[0], -1)
