import io
import shutil

import msgpack
import numpy as np
import pytest
import record_files
import table_files
from PIL import Image
from record_files import example, labelled
from table_files import pixels, png

from classact.data.eval_split import eval_indices
from classact.data.records.framing import TFRecords
from classact.data.records.table import RecordTable
from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream
from classact.data.tables.options import table_options

IMAGES = [png(pixels(i)) for i in range(8)]


@pytest.fixture(scope="module")
def records(tmp_path_factory, written):
    """A directory of records: maps of msgpack, and what TensorFlow's tools have written."""
    folder = tmp_path_factory.mktemp("records")
    maps = [
        msgpack.packb({"jpg": png(pixels(i)), "texts": [f"small {i}", f" big {i} ", ""]}) for i in range(40)
    ]
    for part in range(2):
        record_files.write_arrayrecords(folder / f"maps-{part}.arrayrecord", maps[20 * part : 20 * part + 20])
    shutil.copytree(written / "bare", folder / "bare")
    shutil.copytree(written, folder / "tfds")
    return folder


LABELLED = (
    "tfrecord:{}/bare",
    "tfrecord:{}/tfds/tfrecord/insects/1.0.0/insects-train*",
    "arrayrecord:{}/tfds/array_record/insects/1.0.0/insects-train*",
    "tfds:insects?folder={}/tfds/array_record",
)
PAIRS = ("arrayrecord:{}/maps-*.arrayrecord", "tfds:pairs:long?folder={}/tfds/tfrecord")


@pytest.mark.parametrize("spec", [*LABELLED, *PAIRS])
def test_an_epoch_has_each_example_once_and_goes_on_with_other_readers(records, spec):
    count = 80 if spec in PAIRS else 40
    assert table_files.read_by_changing_readers(spec.format(records)) == dict.fromkeys(range(count), 1)


@pytest.mark.parametrize("spec", LABELLED)
def test_labelled_records_are_read_in_any_order(records, number_of, spec):
    source = open_source(spec.format(records), "train")
    assert (source.num_examples, source.num_classes, source.image_shape) == (40, 3, (6, 8, 3))
    indices = np.array([39, 0, 21, 19, 20, 0])
    batch = source.batch(indices)
    assert batch["id"].tolist() == indices.tolist() and batch["label"].dtype == np.int32
    assert batch["label"].tolist() == [number_of(image) % 3 for image in batch["image"]]
    assert (batch["image"][1] == batch["image"][5]).all() and (batch["image"][0] != batch["image"][1]).any()
    assert len({number_of(image) for image in source.batch(np.arange(40))["image"]}) == 40


def test_a_table_gives_images_in_the_order_in_which_rows_are_asked_for(records, written):
    paths = TFRecords().files(f"{written}/bare")
    table = RecordTable(TFRecords(), paths, table_options("tfrecord"))
    rows = [39, 0, 21, 5, 0, 20]
    decoded = [np.asarray(Image.open(io.BytesIO(each))) for each in table.images("image/encoded", rows)]
    assert (np.stack(decoded) == np.stack([pixels(i) for i in rows])).all()
    place = list(TFRecords().scan(paths[1]))[1].place
    assert table.row_name(21) == f"{paths[1]}, the record at byte {place}"


def test_each_caption_of_an_image_is_an_example(records):
    source = open_source(PAIRS[0].format(records), "eval")
    assert source.captioned and source.num_examples == 80 and not source.has_splits
    batch = source.batch(np.array([3, 78]))
    assert batch["caption"].tolist() == ["big 1", "small 39"]
    assert (batch["image"] == np.stack([pixels(1), pixels(39)])).all()
    assert source.image_of.tolist() == [i // 2 for i in range(80)]
    assert source.left_out.lines()[0].startswith("40 with an empty caption: ")
    held = eval_indices(source, 0.1, 0)
    assert len(held) == 8 and set(held // 2 * 2) | set(held // 2 * 2 + 1) == set(held)


@pytest.mark.parametrize("spec", [*LABELLED, *PAIRS])
def test_a_digest_is_of_what_is_in_the_records(records, tmp_path, spec):
    there = shutil.copytree(records, tmp_path / "elsewhere")
    here, other = (open_source(spec.format(place), "train") for place in (records, there))
    assert here.digest == other.digest != ""


def test_a_digest_changes_with_a_label_or_an_image_and_copies_are_found(tmp_path):
    path = tmp_path / "x.tfrecord"

    def opened(images, labels):
        record_files.write_tfrecords(
            path, [example(image=image, label=label) for image, label in zip(images, labels, strict=True)]
        )
        return open_source(f"tfrecord:{path}", "train")

    source = opened(IMAGES[:4] * 2, [0, 1] * 4)
    assert source.same_images.tolist() == [0, 1, 2, 3] * 2
    digests = {source.digest, opened(IMAGES[:4] * 2, [1, 0] * 4).digest, opened(IMAGES, [0, 1] * 4).digest}
    assert len(digests) == 3


def test_damaged_records_and_images_are_left_out_and_counted(tmp_path):
    path = tmp_path / "x.tfrecord"
    examples = labelled(40)
    examples[4] = example(image=b"<html>404</html>", label=0)
    examples[5] = example(label=1)
    examples[6] = example(image=IMAGES[:2], label=0)
    examples[7] = example(image=IMAGES[7])
    examples[8] = example(image=IMAGES[0], label=[1, 2])
    examples[9] = example(image=IMAGES[1], label=b"\xff")
    record_files.write_tfrecords(path, examples)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    source = open_source(f"tfrecord:{path}?damaged=0.2", "train")
    lines = source.left_out.lines()
    assert any(
        line.startswith(f"1 damaged, as a record whose checksum does not fit: {path}") for line in lines
    )
    assert any("it has several values of label, expected one" in line for line in lines)
    assert any("its label is no text in UTF-8" in line for line in lines)
    assert any(line.startswith("1 without a label: ") for line in lines)
    # Of the images that are left, those at 4 to 6 are damaged.
    batch = source.batch(np.arange(source.num_examples))
    left = [i for i in range(39) if not 4 <= i <= 9]
    assert (batch["image"] == np.stack([pixels(i) for i in left])).all()
    assert source.damage == {"HTML text": 1, "no image in the record": 1, "several images in the record": 1}
    ids = {i for _ in range(4) for i in next(IIDStream(source, 33, 0))["id"].tolist()}
    assert len(ids) == 33
    with pytest.raises(
        DataError, match=r"2 of 40 records are damaged, expected at most 0: .*\?damaged=SHARE"
    ):
        examples[8] = labelled(1)[0]
        record_files.write_tfrecords(path, [*examples[:39], b"nonsense"])
        open_source(f"tfrecord:{path}?damaged=0", "train")


def test_a_record_that_is_damaged_later_is_left_out_when_it_is_read(tmp_path):
    path = tmp_path / "x.tfrecord"
    record_files.write_tfrecords(path, labelled(40))
    source = open_source(f"tfrecord:{path}", "train")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert source.batch(np.arange(40))["id"].tolist() == list(range(1, 40))
    assert source.damage == {"a record whose checksum does not fit": 1}


def test_images_of_mixed_sizes_and_kinds_come_as_one_shape(tmp_path):
    kinds = [Image.new(mode, size) for mode in ("L", "RGB", "RGBA", "P") for size in ((6, 9), (30, 20))]
    path = tmp_path / "x.tfrecord"
    record_files.write_tfrecords(path, [example(img=png(image), label=[b"one"]) for image in kinds])
    with pytest.raises(
        DataError, match=r"at byte \d+ .image 1. is 30×20 pixels, .* say tfrecord:PATTERN\?size=N"
    ):
        open_source(f"tfrecord:{path}", "train")
    source = open_source(f"tfrecord:{path}?size=5&channels=1", "train")
    assert source.batch(np.arange(8))["image"].shape == (8, 5, 5, 1)
    assert source.class_names == ("one",) and source.num_classes == 1


CASES = [
    ("tfrecord", [], "data source 'tfrecord' needs a file: tfrecord:PATTERN"),
    ("tfrecord:y.tfrecord", [], "y.tfrecord: no such file; expected a file, a directory or a pattern"),
    ("arrayrecord:.", [], "no file *.array_record in this directory"),
    ("tfrecord:x.tfrecord", [], "x.tfrecord: no records"),
    ("tfrecord:x.tfrecord", [b"\xff\xd8\xff"], "x.tfrecord: the first records: no tf.train.Example and no"),
    ("tfrecord:x.tfrecord", [b"\x80\x04N."], "x.tfrecord: the first records: a pickle, and neither"),
    ("tfrecord:x.tfrecord?image=jpg", labelled(2), "x.tfrecord: no column 'jpg' for ?image="),
    ("tfrecord:x.tfrecord?caption=label", labelled(9), "9 of 9 records are damaged, expected at most 3: 9 "),
    (
        "tfrecord:x.tfrecord?label=image",
        labelled(4),
        "4 of 4 records are damaged, expected at most 3: 4 damaged, as its image is no text in UTF-8",
    ),
    ("tfrecord:x.tfrecord?classes=2", labelled(4), "row 2 has the label 2, expected 0 to 1 of classes=2"),
    (
        "tfrecord:x.tfrecord",
        [example(image=IMAGES[0], label=1), example(image=IMAGES[0], label=b"one")],
        "x.tfrecord, field 'label': values of several kinds (int, str), or too large",
    ),
    (
        "tfrecord:x.tfrecord",
        [example(image=IMAGES[0], label=1, text=b"one")],
        "x.tfrecord: it has labels (label) and captions (text): say ?label=label or ?caption=text",
    ),
    (
        "tfrecord:x.tfrecord",
        [example(foto=IMAGES[0], label=1)],
        "x.tfrecord: which column holds the images? say ?image=COLUMN: foto, label",
    ),
    (
        "tfrecord:x.tfrecord?image=label&label=image__x",
        [example(image__x=b"a", label=0)],
        "no column 'image__x' for ?label=; did you mean image/x?",
    ),
    ("x.tfrecord", labelled(1), "such files are tfrecord:x.tfrecord"),
]


@pytest.mark.parametrize(("spec", "contents", "message"), CASES, ids=range(len(CASES)))
def test_bad_records_are_one_line(tmp_path, monkeypatch, spec, contents, message):
    monkeypatch.chdir(tmp_path)
    record_files.write_tfrecords(tmp_path / "x.tfrecord", contents)
    with pytest.raises(DataError) as raised:
        open_source(spec, "train")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_shards_of_a_prepared_data_set_are_told(written):
    source = open_source(f"tfrecord:{written}/tfrecord/insects/1.0.0", "train")
    assert source.num_examples == 48
    (remark,) = source.left_out.remarks
    assert f"tfds:{written}/tfrecord/insects/1.0.0 takes its splits" in remark


def test_fields_of_two_files_are_of_one_kind(tmp_path):
    record_files.write_tfrecords(tmp_path / "a.tfrecord", labelled(2))
    record_files.write_tfrecords(tmp_path / "b.tfrecord", [example(image=IMAGES[0], label=b"one")])
    with pytest.raises(DataError, match=r"b.tfrecord, field 'label': string, but int64 in .*a.tfrecord"):
        open_source(f"tfrecord:{tmp_path}", "train")


def test_fields_whose_names_have_slashes_are_named_in_a_spec(records, number_of):
    spec = f"tfrecord:{records}/bare?image=image/encoded&label=image/class/text"
    source = open_source(spec, "train")
    assert source.class_names == ("ant", "bee", "cow")
    assert source.batch(np.arange(40))["label"].tolist() == [i % 3 for i in range(40)]
