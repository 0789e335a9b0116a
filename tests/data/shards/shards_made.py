"""Shards that the tests of this folder make."""

import io
import tarfile

import numpy as np
from PIL import Image


def png(value, size=(6, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in members:
            content = content.encode() if isinstance(content, str) else content
            header = tarfile.TarInfo(name)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
    return path


def write_shard(path, values, ending="cls", text=str):
    """A shard with an image of each red value, and a text of it."""
    return write_tar(
        path, [m for v in values for m in ((f"{v:04d}.png", png(v)), (f"{v:04d}.{ending}", text(v)))]
    )


def read_all(source):
    return source.batch(np.arange(source.num_examples))


def reds(source):
    return read_all(source)["image"][:, 0, 0, 0].tolist()
