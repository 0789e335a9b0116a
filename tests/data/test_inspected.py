import numpy as np
import pytest
from PIL import Image

from classact.data import inspected
from classact.data.source import ArraySource, DataError, InShards
from classact.data.specs import open_source
from classact.launch.commands.inspect import lines


def write(path, size=(8, 6), text=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(path)
    if text is not None:
        path.with_suffix(".txt").write_text(text)


def test_labels_are_counted_all_and_images_read_in_part(tmp_path):
    for i in range(9):
        write(tmp_path / ("cat" if i else "dog") / f"{i}.png", (8, 6) if i % 2 else (30, 20))
    (tmp_path / "cat" / "notes.doc").write_text("x")
    (tmp_path / "cat" / "3.png").write_bytes(b"%PDF")
    found, pictures = inspected.inspect(open_source(f"folder:{tmp_path}?size=4", "train"), "train", 3, 2)
    assert (found.examples, found.images, found.read, found.counted) == (9, 9, 3, 9)
    assert list(found.classes.items()) == [("cat", 8), ("dog", 1)]
    assert found.sizes == {"30×20": 5, "8×6": 3} and found.image_shape == (4, 4, 3)
    assert found.damaged == {"PDF": 1} and not found.has_splits and found.captions is None
    assert [(reason, count) for reason, count, _ in found.left_out] == [
        ("with the ending .doc", 1), ("damaged, or no image", 1),
    ]  # fmt: skip
    assert [(picture.number, picture.text) for picture in pictures] == [(0, "cat"), (8, "dog")]
    assert pictures[0].image.shape == (4, 4, 3)
    assert found.as_json()["classes"] == {"cat": 8, "dog": 1}


def test_captions_are_measured_in_words_and_characters(tmp_path):
    for i, text in enumerate(("one two three", "one", "four fifth", "one")):
        write(tmp_path / f"{i}.png", text=text)
    found, pictures = inspected.inspect(open_source(f"captioned_folder:{tmp_path}", "eval"), "eval", 10, 10)
    assert found.captions == inspected.Captions(4, 3, inspected.Spread(1, 1, 3), inspected.Spread(3, 3, 13))
    assert found.classes is None and [picture.text for picture in pictures][:2] == ["one two three", "one"]


def test_classes_of_one_name_stay_apart_and_unknown_labels_are_counted_as_they_are_read():
    images = np.zeros((6, 2, 2, 1), np.uint8)
    source = ArraySource("x", images, np.array([0, 1, 1, 1, 1, 1]), 3, ["ant", "ant", "bee"])
    assert inspected.inspect(source, "train", 6, 0)[0].classes == {
        "ant (class 1)": 5, "ant (class 0)": 1, "bee (class 2)": 0,
    }  # fmt: skip
    source.label_of = source.class_names = None
    found = inspected.inspect(source, "train", 2, 0)[0]
    assert found.counted == 2 and found.classes == {"0": 1, "1": 1, "2": 0}


class InShardsSource(ArraySource):
    def __init__(self, sizes):
        count = sum(sizes)
        super().__init__("x", np.zeros((count, 2, 2, 1), np.uint8), np.zeros(count, np.int32), 1)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.in_shards, self.asked = InShards(self.starts, 10), []

    def batch(self, indices):
        self.asked += indices.tolist()
        return super().batch(indices)


@pytest.mark.parametrize(
    ("sizes", "read", "of", "shards", "in_all"),
    [
        ([500] * 50, 1000, [250, 250, 250, 250], [0, 16, 32, 49], 50),
        ([500, 0, 500, 500, 500, 10], 1000, [330, 330, 330, 10], [0, 2, 3, 5], 5),
        ([1] * 12, 7, [1] * 7, None, 12),
        ([3, 4], 7, [3, 4], [0, 1], 2),
    ],
)
@pytest.mark.parametrize("in_sequence", [True, False])
def test_of_shards_a_few_are_read(sizes, read, of, shards, in_all, in_sequence):
    source = InShardsSource(sizes)
    if not in_sequence:
        source.fetched_whole, source.in_shards = source.starts, None
    found, pictures = inspected.inspect(source, "train", read, 3)
    asked, starts = np.array(source.asked, int), source.starts
    touched = np.searchsorted(starts, asked, side="right") - 1
    numbers, counts = np.unique(touched, return_counts=True)
    assert counts.tolist() == of and (shards is None or numbers.tolist() == shards)
    assert (found.read, found.read_shards, found.shards) == (sum(of), len(of), in_all)
    assert [picture.number for picture in pictures] == sorted({picture.number for picture in pictures})
    assert f"read: {sum(of):,} examples of {len(of)} of {in_all} shards; " in "\n".join(lines(found))


def test_a_run_begins_with_it_in_short(tmp_path):
    for name in ("a/1", "a/2", "b/1"):
        write(tmp_path / f"{name}.png", (8, 6))
    source = open_source(f"folder:{tmp_path}?size=4", "train")
    assert inspected.in_short(source) == [
        "images a class: 1 to 2, median 1",
        "resized from 8×6: 3 of 3 files that were opened",
    ]
    write(tmp_path / "b/2.png", (9, 9))
    assert inspected.in_short(open_source(f"folder:{tmp_path}?size=4", "train")) == [
        "images a class: 2",
        "resized from 2 sizes, most often 8×6: 3 of 4 files that were opened",
    ]


def test_too_much_damage_is_an_error(tmp_path):
    for i in range(6):
        write(tmp_path / "a" / f"{i}.png")
    source = open_source(f"folder:{tmp_path}", "train")
    for i in range(4):
        (tmp_path / "a" / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match="4 of 6 images are damaged"):
        inspected.inspect(source, "train", 6, 0)
