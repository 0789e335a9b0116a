import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import table_files
from table_files import COUNT, NAMES, pixels, png

from classact.data.eval_split import eval_indices
from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream
from classact.data.tables import fields

LABELLED = ("parquet:{}/labelled-*.parquet", "parquet:{}/paths.parquet", "tsv:{}/labelled.tsv")
PAIRS = ("parquet:{}/pairs.parquet", "csv:{}/pairs.csv")


def read_all(source):
    return source.batch(np.arange(source.num_examples))


@pytest.mark.parametrize("spec", LABELLED)
def test_labelled_rows_are_read_in_any_order(tables, spec):
    source = open_source(spec.format(tables), "train")
    assert (source.num_examples, source.image_shape, source.num_classes) == (COUNT, (6, 8, 3), 3)
    assert source.class_names == (None if "labelled-*" in spec else NAMES)
    assert not source.has_splits and not source.captioned
    indices = np.array([39, 0, 21, 19, 20, 0])
    batch = source.batch(indices)
    assert batch["id"].tolist() == indices.tolist() and batch["id"].dtype == np.int64
    assert batch["label"].dtype == np.int32 and (batch["label"] == indices % 3).all()
    assert (batch["image"] == np.stack([pixels(i) for i in indices])).all()
    assert source.label_of.tolist() == [i % 3 for i in range(COUNT)]
    assert source.left_out.lines() == []


@pytest.mark.parametrize("large", [0, 1 << 30])
@pytest.mark.parametrize("spec", PAIRS)
def test_each_caption_of_an_image_is_an_example(tables, spec, large, monkeypatch):
    monkeypatch.setattr(fields, "_LARGE", large)
    source = open_source(spec.format(tables), "eval")
    assert source.captioned and source.num_classes == 0 and source.num_examples == 2 * COUNT
    batch = source.batch(np.array([3, 78]))
    assert batch["caption"].tolist() == ["big 1", "small 39"] and batch["caption"].dtype == object
    assert (batch["image"] == np.stack([pixels(1), pixels(39)])).all()
    assert source.image_of.tolist() == [i // 2 for i in range(2 * COUNT)]
    assert source.caption_at(np.array([0, 79])) == ["small 0", "big 39"]
    held = eval_indices(source, 0.1, 0)
    assert len(held) == 8 and set(held // 2 * 2) | set(held // 2 * 2 + 1) == set(held)


@pytest.mark.parametrize("spec", [*LABELLED, *PAIRS])
def test_an_epoch_has_each_example_once_and_goes_on_with_other_readers(tables, spec):
    count = open_source(spec.format(tables), "train").num_examples
    assert table_files.read_by_changing_readers(spec.format(tables)) == dict.fromkeys(range(count), 1)


@pytest.mark.parametrize("spec", [*LABELLED, *PAIRS])
def test_a_digest_is_the_same_wherever_the_data_are_mounted(tables, tmp_path, spec):
    shutil.copytree(tables, tmp_path / "elsewhere")
    here, there = (open_source(spec.format(place), "train") for place in (tables, tmp_path / "elsewhere"))
    assert here.digest == there.digest != ""


def test_copies_are_found_and_what_is_in_the_rows_changes_the_digest(tmp_path):
    images = [png(pixels(i % 5)) for i in range(10)]

    def opened(**columns):
        pq.write_table(pa.table({"image": images, **columns}), tmp_path / "x.parquet", row_group_size=3)
        return open_source(f"parquet:{tmp_path}/x.parquet", "train")

    source = opened(label=[0, 1] * 5)
    assert source.same_images.tolist() == [0, 1, 2, 3, 4] * 2
    digest = source.digest
    assert digest.startswith("rows:") and opened(label=[0, 1] * 5).digest == digest
    assert opened(label=[1, 0] * 5).digest != digest
    images[3] = png(pixels(99))
    assert opened(label=[0, 1] * 5).digest != digest


def test_rows_without_what_an_example_needs_are_left_out_by_reason(tmp_path):
    images = [png(pixels(i)) for i in range(8)]
    captions = [["a"], None, [], ["", " "], ["b", "c", ""], ["d"], ["e"], [None]]
    pq.write_table(
        pa.table({"image": images, "text": captions, "label": [0, 1, None, -1, 0, 1, 1, 0]}),
        tmp_path / "x.parquet",
    )
    source = open_source(f"parquet:{tmp_path}/x.parquet?caption=text", "train")
    where = f"{tmp_path}/x.parquet, row"
    assert source.left_out.lines() == [
        f"3 without a caption: {where} 1, {where} 2, {where} 7",
        f"3 with an empty caption: {where} 3, {where} 3, {where} 4",
    ]
    batch = read_all(source)
    assert batch["caption"].tolist() == ["a", "b", "c", "d", "e"]
    assert (batch["image"][1] == pixels(4)).all() and source.image_of.tolist() == [0, 1, 1, 2, 3]
    source = open_source(f"parquet:{tmp_path}/x.parquet?label=label", "train")
    assert source.left_out.lines() == [f"2 without a label: {where} 2, {where} 3"]
    assert read_all(source)["label"].tolist() == [0, 1, 0, 1, 1, 0]
    assert (read_all(source)["image"][2] == pixels(4)).all()


def test_damaged_images_count_and_their_share_is_a_setting(tmp_path):
    images = [png(pixels(i)) for i in range(40)]
    for row in range(4, 10):
        images[row] = b"<html>404</html>" if row % 2 else None
    pq.write_table(
        pa.table({"image": images, "label": [0, 1] * 20}), tmp_path / "x.parquet", row_group_size=40
    )
    spec = f"parquet:{tmp_path}/x.parquet"
    message = r"4 of 40 images are damaged, expected at most 3; .*row \d+: .*; in all: .*\?damaged=SHARE"
    with pytest.raises(DataError, match=message):
        read_all(open_source(spec, "train"))
    source = open_source(f"{spec}?damaged=0.2", "train")
    assert read_all(source)["id"].tolist() == [*range(4), *range(10, 40)]
    assert source.skipped == 6 and source.damage == {"HTML text": 3, "no image in the row": 3}
    ids = {i for _ in range(4) for i in next(IIDStream(source, 34, 0))["id"].tolist()}
    assert len(ids) == 34
    images[4:] = [png(pixels(i)) for i in range(4, 40)]
    images[4] = b""
    pq.write_table(pa.table({"image": images, "label": [0, 1] * 20}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="1 of 40 images are damaged, expected at most 0"):
        read_all(open_source(f"{spec}?damaged=0", "train"))


def test_images_of_mixed_sizes_and_kinds_come_as_one_shape(tmp_path):
    from PIL import Image

    kinds = [
        Image.new(mode, size, 0) for mode in ("L", "RGB", "RGBA", "P", "1") for size in ((6, 9), (30, 20))
    ]
    pq.write_table(
        pa.table({"image": [png(image) for image in kinds], "label": list(range(10))}), tmp_path / "x.parquet"
    )
    with pytest.raises(
        DataError, match=r"row 1 .image 1. is 30×20 pixels, but .* is 6×9: say parquet:PATTERN\?size=N"
    ):
        open_source(f"parquet:{tmp_path}/x.parquet", "train")
    source = open_source(f"parquet:{tmp_path}/x.parquet?size=5&channels=1", "train")
    batch = read_all(source)
    assert batch["image"].shape == (10, 5, 5, 1) and source.sizes == {(6, 9): 5, (30, 20): 5}
    # Transparent is white.
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 0, 0, 0, 255, 255, 0, 0, 0, 0]
