import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from classact.data import image_files, views
from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream


def write(path, value=0, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def write_many(folder, count):
    for i in range(count):
        write(folder / "ab"[i % 2] / f"{i:04d}.png", (i % 256, 0, 0))


def truncate(path):
    """Cuts a PNG file in its pixels, behind a sound header."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:80])


def read_all(source):
    return source.batch(np.arange(source.num_examples))


def write_bomb(path, side=20_000):
    """A PNG file of a few bytes whose header says that it is enormous."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_classes_files_and_ids_are_in_the_order_of_names(tmp_path):
    write(tmp_path / "dog/2.png", (2, 2, 2))
    write(tmp_path / "dog/1.PNG", (1, 1, 1))
    write(tmp_path / "cat/x.jpg", (200, 200, 200))
    write(tmp_path / "cat/y.jpeg", (100, 100, 100))
    (tmp_path / "cat/notes.txt").write_text("ignored")
    (tmp_path / "empty").mkdir()
    write(tmp_path / ".hidden/z.png")
    source = open_source(f"folder:{tmp_path}", "train")
    assert source.class_names == ("cat", "dog")
    assert (source.num_examples, source.num_classes, source.image_shape) == (4, 2, (4, 6, 3))
    assert [str(file) for file in source.files] == [
        f"{tmp_path}/{name}" for name in ("cat/x.jpg", "cat/y.jpeg", "dog/1.PNG", "dog/2.png")
    ]
    assert source.files[3].relative == "dog/2.png"
    assert source.files[3].size() == (tmp_path / "dog/2.png").stat().st_size
    assert source.left_out.lines() == [
        "1 with the ending .txt: cat/notes.txt",
        "1 without an image in it, so no class: empty/",
    ]
    batch = source.batch(np.array([3, 0, 2, 1]))
    assert batch["id"].dtype == np.int64 and batch["label"].dtype == np.int32
    assert batch["id"].tolist() == [3, 0, 2, 1]
    assert batch["label"].tolist() == [1, 0, 1, 0]
    assert batch["image"].dtype == np.uint8
    # JPEG is lossy, but exact on one grey.
    assert batch["image"][:, 0, 0, 0].tolist() == [2, 200, 1, 100]
    assert read_all(open_source(f"folder:{tmp_path}", "eval"))["id"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("LA", (60, 255), [60, 60, 60]),
        ("I;16", 0x8040, [128, 128, 128]),
    ],
)
def test_png_modes_come_as_rgb(tmp_path, mode, value, expected):
    write(tmp_path / "a/x.png", value, mode=mode)
    write(tmp_path / "a/y.png", (1, 2, 3))
    assert read_all(open_source(f"folder:{tmp_path}", "train"))["image"][0, 0, 0].tolist() == expected


def test_palettes_with_transparency_are_laid_on_white(tmp_path):
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a/opaque.png")
    image.save(tmp_path / "a/transparent.png", transparency=1)
    images = read_all(open_source(f"folder:{tmp_path}", "train"))["image"]
    assert images[:, 0, 0].tolist() == [[9, 8, 7], [255, 255, 255]]


def test_grey_images_on_demand(tmp_path):
    write(tmp_path / "a/x.png", (50, 50, 50))
    source = open_source(f"folder:{tmp_path}?channels=1", "train")
    assert source.image_shape == (4, 6, 1)
    assert read_all(source)["image"].tolist() == np.full((1, 4, 6, 1), 50).tolist()


def test_size_scales_the_short_side_and_cuts_the_middle(tmp_path):
    # Thirds of red, green and blue: the middle square is green.
    pixels = np.zeros((30, 90, 3), np.uint8)
    for third in range(3):
        pixels[:, third * 30 : third * 30 + 30, third] = 255
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a/wide.png")
    Image.fromarray(pixels.swapaxes(0, 1)).save(tmp_path / "a/tall.png")
    source = open_source(f"folder:{tmp_path}?size=10", "train")
    assert source.image_shape == (10, 10, 3)
    # Scaling blends the colours along the edge.
    assert (read_all(source)["image"][:, 1:-1, 1:-1] == [0, 255, 0]).all()


def test_photographs_are_turned_as_their_exif_data_says(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was held upright: turn by 90 degrees clockwise.
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a/x.jpg", exif=exif)
    source = open_source(f"folder:{tmp_path}", "train")
    assert source.image_shape == (32, 16, 3)
    image = read_all(source)["image"][0]
    assert image[:15].min() > 200 and image[17:].max() < 50


def test_mixed_shapes_name_both_files(tmp_path):
    write(tmp_path / "a/first.png")
    write(tmp_path / "b/other.png", size=(7, 4))
    with pytest.raises(
        DataError, match=r"b/other\.png \(image 1\) is 7×4 pixels, but .*a/first\.png is 6×4.*size=N"
    ):
        open_source(f"folder:{tmp_path}", "train")
    assert read_all(open_source(f"folder:{tmp_path}?size=4", "train"))["image"].shape == (2, 4, 4, 3)


def test_a_shape_that_changes_after_opening_is_named_when_it_is_read(tmp_path):
    write_many(tmp_path, 4)
    source = open_source(f"folder:{tmp_path}", "train")
    write(tmp_path / "b/0003.png", size=(5, 5))
    with pytest.raises(DataError, match=r"b/0003\.png \(image 3\) is 5×5 pixels"):
        read_all(source)


@pytest.mark.parametrize(
    "damage", [truncate, write_bomb, lambda path: path.write_bytes(b"no image"), lambda path: path.unlink()]
)
def test_a_damaged_image_is_skipped_counted_and_logged_once(tmp_path, caplog, damage):
    write_many(tmp_path, 120)
    source = open_source(f"folder:{tmp_path}", "train")
    damage(tmp_path / "a/0004.png")
    with caplog.at_level(logging.WARNING):
        batch = read_all(source)
        again = read_all(source)
    assert batch["id"].tolist() == again["id"].tolist() == [i for i in range(120) if i != 2]
    assert batch["image"].shape == (119, 4, 6, 3)
    assert batch["label"].tolist() == [0] * 59 + [1] * 60
    assert source.skipped == 1
    assert len(caplog.records) == 1
    assert "a/0004.png (image 2) is damaged and left out" in caplog.text


def test_a_stream_reads_around_a_damaged_image(tmp_path):
    write_many(tmp_path, 120)
    truncate(tmp_path / "a/0004.png")
    stream = IIDStream(open_source(f"folder:{tmp_path}", "train"), 32, seed=0)
    ids = np.concatenate([next(stream)["id"] for _ in range(8)])
    assert len(ids) == 256
    assert set(ids.tolist()) == set(range(120)) - {2}


def test_a_few_damaged_images_never_stop_but_too_many_do_and_name_the_last(tmp_path):
    write_many(tmp_path, 120)
    source = open_source(f"folder:{tmp_path}", "train")
    for name in ("a/0004", "a/0006", "b/0005"):
        truncate(tmp_path / f"{name}.png")
    assert len(read_all(source)["id"]) == 117 and source.skipped == 3
    truncate(tmp_path / "b/0117.png")
    source = open_source(f"folder:{tmp_path}", "train")
    message = r"4 of 120 images are damaged, expected at most 3; .*image 118, .*b/0117\.png: a truncated PNG"
    with pytest.raises(DataError, match=message):
        read_all(source)
    # Garbage shows in the header: it stops the run before it starts.
    for path in tmp_path.glob("a/*2.png"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"4 of 120 images are damaged, .*: text"):
        open_source(f"folder:{tmp_path}", "train")


def test_more_may_be_damaged_if_that_is_said_and_is_counted_by_what_it_is(tmp_path, caplog):
    write_many(tmp_path, 40)
    source = open_source(f"folder:{tmp_path}?damaged=0.2", "train")
    for number, content in ((4, b"%PDF"), (6, b"%PDF"), (8, b"text"), (10, b""), (12, b"%PDF")):
        (tmp_path / "a" / f"{number:04d}.png").write_bytes(content)
    assert len(read_all(source)["id"]) == 35
    assert source.damage == {"PDF": 3, "text": 1, "empty": 1} and source.accepted_damage == 0.2
    assert "(image 6) is damaged and left out: PDF; 5 of 40 so far" in caplog.text
    assert views.Subset(source, np.arange(3)).damage == source.damage
    for number in range(14, 26, 2):
        (tmp_path / "a" / f"{number:04d}.png").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=r"9 of 40 .*at most 20%; .*in all: 7 PDF, 1 text, 1 empty"):
        read_all(source)


def test_of_many_damaged_images_the_first_are_named_and_then_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(image_files, "_NAMED", 3)
    monkeypatch.setattr(image_files, "_COUNTED", 5)
    write_many(tmp_path, 40)
    source = open_source(f"folder:{tmp_path}?damaged=0.9", "train")
    for path in sorted(tmp_path.glob("a/*.png"))[:12]:
        path.write_bytes(b"text")
    with caplog.at_level(logging.WARNING):
        assert [len(read_all(source)["id"]) for _ in range(2)] == [28, 28]
    messages = [record.message for record in caplog.records]
    assert ["is damaged and left out: text" in message for message in messages] == [True] * 3 + [False] * 2
    assert messages[2].endswith("3 of 40 so far; of more only the number is logged")
    assert messages[3:] == [
        f"folder:{tmp_path}: {count} of 40 images are damaged and left out so far" for count in (5, 10)
    ]


class Unlisted(set):
    """A set that is not gone through."""

    def __iter__(self):
        raise AssertionError


def test_images_known_to_be_damaged_are_looked_up_and_not_listed_for_each_batch(tmp_path):
    write_many(tmp_path, 120)
    source = open_source(f"folder:{tmp_path}", "train")
    truncate(tmp_path / "a/0004.png")
    read_all(source)
    source._images._damaged = Unlisted(source._images._damaged)
    assert 2 not in read_all(source)["id"] and source.batch(np.arange(0))["id"].tolist() == []


def test_what_is_found_damaged_when_it_is_opened_is_counted_with_what_it_is(tmp_path):
    write_many(tmp_path, 120)
    (tmp_path / "a/0004.png").write_bytes(b"<!DOCTYPE html><title>404</title>")
    source = open_source(f"folder:{tmp_path}", "train")
    assert source.left_out.lines() == [f"1 damaged, or no image: {tmp_path}/a/0004.png (HTML text)"]


def test_all_images_damaged_is_no_data_set_however_small(tmp_path):
    for name in ("a/x.png", "b/y.png"):
        write(tmp_path / name)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 2 images are damaged, expected at most 1; .*b/y\.png: empty"):
        open_source(f"folder:{tmp_path}", "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?size=0", "size=0, expected a whole number above 0"),
        ("?size=-3", "size=-3"),
        ("?channels=2", "channels=2, expected 1"),
        ("?damaged=1", "damaged=1, expected a share from 0 to below 1"),
        ("?damaged=few", "damaged=few, expected a share"),
        ("?shape=3", "unknown option 'shape'"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    write(tmp_path / "a/x.png")
    with pytest.raises(DataError, match=message):
        open_source(f"folder:{tmp_path}{options}", "train")


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="needs a directory"):
        open_source("folder", "train")
    with pytest.raises(DataError, match=r"none: cannot be listed .No such file"):
        open_source(f"folder:{tmp_path}/none", "train")
    with pytest.raises(
        DataError, match=r"no PNG, .*TIFF files in its 0 directories, expected one directory a class"
    ):
        open_source(f"folder:{tmp_path}", "train")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").mkdir()
    (tmp_path / "a/y.heic").write_bytes(b"x")
    message = r"in its 1 directory, .*; left out: 1 with the ending \.heic: a/y\.heic"
    with pytest.raises(DataError, match=message):
        open_source(f"folder:{tmp_path}", "train")
