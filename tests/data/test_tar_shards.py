import io
import logging
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream
from classact.data.tar_members import members_of


def png(value, size=(6, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as file:
        for name, content in members:
            content = content.encode() if isinstance(content, str) else content
            header = tarfile.TarInfo(name)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
    return path


def write_pairs(path, count):
    return write_tar(
        path,
        [m for i in range(count) for m in ((f"{i:04d}.png", png(i % 256)), (f"{i:04d}.txt", f"image {i}"))],
    )


def read_all(source):
    return source.batch(np.arange(source.num_examples))


def test_each_caption_of_an_image_is_a_pair(tmp_path):
    # In WebDataset's order by name, the text may come before or after its image.
    write_tar(
        tmp_path / "a.tar",
        [
            ("x/1.txt", "one\n\n  uno  \n"),
            ("x/1.png", png(1)),
            ("x/2.PNG", png(2)),
            ("x/2.TXT", "\ufefftwo\r\n"),
            ("x/2.json", "{}"),
        ],
    )
    write_tar(tmp_path / "b.tar", [("x/1.jpg", png(3)), ("x/1.txt", "three")])
    source = open_source(f"tar:{tmp_path}/*.tar?captions=lines", "train")
    assert source.captioned and source.num_classes == 0
    assert (source.num_examples, source.image_shape) == (4, (4, 6, 3))
    assert source.image_of.tolist() == [0, 0, 1, 2] and source.image_of.dtype == np.int64
    batch = source.batch(np.array([3, 1, 0, 2]))
    assert set(batch) == {"id", "image", "caption"}
    assert batch["id"].tolist() == [3, 1, 0, 2]
    assert batch["caption"].tolist() == ["three", "uno", "one", "two"]
    assert batch["image"].dtype == np.uint8 and batch["image"].shape == (4, 4, 6, 3)
    assert batch["image"][:, 0, 0, 0].tolist() == [3, 1, 1, 2]
    assert source.caption_at(np.array([2, 0])) == ["two", "one"]
    assert read_all(open_source(f"tar:{tmp_path}/b.tar", "eval"))["caption"].tolist() == ["three"]


def test_size_and_channels(tmp_path):
    write_tar(
        tmp_path / "a.tar", [("1.png", png(9)), ("1.txt", "a"), ("2.png", png(9, (8, 8))), ("2.txt", "b")]
    )
    source = open_source(f"tar:{tmp_path}/a.tar?size=5&channels=1", "train")
    assert read_all(source)["image"].shape == (2, 5, 5, 1)
    with pytest.raises(
        DataError, match=r"a\.tar:2\.png \(image 1\) is 8×8 pixels, .*say tar:PATTERN\?size=N"
    ):
        open_source(f"tar:{tmp_path}/a.tar", "train")
    with pytest.raises(DataError, match="'tar': channels=2"):
        open_source(f"tar:{tmp_path}/a.tar?channels=2", "train")


def test_images_without_captions_are_left_out_and_counted(tmp_path):
    members = [
        ("1.png", png(1)),
        ("2.png", png(2)),
        ("2.txt", " \n\t\n"),
        ("3.png", png(3)),
        ("3.txt", "three"),
    ]
    write_tar(tmp_path / "a.tar", [*members, ("4.txt", "no image")])
    source = open_source(f"tar:{tmp_path}/a.tar", "train")
    assert source.skipped == 0
    assert list(source.left_out) == [
        ("without a caption", 1, (f"{tmp_path}/a.tar:1.png",)),
        ("without an image", 1, (f"{tmp_path}/a.tar:4.txt",)),
        ("with an empty caption", 1, (f"{tmp_path}/a.tar:2.txt",)),
    ]
    assert read_all(source)["image"][:, 0, 0, 0].tolist() == [3]
    write_tar(tmp_path / "b.tar", members[:3])
    with pytest.raises(
        DataError, match=r"no image with a caption \(1 without a caption: .*b\.tar:1\.png; 1 with an"
    ):
        open_source(f"tar:{tmp_path}/b.tar", "train")


def test_captions_elsewhere_are_hinted_at(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.png", png(1)), ("1.json", '{"caption": "one"}')])
    with pytest.raises(
        DataError, match=r"1 without a caption: .*; not read, .*: 1 with the ending \.json\): the"
    ):
        open_source(f"tar:{tmp_path}/a.tar", "train")


def test_shards_have_names_of_their_own(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.png", png(1)), ("2.txt", "of another shard")])
    write_tar(tmp_path / "b.tar", [("1.txt", "of another shard"), ("2.png", png(2)), ("2.txt", "two")])
    assert read_all(open_source(f"tar:{tmp_path}/*.tar", "train"))["caption"].tolist() == ["two"]


def test_a_damaged_image_is_skipped_with_all_its_captions(tmp_path, caplog):
    path = tmp_path / "a.tar"
    pairs = [(f"{i}.png", png(i)) for i in range(120)] + [(f"{i}.txt", f"a{i}\nb{i}") for i in range(120)]
    # Damaged behind a sound header.
    pairs[7] = ("7.png", pairs[7][1][:45])
    write_tar(path, pairs)
    source = open_source(f"tar:{path}?captions=lines", "train")
    with caplog.at_level(logging.WARNING):
        batch = source.batch(np.array([13, 14, 15, 16, 14]))
    assert batch["id"].tolist() == [13, 16] and batch["caption"].tolist() == ["b6", "a8"]
    assert source.skipped == 1 and len(caplog.records) == 1
    assert f"{path}:7.png (image 7) is damaged and left out" in caplog.text
    stream = IIDStream(source, 40, seed=0)
    ids = np.concatenate([next(stream)["id"] for _ in range(8)])
    assert set(ids.tolist()) == set(range(240)) - {14, 15}
    for number in (8, 9, 10):
        pairs[number] = (f"{number}.png", b"no image")
    write_tar(path, pairs)
    with pytest.raises(DataError, match=r"4 of 120 images are damaged, expected at most 3; .*a\.tar:"):
        read_all(open_source(f"tar:{path}", "train"))


def test_a_shard_cut_off_after_opening_is_damaged(tmp_path):
    path = write_pairs(tmp_path / "a.tar", 3)
    source = open_source(f"tar:{path}", "train")
    os.truncate(path, 512 + 20)
    with pytest.raises(DataError, match=r"a\.tar:0002\.png: only 0 of \d+ bytes are left"):
        source.batch(np.arange(source.num_examples))


def test_files_that_are_no_tar_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"a\.tar: not a tar file, or damaged at byte 0"):
        open_source(f"tar:{tmp_path}/a.tar", "train")
    path = write_pairs(tmp_path / "b.tar", 2)
    damaged = bytearray(path.read_bytes())
    damaged[1024 + 257] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"b\.tar: not a tar file, or damaged at byte 1024"):
        open_source(f"tar:{path}", "train")


def test_the_oldest_form_has_sums_in_place_of_marks(tmp_path):
    path = write_pairs(tmp_path / "a.tar", 1)
    old = bytearray(path.read_bytes())
    old[257:265] = bytes(8)
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + 8 * 32 + sum(old[156:512]))
    path.write_bytes(old)
    assert open_source(f"tar:{path}", "train").caption_at(np.array([0])) == ["image 0"]
    old[3] ^= 1
    path.write_bytes(old)
    with pytest.raises(DataError, match="damaged at byte 0"):
        list(members_of(path))
