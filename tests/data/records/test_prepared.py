"""Data sets as TensorFlow Datasets has written them; see `write_prepared`."""

import json
import shutil

import numpy as np
import pytest

from classact.data.records.framing import TFRecords
from classact.data.source import DataError
from classact.data.specs import open_source

FORMATS = ("tfrecord", "array_record")
NAMES = ("ant", "bee", "cow")


def changed(place, **fields):
    """Writes other values into a data set's `dataset_info.json`."""
    path = place / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def insects(written, tmp_path):
    """A directory of data sets of one's own, with a data set whose files may be changed."""
    return shutil.copytree(written / "tfrecord" / "insects", tmp_path / "data" / "insects") / "1.0.0"


@pytest.mark.parametrize("kind", FORMATS)
def test_labels_images_classes_and_splits_are_those_of_the_data_set(written, number_of, kind):
    spec = f"tfds:insects?folder={written}/{kind}"
    for split, expected in (("train", range(40)), ("eval", range(40, 48))):
        source = open_source(spec, split)
        batch = source.batch(np.arange(source.num_examples))
        numbers = [number_of(image) for image in batch["image"]]
        assert sorted(numbers) == list(expected) and source.has_splits
        assert batch["label"].tolist() == [i % 3 for i in numbers]
        assert source.class_names == NAMES and source.image_shape == (6, 8, 3)
        assert source.left_out.lines() == []
    both = [open_source(f"{spec}&split=test", split).num_examples for split in ("train", "eval")]
    assert both == [8, 8] and not open_source(f"{spec}&split=test", "eval").has_splits


@pytest.mark.parametrize("kind", FORMATS)
def test_several_captions_of_an_image_are_as_many_examples(written, number_of, kind):
    source = open_source(f"tfds:pairs:long?folder={written}/{kind}", "train")
    batch = source.batch(np.arange(80))
    size = [("small", "big")[i % 2] for i in range(80)]
    expected = [f"{size[i]} {number_of(image)}" for i, image in enumerate(batch["image"])]
    assert batch["caption"].tolist() == expected and len(set(expected)) == 80
    assert source.image_of.tolist() == [i // 2 for i in range(80)]


def test_both_formats_of_one_data_set_are_the_same_data(written):
    digests = {open_source(f"tfds:insects?folder={written}/{kind}", "train").digest for kind in FORMATS}
    assert len(digests) == 1 and digests.pop().startswith("rows:")


def test_a_data_set_is_found_by_its_directory_its_version_or_its_name(insects, monkeypatch, tmp_path):
    shutil.copytree(insects, insects.with_name("1.10.0"))
    shutil.copytree(insects, insects.with_name("1.9.0"))
    (insects.with_name("1.10.0") / "label.labels.txt").write_text("a\nb\nc\n")
    for place in (insects.parent, insects.with_name("1.10.0")):
        assert open_source(f"tfds:{place}", "train").class_names == ("a", "b", "c")
    assert open_source(f"tfds:{insects}", "train").class_names == NAMES
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    # A directory that happens to have that name is another thing.
    (tmp_path / "insects").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_source("tfds:insects", "train").class_names == ("a", "b", "c")
    assert open_source("tfds:insects:1.9.0", "train").class_names == NAMES


def test_classes_without_names_are_counted_as_the_data_set_says(insects):
    (insects / "label.labels.txt").unlink()
    path = insects / "features.json"
    path.write_text(path.read_text().replace('"numClasses": "3"', '"numClasses": "5"'))
    source = open_source(f"tfds:{insects}", "train")
    assert source.num_classes == 5 and source.class_names is None
    assert open_source(f"tfds:{insects}?classes=4", "train").num_classes == 4
    # Old versions have written no features at all.
    path.unlink()
    assert open_source(f"tfds:{insects}", "train").num_classes == 3


def test_names_of_shards_follow_the_template(insects):
    info = json.loads((insects / "dataset_info.json").read_text())
    for split in info["splits"]:
        for number in range(2):
            old = insects / f"insects-{split['name']}.tfrecord-{number:05d}-of-00002"
            old.rename(insects / f"{split['name']}_{number:05d}_00002.tfrecord")
        split["filepathTemplate"] = "{SPLIT}_{SHARD_INDEX}_{NUM_SHARDS}.{FILEFORMAT}"
    changed(insects, splits=info["splits"])
    assert open_source(f"tfds:{insects}", "train").num_examples == 40


def test_a_split_without_examples_is_none(insects):
    splits = json.loads((insects / "dataset_info.json").read_text())["splits"]
    changed(insects, splits=[*splits, {"name": "validation", "shardLengths": []}])
    assert [open_source(f"tfds:{insects}", split).num_examples for split in ("train", "eval")] == [40, 8]


def test_records_that_the_data_set_counts_but_that_are_not_there_are_damaged(insects):
    shard = insects / "insects-train.tfrecord-00001-of-00002"
    records = list(TFRecords().scan(str(shard)))
    shard.write_bytes(shard.read_bytes()[: records[12].place - 12])
    message = rf"{len(records) - 12} of 40 records are damaged, expected at most 3: .* it is not there"
    with pytest.raises(DataError, match=message):
        open_source(f"tfds:{insects}", "train")
    source = open_source(f"tfds:{insects}?damaged=0.5", "train")
    assert source.num_examples == 52 - len(records)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfds", "data source 'tfds' needs a name or a directory: tfds:NAME"),
        ("tfds:birds?folder=data", "no prepared data set of this name in data, which has insects; ?folder"),
        ("tfds:birds?folder=nowhere", "in nowhere, which does not exist; ?folder=DIR names another place"),
        ("tfds:insects:big?folder=data", "in data/insects, which has 1.0.0; ?folder"),
        ("tfds:insects?folder=data&split=val", "no split 'val', expected one of train, test"),
        ("tfds:data/insects?label=labl", "no column 'labl' for ?label=; did you mean label?"),
        ("tfds:data/insects?classes=2", "the label 2, expected 0 to 1 of classes=2"),
        ("tfds:data", "data: no dataset_info.json there, nor in a version"),
    ],
)
def test_what_is_not_there_is_one_line(insects, monkeypatch, tmp_path, spec, message):
    monkeypatch.chdir(tmp_path)
    if spec == "tfds:data":
        shutil.move("data/insects/1.0.0/insects-test.tfrecord-00000-of-00002", "data")
        shutil.rmtree("data/insects")
    with pytest.raises(DataError) as raised:
        open_source(spec, "train")
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fileFormat": "riegeli"}, "prepared as riegeli, expected tfrecord or array_record"),
        ({"splits": []}, "dataset_info.json: it has no split with examples"),
        ({"splits": [{"name": "train", "shardLengths": ["x"]}]}, "described in another way than TFDS does"),
        ({"name": "bees"}, "bees-train.tfrecord-00000-of-00002: no such file, though dataset_info.json says"),
    ],
)
def test_a_description_that_cannot_be_followed_is_refused(insects, change, message):
    changed(insects, **change)
    with pytest.raises(DataError, match=message):
        open_source(f"tfds:{insects}", "train")


def test_several_configurations_leave_a_choice_and_damaged_descriptions_are_named(written, insects):
    with pytest.raises(DataError, match=r"say tfds:NAME:CONFIG with one of long, short"):
        open_source(f"tfds:pairs?folder={written}/tfrecord", "train")
    (insects / "features.json").write_text("{")
    with pytest.raises(DataError, match=r"features.json: no JSON"):
        open_source(f"tfds:{insects}", "train")
    (insects / "dataset_info.json").write_text("[]")
    with pytest.raises(DataError, match=r"dataset_info.json: expected an object"):
        open_source(f"tfds:{insects}", "train")
