"""What users of neighbouring projects have reported of folders of images: one row a trouble."""

import dataclasses
import io
import os
import re
from collections.abc import Mapping
from typing import Optional, Union

import numpy as np
import pytest
from PIL import Image

from classact.data.captions import LabelsAsText, Tokenized
from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream
from classact.data.tokenizer import load_tokenizer

SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6


def image(red, kind="PNG", size=(6, 4), **options):
    """An encoded image of one colour, red in its first channel."""
    content = io.BytesIO()
    Image.new("RGB", size, (red, 0, 0)).save(content, kind, **options)
    return content.getvalue()


def grey(mode, transparent):
    """A PNG of two levels, of which one is transparent, on one line."""
    content = io.BytesIO()
    levels = Image.fromarray(np.array([[1000, 40000]], np.uint16))
    (levels if mode == "I;16" else Image.frombytes(mode, (2, 1), b"\x37\x99")).save(
        content, "PNG", transparency=transparent
    )
    return content.getvalue()


def moving():
    """A GIF of two frames, 10 and then 20."""
    first, second = (Image.new("RGB", (6, 4), (red, 0, 0)) for red in (10, 20))
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=[second])
    return content.getvalue()


@dataclasses.dataclass(frozen=True)
class Link:
    """A symbolic link."""

    to: str


@dataclasses.dataclass(frozen=True)
class Trouble:
    """A folder `X` as people have it, and the right answer.

    Attributes:
        name: what was reported.
        files: contents by path in `X`; None is an empty directory.
        reads: the first channel of each example's first pixel, in order.
        classes: the names of the classes.
        left_out: parts of what is said of what is left out; empty for nothing at all.
        refused: parts of the error.
        kind: of the source.
        shape: of the images.
    """

    name: str
    files: Mapping[str, Union[bytes, Link, None]]
    reads: Optional[list[int]] = None
    classes: Optional[tuple[str, ...]] = None
    left_out: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    kind: str = "folder"
    shape: tuple[int, int, int] = (4, 6, 3)


SOUND = {f"{name}/{i}.png": image(i) for name in ("cat", "dog") for i in range(4)}
DAMAGED = {
    "HTML text": b"<!DOCTYPE html>\n<title>404</title>",
    "empty": b"",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": b"%PDF-1.7\n",
    "gzip": b"\x1f\x8b\x08\0\0",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "a truncated PNG file": image(1)[:30],
    "a truncated JPEG file": image(1, "JPEG")[:100],
    "No such file or directory": Link("elsewhere.png"),
}

TROUBLES = [
    Trouble(
        "pictures in subdirectories of a class are left out",
        {"cat/2019/june/a.png": image(1), "cat/b.png": image(2), "dog/c.png": image(3)},
        reads=[1, 2, 3],
        classes=("cat", "dog"),
    ),
    Trouble(
        "linked directories are not followed, or for ever",
        {
            "cat/a.png": image(1),
            "cat/more": Link("../../store"),
            "../store/b.png": image(2),
            "cat/round": Link("."),
            "cat/up": Link(".."),
            "dog/c.png": image(3),
            "dog/self.png": Link("self.png"),
        },
        reads=[1, 2, 3],
        left_out=("2 directories that are read already", "cat/round, cat/up", "1 damaged", "self.png"),
    ),
    Trouble(
        "linked directories of pairs are not followed",
        {"more": Link("../store"), "../store/b.png": image(2), "../store/b.txt": b"two", "up": Link(".")},
        reads=[2],
        left_out=("1 directories that are read already", "up"),
        kind="captioned_folder",
    ),
    Trouble(
        "what systems and archives leave behind counts as data",
        {
            "cat/a.png": image(1),
            "cat/._a.png": b"\0\x05\x16\x07",
            "cat/.b.png": image(9),
            "dog/c.png": image(3),
            "cat/@eaDir/a.png/THUMB.jpg": image(9, "JPEG"),
            "cat/Thumbs.db": b"x",
            "dog/desktop.ini": b"x",
            "__MACOSX/cat/._a.png": b"\0\x05\x16\x07",
            "@eaDir/a.png": image(9),
            ".git/x.png": image(9),
            ".DS_Store": b"x",
        },
        reads=[1, 3],
        classes=("cat", "dog"),
    ),
    Trouble(
        "a directory without a picture is a class",
        {"cat/a.png": image(1), "bear": None, "dog/c.png": image(3), "eel/notes/a.xml": b"<a/>"},
        reads=[1, 3],
        classes=("cat", "dog"),
        left_out=("2 directories without an image", "bear, eel", "1 with the ending .xml: eel/notes/a.xml"),
    ),
    Trouble(
        "what lies beside pictures and classes is left out in silence",
        {
            "cat/a.heic": b"x",
            "cat/a.png": image(1),
            "dog/c.png": image(3),
            "d.jpg": image(9, "JPEG"),
            "README": b"x",
        },
        reads=[1, 3],
        left_out=(
            "1 with the ending .heic: cat/a.heic",
            "1 images beside the classes' directories: d.jpg",
            "README",
        ),
    ),
    Trouble(
        "splits are taken for classes",
        {"train/a.png": image(1), "test/b.png": image(2)},
        refused=(
            "directories test, train are the splits of a data set",
            "say folder:X/train",
            "X/train/CLASS/",
        ),
    ),
    Trouble(
        "one level too high",
        {
            "Train/cat/a.png": image(1),
            "Train/dog/b.png": image(2),
            "val/cat/c.png": image(3),
            "val/dog/d.png": image(4),
        },
        refused=(
            "Train, val are the splits of a data set",
            "say folder:X/Train, and as eval_data folder:X/val",
        ),
    ),
    Trouble(
        "one directory around all classes",
        {"images/all/cat/a.png": image(1), "images/all/dog/b.png": image(2)},
        refused=("one class, images", "say folder:X/images/all"),
    ),
    Trouble(
        "one directory around the splits",
        {"data/train/cat/a.png": image(1), "data/test/cat/b.png": image(2)},
        refused=("say folder:X/data/train",),
    ),
    Trouble(
        "pictures without a class",
        {"a.png": image(1), "b.png": image(2)},
        refused=("X: 2 images lie right in it, without a class", "X/CLASS/a.png"),
    ),
    Trouble(
        "pictures with captions, without a class",
        {"a.png": image(1), "a.txt": b"a"},
        refused=("for images with captions, captioned_folder:X",),
    ),
    Trouble(
        "test pairs are trained on, one level too high",
        {"train/a.png": image(1), "train/a.txt": b"a", "test/b.png": image(2), "test/b.txt": b"b"},
        refused=("test, train are the splits of a data set", "say captioned_folder:X/train"),
        kind="captioned_folder",
    ),
    Trouble(
        "other formats are left out",
        {
            "cat/a.webp": image(1, "WEBP", lossless=True),
            "cat/b.gif": moving(),
            "cat/c.bmp": image(3, "BMP"),
            "cat/d.tif": image(4, "TIFF"),
            "cat/e.TIFF": image(5, "TIFF", compression="tiff_deflate"),
            "dog/f.png": image(6),
        },
        reads=[1, 10, 3, 4, 5, 6],
    ),
    Trouble(
        "a file whose contents are another format than its name says is damaged",
        {"cat/a.jpg": image(1, "WEBP", lossless=True), "cat/b.png": moving(), "dog/c.png": image(3, "BMP")},
        reads=[1, 10, 3],
    ),
    *(
        Trouble(
            f"a bad file ends a run on a small set, or is named by an address in memory: {what}",
            {**SOUND, "cat/x.png": content},
            reads=[0, 1, 2, 3, 0, 1, 2, 3],
            left_out=("1 damaged", f"X/cat/x.png ({what}"),
        )
        for what, content in DAMAGED.items()
    ),
    Trouble(
        "all of a small set is bad",
        {"cat/a.png": DAMAGED["HTML text"], "dog/b.png": b""},
        refused=("2 of 2 images are damaged", "X/dog/b.png: empty"),
    ),
    *(
        Trouble(
            f"EXIF's orientation counts in JPEG alone: {kind}",
            {"cat/a.png": image(7, kind, exif=SIDEWAYS, **options), "dog/b.png": image(8, size=(4, 6))},
            reads=[7, 8],
            shape=(6, 4, 3),
        )
        for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}))
    ),
    Trouble(
        "grey of 16 bits loses its transparent level",
        {"cat/a.png": grey("I;16", 1000), "dog/b.png": grey("I;16", 40000), "dog/c.png": grey("L", 0x99)},
        reads=[255, 3, 0x37],
        shape=(1, 2, 3),
    ),
]


def build(folder, files):
    for name, content in files.items():
        path = folder / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.to)
        elif content is not None:
            path.write_bytes(content)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_trouble(trouble, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "X").mkdir()
    build(tmp_path / "X", trouble.files)
    if trouble.refused:
        with pytest.raises(DataError) as error:
            open_source(f"{trouble.kind}:X", "train")
        assert "\n" not in str(error.value) and "<_io" not in str(error.value)
        assert all(words in str(error.value) for words in trouble.refused), error.value
        return
    source = open_source(f"{trouble.kind}:X", "train")
    assert source.image_shape == trouble.shape
    if trouble.classes:
        assert source.class_names == trouble.classes
    assert source.batch(np.arange(source.num_examples))["image"][:, 0, 0, 0].tolist() == trouble.reads
    said = "\n".join(source.left_out.lines())
    assert all(words in said for words in trouble.left_out) and bool(said) == bool(trouble.left_out), said
    assert "<_io" not in said


def test_three_bad_images_do_not_end_the_streams_of_a_small_set(tmp_path):
    for i in range(20):
        (tmp_path / f"{i:02d}.png").write_bytes(image(i) if i > 2 else b"")
        (tmp_path / f"{i:02d}.txt").write_text("caption")
    source = open_source(f"captioned_folder:{tmp_path}", "train")
    ids = np.concatenate([next(IIDStream(source, 8, seed, 0, 2))["id"] for seed in range(20)])
    assert set(ids.tolist()) == set(range(3, 20)) and source.skipped == 3


def test_a_class_directory_whose_name_is_no_text(tmp_path):
    """Its images are labelled as any others; of a name that is no words, no captions can be made."""
    for name in (b"caf\xe9", b"tea"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        with open(folder + b"/a.png", "wb") as file:
            file.write(image(1))
    source = open_source(f"folder:{tmp_path}", "train")
    assert source.batch(np.arange(2))["label"].tolist() == [0, 1]
    with pytest.raises(DataError, match=re.escape(r"class name 'caf\xe9': not UTF-8")):
        named = LabelsAsText(source)
        Tokenized(named, load_tokenizer("clip", 16)).batch(np.arange(2))
