import json
import sys

import numpy as np
import photographs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classact.data.augment.augmented import Augmented, FramedSource
from classact.data.captioned_files import CaptionedFiles
from classact.data.captions import Tokenized
from classact.data.decoding import pool
from classact.data.source import ArraySource, DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream
from classact.data.tables.items import ItemSource
from classact.data.tokenizer import load_tokenizer
from classact.data.views import Subset

ALL = ["flip", "crop+flip", "inception", "inception+flip", "resize_small_crop"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of two classes, of several sizes and formats, with a caption each."""
    folder = tmp_path_factory.mktemp("photographs")
    sizes = [(120, 90), (90, 120), (200, 100), (64, 64), (150, 111), (70, 100)]
    for number, size in enumerate(sizes):
        path = folder / "ab"[number % 2] / f"{number}.{'jpg' if number < 4 else 'png'}"
        path.parent.mkdir(exist_ok=True)
        photographs.photograph(number % 2, size).save(path)
        path.with_suffix(".txt").write_text(f"photograph {number}")
    return folder


def arrays(count=12, shape=(8, 8, 3)):
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    return ArraySource("arrays", images, np.arange(count) % 3, 3)


def images_of(source, epoch=0):
    source.begin_epoch(epoch)
    return source.batch(np.arange(source.num_examples))["image"]


@pytest.mark.parametrize("augment", ALL)
def test_an_image_is_the_same_in_the_same_epoch_and_another_in_the_next(folder, augment):
    for opened in (open_source(f"folder:{folder}?size=32", "train"), arrays()):
        first, again = (images_of(Augmented(opened, augment, 0), 3) for _ in range(2))
        assert np.array_equal(first, again)
        if augment != "resize_small_crop" or isinstance(opened, FramedSource):
            assert not np.array_equal(first, images_of(Augmented(opened, augment, 0), 4))
            assert not np.array_equal(first, images_of(Augmented(opened, augment, 1), 3))
        rows = np.array([5, 1])
        seen = Augmented(opened, augment, 0)
        seen.begin_epoch(3)
        batch = seen.batch(rows)
        assert np.array_equal(batch["image"], first[rows]) and batch["id"].tolist() == [5, 1]


def test_every_source_of_encoded_images_cuts_them_alike(folder, tmp_path):
    opened = open_source(f"folder:{folder}?size=32", "train")
    assert all(issubclass(kind, FramedSource) for kind in (type(opened), CaptionedFiles, ItemSource))
    contents = [file.open().read() for file in opened.files]
    path = tmp_path / "photographs.parquet"
    pq.write_table(pa.table({"image": contents, "label": opened.label_of}), path)
    table = open_source(f"parquet:{path}?size=32", "train")
    assert np.array_equal(
        images_of(Augmented(table, "inception", 0), 2), images_of(Augmented(opened, "inception", 0), 2)
    )


def test_none_is_what_is_read_without(folder):
    opened = open_source(f"folder:{folder}?size=32", "train")
    assert np.array_equal(images_of(Augmented(opened, "none", 0)), opened.batch(np.arange(6))["image"])


def test_photographs_are_cut_before_they_are_scaled(folder):
    """Else, of a wide one nothing could come from the left of its middle square."""
    opened = open_source(f"folder:{folder}?size=50", "train")
    number = [str(file).endswith("2.jpg") for file in opened.files].index(True)
    wide = np.asarray(photographs.photograph(0, (200, 100))).astype(float)
    view = Augmented(opened, "resize_small_crop", 0)
    found = []
    for epoch in range(12):
        view.begin_epoch(epoch)
        image = view.batch(np.array([number]))["image"][0].astype(float)
        places = [np.abs(wide[::2, left : left + 100 : 2] - image).mean() for left in range(101)]
        found.append(int(np.argmin(places)))
    assert min(found) < 25 and max(found) > 75 and len(set(found)) > 8


def test_what_is_mirrored_is_mirrored():
    source = arrays(40)
    plain, seen = source.batch(np.arange(40))["image"], images_of(Augmented(source, "flip", 0))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(seen, plain, strict=True)]
    assert all(m or np.array_equal(a, b) for m, a, b in zip(mirrored, seen, plain, strict=True))
    assert 8 < sum(mirrored) < 32


def test_captions_of_one_image_have_crops_of_their_own(folder, tmp_path):
    photographs.photograph(0, (100, 80)).save(tmp_path / "x.jpg")
    (tmp_path / "x.txt").write_text("one\ntwo")
    opened = open_source(f"captioned_folder:{tmp_path}?size=32&captions=lines", "train")
    view = Tokenized(Augmented(opened, "inception", 0), load_tokenizer("icons", 8))
    one, two = view.batch(np.arange(2))["image"]
    assert not np.array_equal(one, two)
    assert np.array_equal(view.batch(np.array([1]))["image"][0], two)


def test_damaged_files_do_not_change_the_crops_of_others(folder, tmp_path):
    for number in range(4):
        (tmp_path / "a").mkdir(exist_ok=True)
        photographs.photograph(0, (90, 70)).save(tmp_path / f"a/{number}.jpg")
    view = Augmented(open_source(f"folder:{tmp_path}?size=32", "train"), "inception", 0)
    before = images_of(view)
    path = tmp_path / "a/1.jpg"
    path.write_bytes(path.read_bytes()[:500])
    batch = view.batch(np.arange(4))
    assert batch["id"].tolist() == [0, 2, 3] and np.array_equal(batch["image"], before[[0, 2, 3]])
    assert view.skipped == 1


def test_a_resumed_stream_draws_the_same_with_any_number_of_threads(folder):
    def stream(cursors=None):
        view = Augmented(open_source(f"folder:{folder}?size=32", "train"), "inception+flip", 5)
        return IIDStream(Subset(view, np.array([4, 0, 1, 5])), 3, 5, cursors=cursors)

    whole = stream()
    for _ in range(4):
        next(whole)
    try:
        pool.use_threads(1)
        resumed = stream([json.loads(json.dumps(whole.cursor))])
        expected = [next(resumed) for _ in range(5)]
        pool.use_threads(3)
        for batch in expected:
            assert np.array_equal(next(whole)["image"], batch["image"])
    finally:
        pool.use_threads(0)


@pytest.fixture
def users(tmp_path, monkeypatch):
    (tmp_path / "my_augmentations.py").write_text(
        "import numpy as np\n\n"
        "def dim(image, rng):\n    return (image * rng.uniform(0.2, 0.8)).astype(np.uint8)\n\n"
        "def wrong(image, rng):\n    return image[:4]\n\n"
        "def fails(image, rng):\n    return image.no_such_thing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_augmentations", None)


def test_a_users_function_comes_last_and_draws_the_same_too(users):
    source = arrays()
    plain = images_of(Augmented(source, "flip", 2), 1).astype(float)
    seen = images_of(Augmented(source, "flip+my_augmentations:dim", 2), 1)
    factors = [np.median(a / np.maximum(b, 1)) for a, b in zip(seen, plain, strict=True)]
    assert len(set(factors)) == 12 and min(factors) > 0.15 and max(factors) < 0.85
    assert np.array_equal(seen, images_of(Augmented(source, "flip+my_augmentations:dim", 2), 1))


def test_what_a_users_function_may_not_give(users):
    with pytest.raises(DataError, match=r"made uint8\[4, 8, 3\] of an image, expected uint8\[8, 8, 3\]"):
        Augmented(arrays(), "my_augmentations:wrong", 0)
    with pytest.raises(DataError, match=r"augment='my_augmentations:fails': .*no_such_thing.*line 10"):
        Augmented(arrays(), "my_augmentations:fails", 0)
