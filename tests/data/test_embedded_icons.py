import re
import shutil
import time

import numpy as np
import pytest

from classact.data.build_icons import LICENCES, MAX_BYTES, MIN_EVAL, MIN_SETS, MIN_TRAIN
from classact.data.embedded_icons import FOLDER, GROUPS, IconSource, read_index
from classact.data.source import DataError
from classact.data.specs import open_source


@pytest.fixture(scope="module")
def index():
    return read_index()


@pytest.fixture(scope="module")
def sources():
    return {split: open_source("icons", split) for split in ("train", "eval")}


def sets_of(index, split):
    groups = [index[f"{group}/icon_set"] for group in GROUPS if group.startswith(split)]
    return {str(index["icon_sets"][number]) for number in np.concatenate(groups)}


def read_all(source):
    return source.batch(np.arange(source.num_examples))


def licence_rows():
    text = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    row = re.compile(r"\| `(.+?)` \| (.+?) \| (.+?) \| \[?([\w.-]+).*? \| (\d+) \| (train|eval) \|")
    return {match[1]: match for match in map(row.fullmatch, text.splitlines()) if match}


def test_what_is_shipped_is_small_and_holds_no_pickles():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES == 8_000_000
    assert {path.suffix for path in files} == {".webp", ".npz", ".xz", ".md"}


def test_no_icon_set_is_in_both_splits(index):
    train, evaluation = sets_of(index, "train"), sets_of(index, "eval")
    assert not train & evaluation
    assert len(evaluation) >= 10
    assert train | evaluation == set(index["icon_sets"].tolist())


def test_every_set_is_listed_with_a_permissive_licence_and_its_split(index):
    rows = licence_rows()
    assert set(rows) == set(index["icon_sets"].tolist())
    assert {row[4] for row in rows.values()} <= set(LICENCES)
    assert not any(word in licence for licence in LICENCES for word in ("NC", "GPL", "SA", "ND"))
    assert {name for name, row in rows.items() if row[6] == "eval"} == sets_of(index, "eval")
    numbers = np.concatenate([index[f"{group}/icon_set"] for group in GROUPS])
    counts = np.bincount(numbers, minlength=len(index["icon_sets"]))
    assert {name: int(row[5]) for name, row in rows.items()} == dict(
        zip(index["icon_sets"].tolist(), counts.tolist(), strict=True)
    )


def test_split_sizes_and_classes(sources, index):
    train, evaluation = sources["train"], sources["eval"]
    assert train.num_examples >= 20_000
    assert 0.12 < evaluation.num_examples / (train.num_examples + evaluation.num_examples) < 0.16
    assert train.class_names == evaluation.class_names == tuple(index["class_names"].tolist())
    assert len(set(train.class_names)) == train.num_classes
    labels = {split: np.bincount(read_all(source)["label"]) for split, source in sources.items()}
    assert len(labels["train"]) == len(labels["eval"]) == train.num_classes
    assert labels["train"].min() >= MIN_TRAIN
    assert labels["eval"].min() >= MIN_EVAL
    # The most frequent class comes first.
    assert (np.diff(labels["train"] + labels["eval"]) <= 0).all()


def test_classes_are_names_that_many_sets_share(index):
    pairs = {
        (int(label), int(icon_set))
        for group in GROUPS
        for label, icon_set in zip(index[f"{group}/label"], index[f"{group}/icon_set"], strict=True)
    }
    shared = np.bincount([label for label, _ in pairs])
    # Icons equal to another set's were dropped after the names had been chosen.
    assert shared.min() >= MIN_SETS / 2


@pytest.mark.parametrize("split", ["train", "eval"])
def test_images_are_distinct_in_their_class_and_not_blank(sources, split):
    batch = read_all(sources[split])
    images = batch["image"]
    assert images.shape == (sources[split].num_examples, 32, 32, 3) and images.dtype == np.uint8
    assert batch["label"].dtype == np.int32 and batch["id"].dtype == np.int64
    assert (images.min((1, 2, 3)) < images.max((1, 2, 3))).all()
    seen = {(label, image.tobytes()) for label, image in zip(batch["label"].tolist(), images, strict=True)}
    assert len(seen) == len(images)
    assert set(np.unique(images).tolist()) == set(range(0, 256, 17))


def test_no_test_image_was_trained_on_under_its_label(sources):
    train, evaluation = (read_all(sources[split]) for split in ("train", "eval"))
    known = {
        (label, image.tobytes()) for label, image in zip(train["label"].tolist(), train["image"], strict=True)
    }
    assert not any(
        (label, image.tobytes()) in known
        for label, image in zip(evaluation["label"].tolist(), evaluation["image"], strict=True)
    )


def test_ids_are_unique_over_both_splits_and_follow_the_indices(sources):
    train, evaluation = (read_all(sources[split])["id"] for split in ("train", "eval"))
    ids = np.concatenate([train, evaluation])
    assert sorted(ids.tolist()) == list(range(len(ids)))
    # Grey and coloured icons are held apart, and put together in one batch.
    order = np.array([sources["train"].num_examples - 1, 0, sources["train"].num_examples - 2])
    mixed, single = sources["train"].batch(order), sources["train"].batch(order[1:2])
    assert mixed["id"].tolist() == train[order].tolist()
    assert (mixed["image"][1] == single["image"][0]).all()
    assert (mixed["image"][1][..., 0] == mixed["image"][1][..., 2]).all()
    assert (mixed["image"][0][..., 0] != mixed["image"][0][..., 2]).any()


def test_fewer_classes_keep_the_most_frequent_with_their_ids(sources):
    whole, some = read_all(sources["eval"]), open_source("icons?classes=20", "eval")
    assert some.num_classes == 20
    assert some.class_names == sources["eval"].class_names[:20]
    batch = read_all(some)
    kept = whole["label"] < 20
    for field in batch:
        np.testing.assert_array_equal(batch[field], whole[field][kept])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("icons?classes=9999", "classes=9999, expected at most"),
        ("icons?classes=0", "classes=0, expected a whole number above 0"),
        ("icons:here", "takes no argument"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(DataError, match=message):
        open_source(spec, "train")


def test_damaged_files_are_refused_by_name(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "icons")
    sheet = folder / "eval-grey-0.webp"
    whole = sheet.read_bytes()
    sheet.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"eval-grey-0\.webp: cannot be read"):
        IconSource("eval", folder=folder)
    sheet.write_bytes((folder / "eval-colour-0.webp").read_bytes())
    with pytest.raises(DataError, match=r"eval-grey-0\.webp: .* pixels, expected"):
        IconSource("eval", folder=folder)
    sheet.unlink()
    with pytest.raises(DataError, match=r"eval-grey-0\.webp: cannot be read .*No such file"):
        IconSource("eval", folder=folder)
    (folder / "index.npz").unlink()
    with pytest.raises(DataError, match=r"index\.npz: no such file"):
        IconSource("eval", folder=folder)


def test_the_whole_training_split_loads_quickly():
    started = time.process_time()
    open_source("icons", "train")
    # It takes about 1.4 s of one core; CPU time and twice the room, as the machine may be slow or busy.
    assert time.process_time() - started < 3.0
