import shutil

import numpy as np
import pytest

from classact.data.build_icons import normalise
from classact.data.captions import class_text
from classact.data.embedded_icons import FOLDER, IconSource, read_index, read_names, write_names
from classact.data.icon_pairs import CLEAN_SETS, IconPairs
from classact.data.source import DataError
from classact.data.specs import open_source

SPLITS = ("train", "eval")


@pytest.fixture(scope="module")
def noisy():
    return {split: open_source("icon_pairs", split) for split in SPLITS}


@pytest.fixture(scope="module")
def clean():
    return {split: open_source("icon_pairs?subset=clean", split) for split in SPLITS}


def captions(source):
    return source.caption_at(np.arange(source.num_examples))


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_are_the_icons_with_their_full_names(noisy, split):
    source, icons = noisy[split], IconSource(split)
    assert source.captioned and source.num_classes == 0 and source.class_names is None
    assert source.num_examples == icons.num_examples
    indices = np.random.default_rng(0).permutation(source.num_examples)[:500]
    batch, expected = source.batch(indices), icons.batch(indices)
    assert set(batch) == {"id", "image", "caption"}
    for field in ("id", "image"):
        np.testing.assert_array_equal(batch[field], expected[field])
    assert batch["caption"].dtype == object
    assert batch["caption"].tolist() == source.caption_at(indices)
    names = read_names()
    assert batch["caption"].tolist() == [class_text(names[icon]) for icon in batch["id"]]
    # The caption says at least what the class does.
    for caption, label in zip(batch["caption"], expected["label"], strict=True):
        assert set(class_text(icons.class_names[label]).split()) <= set(caption.lower().split())


def test_every_name_normalises_to_its_class(noisy):
    for split in SPLITS:
        source = noisy[split]
        names = read_index()["class_names"][source.labels]
        assert [normalise(name) for name in source.full_names] == names.tolist()


def test_each_image_has_one_caption(noisy):
    images = np.concatenate([noisy[split].image_of for split in SPLITS])
    assert sorted(images.tolist()) == list(range(len(images)))
    assert all(caption.strip() for split in SPLITS for caption in captions(noisy[split]))


@pytest.mark.parametrize("split", SPLITS)
def test_the_clean_subset_has_one_icon_a_class_and_set(noisy, clean, split):
    source, whole = clean[split], noisy[split]
    chosen = np.searchsorted(whole.image_of, source.image_of)
    drawings = set(zip(whole.labels[chosen].tolist(), whole.icon_sets[chosen].tolist(), strict=True))
    assert len(drawings) == source.num_examples
    names = read_index()["class_names"][whole.labels[chosen]]
    assert captions(source) == [class_text(str(name)) for name in names]
    length: dict = {}
    for drawing, name in zip(
        zip(whole.labels.tolist(), whole.icon_sets.tolist(), strict=True), whole.full_names, strict=True
    ):
        length[drawing] = min(length.get(drawing, 1000), len(name))
    for index in chosen.tolist():
        assert len(whole.full_names[index]) == length[int(whole.labels[index]), int(whole.icon_sets[index])]


def test_the_clean_subset_s_classes_are_shared_by_many_sets(noisy, clean):
    pairs = {
        (label, icon_set)
        for split in SPLITS
        for label, icon_set in zip(noisy[split].labels, noisy[split].icon_sets, strict=True)
    }
    shared = np.bincount([label for label, _ in pairs])
    names = {class_text(str(name)) for name in read_index()["class_names"][shared >= CLEAN_SETS]}
    assert set(captions(clean["train"])) == set(captions(clean["eval"])) == names
    assert 20_000 < clean["train"].num_examples < noisy["train"].num_examples / 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("icon_pairs:here", "takes no argument"),
        ("icon_pairs?subset=dirty", "subset=dirty, expected noisy or clean"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(DataError, match=message):
        open_source(spec, "train")


def test_damaged_names_are_refused_by_file(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "icons")
    names = folder / "names.txt.xz"
    names.write_bytes(names.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"names\.txt\.xz: cannot be read"):
        IconPairs("eval", folder=folder)
    names.unlink()
    with pytest.raises(DataError, match=r"names\.txt\.xz: cannot be read .*No such file"):
        IconPairs("eval", folder=folder)
    write_names(["one", "two"], folder)
    with pytest.raises(DataError, match="2 names for 73221 icons"):
        IconPairs("eval", folder=folder)
