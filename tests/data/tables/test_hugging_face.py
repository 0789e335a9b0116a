import sys

import datasets
import numpy as np
import pytest
from PIL import Image
from table_files import NAMES, pixels, read_by_changing_readers

from classact.data.source import DataError
from classact.data.specs import open_source

COUNT = 12


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What the library has written: `one` data set, several `splits`, a folder of `files`."""
    folder = tmp_path_factory.mktemp("hf")
    rows = datasets.Dataset.from_dict(
        {
            "photo": [Image.fromarray(pixels(i)) for i in range(COUNT)],
            "kind": [i % 3 for i in range(COUNT)],
            "captions": [[f"small {i}", f"big {i}"] for i in range(COUNT)],
        },
        features=datasets.Features(
            {
                "photo": datasets.Image(),
                "kind": datasets.ClassLabel(names=list(NAMES)),
                "captions": datasets.List(datasets.Value("string")),
            }
        ),
    )
    rows.save_to_disk(folder / "one")
    parts = {"train": rows.select(range(8)), "test": rows.select([9, 8, 11])}
    datasets.DatasetDict(parts).save_to_disk(folder / "splits")
    for split, numbers in (("train", range(8)), ("validation", range(8, COUNT))):
        for i in numbers:
            path = folder / "files" / split / NAMES[i % 3] / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(i)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder / "cache"))
        # Nothing may be asked of the network.
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield folder


def test_a_saved_data_set_says_what_its_columns_and_labels_are(saved):
    source = open_source(f"hf:{saved}/one?label=kind", "train")
    assert source.class_names == NAMES and source.image_shape == (6, 8, 3) and not source.has_splits
    batch = source.batch(np.array([11, 0, 5]))
    assert batch["label"].tolist() == [2, 0, 2]
    assert (batch["image"] == np.stack([pixels(i) for i in (11, 0, 5)])).all()
    assert source.digest == open_source(f"hf:{saved}/one?label=kind", "eval").digest != ""
    assert source.same_images.tolist() == list(range(COUNT))


def test_a_list_of_captions_makes_as_many_examples(saved):
    source = open_source(f"hf:{saved}/one?caption=captions", "train")
    assert source.num_examples == 2 * COUNT and source.captioned
    assert source.batch(np.array([5]))["caption"].tolist() == ["big 2"]
    with pytest.raises(
        DataError, match=r"labels .kind. and captions .captions.: say \?label=kind or \?caption"
    ):
        open_source(f"hf:{saved}/one", "train")


@pytest.mark.parametrize(("spec", "count"), [("one?caption=captions", 2 * COUNT), ("files", 8)])
def test_an_epoch_has_each_row_once_and_goes_on_with_other_readers(saved, spec, count):
    assert read_by_changing_readers(f"hf:{saved}/{spec}") == dict.fromkeys(range(count), 1)


def test_splits_are_those_of_the_data_set_or_the_one_that_is_said(saved):
    train, held = (open_source(f"hf:{saved}/splits?label=kind", split) for split in ("train", "eval"))
    assert (train.num_examples, held.num_examples) == (8, 3) and train.has_splits and held.has_splits
    assert (held.batch(np.arange(3))["image"] == np.stack([pixels(i) for i in (9, 8, 11)])).all()
    said = [open_source(f"hf:{saved}/splits?split=test&label=kind", split) for split in ("train", "eval")]
    assert [each.num_examples for each in said] == [3, 3] and not said[0].has_splits
    with pytest.raises(DataError, match=r"no split 'val', expected one of train, test"):
        open_source(f"hf:{saved}/splits?split=val", "train")
    with pytest.raises(DataError, match=r"without splits: leave out \?split=train"):
        open_source(f"hf:{saved}/one?split=train", "train")


def test_a_folder_of_images_is_read_from_its_files(saved):
    train, held = (open_source(f"hf:{saved}/files", split) for split in ("train", "eval"))
    assert train.class_names == held.class_names == NAMES and (train.num_examples, held.num_examples) == (
        8,
        4,
    )
    order = [0, 3, 6, 1, 4, 7, 2, 5]
    batch = train.batch(np.arange(8))
    assert (batch["image"] == np.stack([pixels(i) for i in order])).all()
    assert batch["label"].tolist() == [i % 3 for i in order]
    assert train.digest.startswith("files:")
    part = open_source(f"hf:{saved}/files?split=train[:50%]", "train")
    assert part.num_examples == 4


def test_what_is_not_there_is_one_line(saved, monkeypatch):
    with pytest.raises(
        DataError, match=r"^hf:nobody/nothing: ConnectionError: .*; expected a directory .*HF_HUB_OFFLINE"
    ):
        open_source("hf:nobody/nothing", "train")
    (saved / "empty").mkdir()
    with pytest.raises(DataError, match=r"/empty: EmptyDatasetError: .*doesn't contain any data files$"):
        open_source(f"hf:{saved}/empty", "train")
    with pytest.raises(DataError, match=r"needs a name or a directory: hf:NAME_OR_PATH"):
        open_source("hf", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'classact\[hf\]'"):
        open_source(f"hf:{saved}/one", "train")
