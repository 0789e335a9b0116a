import numpy as np
import pytest
from PIL import Image

from classact.data.source import DataError
from classact.data.specs import open_source


def write(path, value, captions=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, 0, 0)).save(path)
    if captions is not None:
        path.with_suffix(".txt").write_text(captions)


def read_all(source):
    return source.batch(np.arange(source.num_examples))


def test_pairs_are_images_with_the_text_of_the_file_beside(tmp_path):
    write(tmp_path / "b.png", 2, "two\nzwei\n")
    write(tmp_path / "a/deep/x.jpg", 200, "one")
    write(tmp_path / "c.PNG", 3, " \n")
    write(tmp_path / "d.png", 4)
    write(tmp_path / ".hidden/e.png", 5, "hidden")
    (tmp_path / "README.txt").write_text("no image")
    source = open_source(f"captioned_folder:{tmp_path}?captions=lines", "train")
    assert source.captioned and source.num_classes == 0 and source.image_shape == (4, 6, 3)
    assert set(source.left_out) == {
        ("with an empty caption", 1, ("c.txt",)),
        ("without a caption", 1, ("d.png",)),
        ("without an image", 1, ("README.txt",)),
    }
    batch = read_all(source)
    assert batch["id"].tolist() == [0, 1, 2]
    assert batch["caption"].tolist() == source.caption_at(np.arange(3)) == ["one", "two", "zwei"]
    assert batch["image"][:, 0, 0, 0].tolist() == [200, 2, 2]
    assert source.image_of.tolist() == [0, 1, 1]
    whole = open_source(f"captioned_folder:{tmp_path}", "train")
    assert whole.caption_at(np.arange(2)) == ["one", "two\nzwei"] and whole.image_of.tolist() == [0, 1]


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
    source = open_source(f"captioned_folder:{tmp_path}?captions=lines", "train")
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
    with pytest.raises(DataError, match=r"no image with a caption \(no PNG, JPEG"):
        open_source(f"captioned_folder:{tmp_path}", "train")
    write(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=r"no image with a caption \(1 without a caption: a\.png\)"):
        open_source(f"captioned_folder:{tmp_path}", "train")


def test_what_links_lead_to_and_sorting_do_not_change_which_caption_an_image_has(tmp_path):
    write(tmp_path / "a/b.c.png", 1, "dotted")
    write(tmp_path / "a/b.png", 2, "plain")
    write(tmp_path / "a-b/b.png", 3, "elsewhere")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/b.png").symlink_to(tmp_path / "a/b.png")
    (tmp_path / "d/b.txt").symlink_to(tmp_path / "a-b/b.txt")
    batch = read_all(open_source(f"captioned_folder:{tmp_path}", "train"))
    found = zip(batch["image"][:, 0, 0, 0].tolist(), batch["caption"].tolist(), strict=True)
    assert sorted(found) == [(1, "dotted"), (2, "elsewhere"), (2, "plain"), (3, "elsewhere")]
