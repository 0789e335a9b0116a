import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from classact.data.captioned_files import captions_of
from classact.data.source import DataError
from classact.data.specs import open_source


def write(path, value, captions=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, 0, 0)).save(path)
    if captions is not None:
        path.with_suffix(".txt").write_text(captions)


def read_all(source):
    return source.batch(np.arange(source.num_examples))


def test_pairs_are_images_with_the_lines_of_the_file_beside(tmp_path, caplog):
    write(tmp_path / "b.png", 2, "two\nzwei\n")
    write(tmp_path / "a/deep/x.jpg", 200, "one")
    write(tmp_path / "c.PNG", 3, " \n")
    write(tmp_path / "d.png", 4)
    write(tmp_path / ".hidden/e.png", 5, "hidden")
    (tmp_path / "README.txt").write_text("no image")
    with caplog.at_level(logging.WARNING):
        source = open_source(f"captioned_folder:{tmp_path}", "train")
    assert source.captioned and source.num_classes == 0 and source.image_shape == (4, 6, 3)
    assert source.without_caption == 2
    assert "2 of 4 images have no caption" in caplog.text
    batch = read_all(source)
    assert batch["id"].tolist() == [0, 1, 2]
    assert batch["caption"].tolist() == source.caption_at(np.arange(3)) == ["one", "two", "zwei"]
    assert batch["image"][:, 0, 0, 0].tolist() == [200, 2, 2]
    assert source.image_of.tolist() == [0, 1, 1]


def test_options_are_those_of_folder(tmp_path):
    write(tmp_path / "a.png", 1, "a")
    source = open_source(f"captioned_folder:{tmp_path}?size=3&channels=1", "eval")
    assert read_all(source)["image"].shape == (1, 3, 3, 1)
    with pytest.raises(DataError, match="'captioned_folder': size=0"):
        open_source(f"captioned_folder:{tmp_path}?size=0", "train")


def test_a_damaged_image_is_left_out_and_too_many_stop(tmp_path):
    for i in range(100):
        write(tmp_path / f"{i:03d}.png", i, f"a{i}\nb{i}")
    (tmp_path / "004.png").write_bytes((tmp_path / "004.png").read_bytes()[:45])
    source = open_source(f"captioned_folder:{tmp_path}", "train")
    assert source.batch(np.array([7, 8, 9, 10]))["caption"].tolist() == ["b3", "a5"]
    assert source.skipped == 1
    for i in (5, 6, 7):
        (tmp_path / f"{i:03d}.png").unlink()
    with pytest.raises(
        DataError, match=r"4 of 100 images are damaged, expected at most 3; .*007\.png: No such"
    ):
        source.batch(np.arange(10, 16))


def test_folders_without_pairs_are_refused(tmp_path):
    with pytest.raises(DataError, match="needs a directory"):
        open_source("captioned_folder", "train")
    with pytest.raises(DataError, match="none: no such directory"):
        open_source(f"captioned_folder:{tmp_path}/none", "train")
    with pytest.raises(DataError, match="no image with a caption among its 0"):
        open_source(f"captioned_folder:{tmp_path}", "train")
    write(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match="no image with a caption among its 1"):
        open_source(f"captioned_folder:{tmp_path}", "train")


def test_text_that_is_not_utf8_is_read_with_replacements():
    assert captions_of(b"caf\xe9\r\nb") == ["caf\ufffd", "b"]
    assert captions_of("\ufeffa".encode()) == ["a"]


@given(st.text())
def test_captions_are_stripped_and_never_empty(text):
    captions = captions_of(text.encode("utf-8", errors="replace"))
    assert all(caption and caption == caption.strip() and "\n" not in caption for caption in captions)
    assert captions_of("\n".join(captions).encode()) == captions
