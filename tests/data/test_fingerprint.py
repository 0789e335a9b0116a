"""What tells one data set from another."""

import pathlib

import numpy as np
import pytest

from classact.data import digests, specs
from classact.data.fingerprint import difference, fingerprint, same_contents
from classact.data.noise import with_label_noise
from classact.data.source import ArraySource
from classact.data.tar_members import TarMember
from classact.data.views import Subset

BEFORE = {
    "num_examples": 1200,
    "image_shape": [8, 8, 3],
    "num_classes": 3,
    "captioned": False,
    "digest": "files:1",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"num_examples": 1201}, "1 example more (1,201 instead of 1,200)"),
        ({"num_examples": 7, "digest": "files:2"}, "1,193 examples fewer (7 instead of 1,200)"),
        (
            {"num_classes": 4, "image_shape": [9, 8, 3]},
            "4 classes instead of 3, images of 9×8×3 instead of 8×8×3",
        ),
        ({"captioned": True}, "captions, which were not there"),
        (
            {"digest": "files:2"},
            "the same number of examples, but names or sizes of its files, or captions, or contents, "
            "are others",
        ),
        # Made in another way, or not at all.
        ({"digest": "members:2"}, ""),
        ({"digest": ""}, ""),
    ],
)
def test_a_difference_is_said_in_words(changes, said):
    assert difference(BEFORE, {**BEFORE, **changes}) == said


def test_what_is_not_known_is_no_difference():
    assert difference({}, BEFORE) == difference(BEFORE, {}) == ""
    assert not same_contents({}, {})
    assert not same_contents({"digest": ""}, {"digest": ""})
    assert same_contents(BEFORE, {**BEFORE, "num_classes": 5})


def test_views_have_the_fingerprint_of_their_data_set():
    source = ArraySource("mine", np.zeros((6, 2, 2, 1), np.uint8), np.arange(6) % 2, 2)
    found = fingerprint(source)
    assert fingerprint(with_label_noise(Subset(source, np.arange(3)), 0.5, 0)) == found
    assert found.num_examples == 6
    assert found.described()["image_shape"] == [2, 2, 1]


def test_arrays_are_told_apart_by_contents_types_and_shapes():
    images, labels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2), np.arange(6)
    found = {
        digests.of_arrays(images, labels),
        digests.of_arrays(images[:, ::-1], labels),
        digests.of_arrays(images.reshape(6, 4), labels),
        digests.of_arrays(images, labels + 1),
        digests.of_arrays(images, labels.astype(np.int32)),
    }
    assert len(found) == 5
    assert digests.of_arrays(images[:, ::-1].copy(), labels) in found


def test_of_a_large_array_rows_all_over_count(monkeypatch):
    monkeypatch.setattr(digests, "_ARRAY_BYTES", 100)
    rows = np.zeros((1000, 2), np.uint8)
    plain = digests.of_arrays(rows)
    rows[980] = 1
    assert digests.of_arrays(rows) != plain


def test_names_count_below_the_directory_that_all_share():
    def digest(*names, size=3):
        return digests.of_places([digests.Place(name, 0, size) for name in names])

    here = digest("/disk1/photos/cat/1.png", "/disk1/photos/dog/1.png")
    assert digest("data/cat/1.png", "data/dog/1.png") == here
    assert digest("data/cat/1.png", "data/doe/1.png") != here
    assert digest("data/cat/1.png", "data/dog/1.png", size=4) != here


def test_files_of_equal_names_and_sizes_differ_by_what_is_in_them(tmp_path):
    def digest(split, content):
        (tmp_path / split).mkdir()
        files = [tmp_path / split / f"{number}.bmp" for number in range(3)]
        for file in files:
            file.write_bytes(bytes(54) + content * 9000)
        return digests.of_places(digests.places_of(files))

    here = digest("train", b"a")
    assert digest("test", b"b") != here
    assert digest("copy", b"a") == here


def test_of_shards_their_names_and_members_count():
    def digest(shard, member="a.png", texts=()):
        found = digests.places_of([TarMember(pathlib.Path(shard), member, 512, 3)])
        return digests.of_places(found, texts)

    here = digest("x/one.tar")
    assert digest("elsewhere/one.tar") == here
    others = {digest("x/two.tar"), digest("x/one.tar", "b.png"), digest("x/one.tar", texts=["a cat"])}
    assert len({here, *others}) == 4
    assert here.startswith("members:")


@pytest.mark.parametrize("spec", ["digits", "icons", "icon_pairs", "icon_pairs?subset=clean"])
def test_sources_that_come_along_have_one(spec):
    source = specs.open_source(spec, "eval")
    assert source.has_splits
    assert source.digest
    assert fingerprint(source) == fingerprint(specs.open_source(spec, "eval"))


def test_a_source_is_opened_once_where_that_is_asked_for(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((4, 2, 2), np.uint8), label=np.arange(4))
    spec = f"npz:{tmp_path}/a.npz"
    with specs.opened_once():
        # Both splits of what has one are the same.
        assert specs.open_source(spec, "train") is specs.open_source(spec, "eval")
        assert specs.open_source("digits", "train") is not specs.open_source("digits", "eval")
    assert specs.open_source(spec, "train") is not specs.open_source(spec, "train")
