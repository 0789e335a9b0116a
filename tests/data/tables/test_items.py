import sys

import grain
import numpy as np
import pytest
from PIL import Image
from table_files import NAMES, pixels, read_by_changing_readers

from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream

COUNT = 20
MODULE = '''
import numpy as np
from PIL import Image
from table_files import NAMES, pixels

class MapStyle:
    """As PyTorch's: tuples, with what torchvision's say of themselves."""
    classes = list(NAMES)

    def __init__(self, count="20"):
        self.count, self.asked = int(count), []
        self.targets = [i % 3 for i in range(self.count)]

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        return Image.fromarray(pixels(index)), self.targets[index]

class Pairs:
    def __init__(self, split):
        self.count = 20 if split == "train" else 3

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"img": pixels(index).transpose(2, 0, 1), "text": f"number {index}"}

class Failing(MapStyle):
    def __getitem__(self, index):
        if index == 7:
            raise OSError("the disk is gone")
        return {"image": pixels(index), "label": NAMES[index % 3]}

class Unlabelled(MapStyle):
    def __init__(self):
        super().__init__()
        self.targets[3:5] = [-1, None]

class Counted(Pairs):
    """Pairs whose images count how many of them there are."""
    alive, most = 0, 0

    def __getitem__(self, index):
        return {"img": Pixels(pixels(index)), "text": f"number {index}"}

class Pixels:
    def __init__(self, values):
        self.values = values
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __del__(self):
        Counted.alive -= 1

def broken():
    return 1 / 0

def endless():
    yield 1

floats = [(np.zeros((6, 8, 3), np.float32), 0)] * 4
wrong = [(pixels(0), 0), (pixels(1), 5)]
triples = [(1, 2, 3)]
several = [{"image": pixels(0), "caption": ["a", "b"]}]

def pipeline():
    import grain
    data = grain.MapDataset.source(MapStyle()).seed(3).shuffle()
    return data.map(lambda item: {"image": np.asarray(item[0]), "label": item[1]})

def filtered():
    return pipeline().filter(lambda item: item["label"] > 0)

def iterated():
    return pipeline().to_iter_dataset()

def repeated():
    return pipeline().repeat()
'''


@pytest.fixture(autouse=True)
def place(users_place):
    (users_place / "my_items.py").write_text(MODULE)
    return users_place


def test_a_map_style_data_set_is_read_once_an_item():
    source = open_source("python:my_items:MapStyle", "train")
    assert source.class_names == NAMES and source.label_of.tolist() == [i % 3 for i in range(COUNT)]
    assert not source.has_splits and source.image_shape == (6, 8, 3)
    source._items.asked.clear()
    batch = source.batch(np.array([9, 2, 9]))
    assert sorted(source._items.asked) == [2, 9]
    assert batch["id"].tolist() == [9, 2, 9] and batch["label"].tolist() == [0, 2, 0]
    assert (batch["image"] == np.stack([pixels(i) for i in (9, 2, 9)])).all()
    assert open_source("python:my_items:MapStyle:5?size=4", "train").num_examples == 5


@pytest.mark.parametrize("spec", ["python:my_items:MapStyle", "grain:my_items:pipeline?classes=3"])
def test_an_epoch_has_each_item_once_and_goes_on_with_other_readers(spec):
    assert read_by_changing_readers(spec) == dict.fromkeys(range(COUNT), 1)


def test_dicts_with_captions_and_splits():
    train, held = (open_source("python:my_items:Pairs", split) for split in ("train", "eval"))
    assert (train.num_examples, held.num_examples) == (20, 3) and train.has_splits and train.captioned
    batch = train.batch(np.array([4, 1]))
    assert batch["caption"].tolist() == ["number 4", "number 1"] == train.caption_at(np.array([4, 1]))
    assert (batch["image"] == np.stack([pixels(4), pixels(1)])).all()


def test_captions_are_read_without_holding_all_images():
    source = open_source("python:my_items:Counted", "train")
    counted = type(source._items)
    assert counted.alive == 0
    counted.most = 0
    assert source.caption_at(np.arange(20)) == [f"number {i}" for i in range(20)]
    assert counted.most == 1


def test_an_item_that_cannot_be_read_is_a_damaged_image():
    source = open_source("python:my_items:Failing", "train")
    assert source.batch(np.arange(COUNT))["id"].tolist() == [i for i in range(COUNT) if i != 7]
    assert source.damage == {"the disk is gone": 1}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("python:my_items", "expected python:package.module:function"),
        ("python:my_items:mapstyle", "has no 'mapstyle', did you mean MapStyle"),
        ("python:not_mine:x", "there is no module not_mine"),
        ("python:my_items:broken", r"ZeroDivisionError: division by zero .my_items.py, line \d+"),
        ("python:my_items:endless", "a generator, expected an object with __len__ and __getitem__"),
        ("python:my_items:MapStyle:0", "0 items, expected at least one"),
        (
            "python:my_items:floats?classes=2",
            r"row 0: the image is float32\[6, 8, 3\], .*ToTensor or Normalize",
        ),
        ("python:my_items:floats", r"how many classes are there\? say \?classes=NUMBER"),
        ("python:my_items:Unlabelled", "item 3 has no label in its `targets`, and 1 others"),
        ("python:my_items:triples", r"a tuple of 3, expected a dict .*tuple .image, label."),
        ("python:my_items:Pairs?image=photo", r"no column 'photo' for \?image= .it has img, text"),
        ("grain:my_items:iterated", "expected a MapDataset, .*leave out .*to_iter_dataset"),
        ("grain:my_items:repeated", r"expected at least one, and an end .without repeat"),
        ("grain:my_items:filtered?classes=3", r"images are damaged, expected at most 3; .*no item .None"),
    ],
)
def test_other_objects_are_refused_in_one_line(spec, message):
    with pytest.raises(DataError, match=message) as raised:
        source = open_source(spec, "train")
        source.batch(np.arange(source.num_examples))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("python:my_items:wrong?classes=2", "item 1 has the label 5, expected 0 to 1"),
        ("python:my_items:several", "caption of item 0 is a list, expected one text: .*as many items"),
    ],
)
def test_an_item_unlike_what_was_said_is_named_when_it_is_read(spec, message):
    source = open_source(spec, "train")
    with pytest.raises(DataError, match=message):
        source.batch(np.arange(source.num_examples))


def test_a_grain_pipeline_is_read_in_its_order_and_without_what_it_filters_out():
    source = open_source("grain:my_items:pipeline?classes=3", "train")
    expected = grain.MapDataset.range(COUNT).seed(3).shuffle()
    batch = source.batch(np.arange(COUNT))
    assert (batch["image"] == np.stack([pixels(expected[i]) for i in range(COUNT)])).all()
    source = open_source("grain:my_items:filtered?classes=3&damaged=0.5", "train")
    stream = IIDStream(source, 13, 0)
    assert set(next(stream)["label"].tolist()) == {1, 2} and stream.epoch <= 1


def test_the_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(DataError, match=r"pip install 'classact\[grain\]'"):
        open_source("grain:my_items:MapStyle", "train")


def test_image_files_are_what_was_put_in():
    from classact.data.decode import read_pixels
    from classact.data.tables.images import ImageValues

    image = Image.fromarray(pixels(1))
    values = [image, pixels(1), pixels(1).transpose(2, 0, 1), pixels(1)[..., 0], image.convert("RGBA")]
    images = ImageValues(lambda rows: [values[row] for row in rows], np.arange(len(values)), str, "")
    read = [read_pixels(each, "RGB", None) for each in images]
    assert all((each == pixels(1)).all() for each in (*read[:3], read[4]))
    assert (read[3] == pixels(1)[..., :1]).all()
