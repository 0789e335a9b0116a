"""What a user can get wrong with each kind of source: the spec, the files beside it, and words of the answer.

Each row is of the form of `row`; what tests beside a source's own code say already is no row here.
"""

import io
import pathlib
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from record_files import example, write_arrayrecords, write_tfrecords
from table_files import NAMES, pixels, png

MODULE = '''
import numpy as np
from table_files import pixels

class Rows(list):
    """A list that says what its classes are called."""
    classes = ["ant", "bee"]

number = 3
none = [None] * 4
unread = Rows([(pixels(0), 0)])
text_classes = Rows([(pixels(0), 0)])
text_classes.classes = "ab"
names = [(pixels(0), "ant")]
half = Rows([(pixels(0), 0.5)])
unknown = Rows([{"image": pixels(0), "label": "wasp"}])
lacking = Rows([{"image": pixels(0), "label": 0}, {"image": pixels(1)}])
mixed = Rows([(pixels(0), 0), {"image": pixels(1), "label": 1}])
flat = Rows([(np.zeros(4, np.uint8), 0)])
deep = Rows([(np.zeros((6, 8, 5), np.uint8), 0)])
wide = Rows([(np.full((6, 8, 3), 300, np.int32), 0)])
counted = Rows([(7, 0)])
imageless = Rows([{"photo": 1, "kind": 0}])
untold = Rows([{"image": pixels(0), "kind": 0}])
both = Rows([{"image": pixels(0), "label": 0, "caption": "a"}])
sizes = Rows([(pixels(0), 0), (pixels(1)[:3], 0)])
number_captions = [{"image": pixels(0), "caption": 5}]

class Away(Rows):
    def __getitem__(self, index):
        raise OSError("the disk is gone")

away = Away([1])

def two(first, second):
    return Rows()

def fails(argument):
    raise KeyError(argument)

def nothing():
    return None

def batched():
    import grain
    return grain.MapDataset.source([{"image": pixels(i), "label": 0} for i in range(4)]).batch(2)

def loaded():
    import grain
    sampler = grain.samplers.IndexSampler(4, shard_options=grain.sharding.NoSharding(), num_epochs=1)
    return grain.DataLoader(data_source=[1, 2, 3, 4], sampler=sampler)

def empty():
    import grain
    return grain.MapDataset.source([])
'''
_IMAGES = [png(pixels(i)) for i in range(4)]
_LABELS = [0, 1, 0, 1]


def write(folder: pathlib.Path) -> None:
    """Writes what the rows name, in a directory."""
    (folder / "my_rows.py").write_text(MODULE)
    (folder / "hole").mkdir()
    _write_tables(folder)
    _write_texts(folder)
    _write_records(folder)
    _write_shards(folder)
    _write_saved(folder)


def _write_tables(folder):
    for name, columns in {
        "good-0": {"image": _IMAGES, "label": _LABELS},
        "listed": {"image": _IMAGES, "label": [[0]] * 4},
        "half": {"image": _IMAGES, "label": [0.5] * 4},
        "negative": {"image": _IMAGES, "label": [0, 1, -2, 1]},
        "unlabelled": {"image": _IMAGES, "label": pa.array([None] * 4, pa.int64())},
        "silent": {"image": _IMAGES, "caption": ["", " ", "", ""]},
        "named": {"image": _IMAGES, "label": list("abca")},
        "shapes": {"image": [{"height": 1}] * 4, "label": _LABELS},
        "away": {"path": ["photos/1.png"] * 4, "label": _LABELS},
        "web": {"path": ["https://a.org/1.png"] * 4, "label": _LABELS},
        "sets": {"image": _IMAGES, "caption": [{"a": 1}] * 4},
    }.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def _write_texts(folder):
    (folder / "two.txt").write_text("a\nb\n")
    (folder / "twice.txt").write_text("a\na\n")
    for name, content in {
        "a.csv": "filepath,title\n1.png,x\n",
        "b.csv": "filepath,caption\n1.png,x\n",
        "c.csv": "filepath,title\n1.png\n",
        "d.csv": "filepath;title\n1.png;x\n",
        "e.tsv": "filepath,title\n1.png,x\n",
        "f.tsv": "filepath\ttitle\n",
        "g.csv": "filepath,label\n1.png,0\n2.png,5\n",
        "h.csv": "filepath,title\n1.png,\n2.png,\n",
        "i.csv.gz": "filepath,title\n1.png,x\n",
    }.items():
        (folder / name).write_text(content)


def _write_records(folder):
    rows = {
        "good-0": [example(image=png(pixels(i)), label=i) for i in range(3)],
        "mixed": [example(image=_IMAGES[0], label=0), example(image=_IMAGES[1], label=b"ant")],
        "half": [example(image=_IMAGES[0], label=0.5)],
        "negative": [example(image=_IMAGES[0], label=-5)],
        "imageless": [example(photo=_IMAGES[0], label=0)],
        "untold": [example(image=_IMAGES[0], kind=0)],
        "both": [example(image=_IMAGES[0], label=0, caption=b"a")],
        "numbers": [example(image=_IMAGES[0], caption=5)],
        "foreign": [b"not an example"] * 4,
        "none": [],
    }
    for name, contents in rows.items():
        write_tfrecords(folder / f"{name}.tfrecord", contents)
        write_arrayrecords(folder / f"{name}.arrayrecord", contents)


def _write_shards(folder):
    for name, (ending, text) in {
        "t-0": ("cls", "0"),
        "t-1": ("cls", "1"),
        "j": ("json", '{"caption": 3}'),
    }.items():
        with tarfile.open(folder / f"{name}.tar", "w") as file:
            for number, image in enumerate(_IMAGES):
                for member, content in (("png", image), (ending, text.encode())):
                    header = tarfile.TarInfo(f"{number:04d}.{member}")
                    header.size = len(content)
                    file.addfile(header, io.BytesIO(content))


def _write_saved(folder):
    import datasets

    rows = {"image": [{"bytes": image, "path": None} for image in _IMAGES], "kind": _LABELS}
    features = datasets.Features(
        {"image": datasets.Image(), "kind": datasets.ClassLabel(names=list(NAMES[:2]))}
    )
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(folder / "saved")
    datasets.DatasetDict({"first": made, "second": made}).save_to_disk(folder / "splits")
    datasets.Dataset.from_dict({"kind": _LABELS}).save_to_disk(folder / "bare")


# Spec, and words of its answer: what it is about, and what would be accepted; "…" for what is between them.
ROWS = [
    (
        "parquet:good-{0..2}.parquet",
        "good-1.parquet: no such file; expected a file, a directory or a pattern",
    ),
    ("parquet:good-{3..1}.parquet", "good-{3..1}.parquet: a range without numbers, expected {FIRST..LAST}"),
    ("parquet:{good-0,good-0}.parquet", "good-0.parquet: named twice … expected each file once"),
    ("parquet:s3://bucket/x.parquet", "s3://bucket/x.parquet: a URL, expected files of a disk"),
    ("parquet:good-0.parquet?size=0", "'parquet': size=0, expected a whole number above 0"),
    ("parquet:good-0.parquet?channels=2", "channels=2, expected 1 (grey) or 3 (RGB)"),
    ("parquet:good-0.parquet?damaged=lots", "damaged=lots, expected a share from 0 to below 1"),
    ("parquet:good-0.parquet?classes=0", "classes=0: … expected the number of classes, or a file of"),
    ("parquet:good-0.parquet?classes=twice.txt", "twice.txt: the class name 'a' comes twice, expected each"),
    ("parquet:good-0.parquet?split=train", "good-0.parquet … unknown option 'split' (known: folder, image"),
    (
        "parquet:listed.parquet",
        "listed.parquet: the labels in 'label' are list<… expected whole numbers, or names",
    ),
    (
        "parquet:half.parquet",
        "half.parquet, column 'label': row 0 has the label 0.5 … expected whole numbers",
    ),
    ("parquet:negative.parquet", "negative.parquet, column 'label': row 2 has the label -2, expected 0 to 1"),
    ("parquet:unlabelled.parquet", "unlabelled.parquet, column 'label': no example has a label, expected"),
    (
        "parquet:silent.parquet",
        "silent.parquet: no row with all that an example needs: 4 with an empty caption",
    ),
    ("parquet:named.parquet?classes=two.txt", "named.parquet … row 2 has the label 'c' … two.txt (a, b)"),
    ("parquet:named.parquet?classes=2", "named.parquet … 3 different labels, but classes=2; expected 3"),
    (
        "parquet:shapes.parquet",
        "shapes.parquet: the images in 'image' are struct<… expected bytes of image files",
    ),
    ("parquet:away.parquet", "away.parquet: photos/1.png does not exist … ?folder=DIRECTORY names another"),
    ("parquet:web.parquet", "web.parquet: the image is 'https://a.org/1.png', expected a local path"),
    ("parquet:sets.parquet", "sets.parquet: the captions in 'caption' are struct<… expected texts or lists"),
    ("csv:hole", "hole: no file *.csv in this directory; expected a file, a directory or a pattern"),
    ("csv:{a,b}.csv", "b.csv: columns filepath, caption, expected those of a.csv: filepath, title"),
    ("csv:{a,c}.csv", "c.csv: cannot be read (CSV parse error: Expected 2 columns, got 1"),
    ("csv:a.csv?separator=;", "a.csv … unknown option 'separator' (known: folder, image"),
    ("csv:d.csv", "d.csv: which column holds the images? say ?image=COLUMN: filepath;title"),
    ("csv:a.csv?folder=missing", "folder=missing: no such directory, expected that in which the images are"),
    ("csv:g.csv?classes=2", "g.csv, column 'label': row 1 has the label 5, expected 0 to 1 of classes=2"),
    ("csv:h.csv", "h.csv: no row with all that an example needs: 2 without a caption: h.csv, row 0"),
    ("csv:i.csv.gz", "i.csv.gz: cannot be read (zlib"),
    ("csv:https://a.org/x.csv", "https://a.org/x.csv: a URL, expected files of a disk"),
    ("tsv:e.tsv", "e.tsv: its columns are separated by commas: say csv:e.tsv"),
    ("tsv:f.tsv", "f.tsv: no rows, expected one for each image"),
    ("tsv:f-{0..9}.tsv", "f-0.tsv: no such file; expected a file, a directory or a pattern, as data/*.tsv"),
    ("tar:hole", "hole: a directory, expected files: tar:'hole/*.tar'"),
    ("tar:t-{5..1}.tar", "t-{5..1}.tar: a range without numbers, expected {FIRST..LAST}"),
    ("tar:t-{0,1}.tar?size=0", "'tar': size=0, expected a whole number above 0"),
    ("tar:t-{0,1}.tar?captions=all", "captions=all, expected one (a file is a caption) or lines"),
    ("tar:t-{0,1}.tar?split=train", "t-{0,1}.tar … unknown option 'split' (known: size, channels"),
    ("tar:j.tar?caption=caption", "j.tar:0003.json: 'caption' is 3, expected a text or a list of texts"),
    ("tar:gs://bucket/a.tar", "gs://bucket/a.tar: to read gs:// URLs, pip install gcsfs"),
    ("tar:az://box/a.tar", "az://box/a.tar: to read az:// URLs, pip install adlfs"),
    ("tfrecord:hole", "hole: no file *.tfrecord in this directory; expected a file, a directory"),
    ("tfrecord:good-{0..1}.tfrecord", "good-1.tfrecord: no such file; expected a file, a directory"),
    (
        "tfrecord:mixed.tfrecord",
        "mixed.tfrecord, field 'label': values of several kinds (int, str) … expected",
    ),
    (
        "tfrecord:half.tfrecord",
        "half.tfrecord, column 'label': row 0 has the label 0.5 … expected whole numbers",
    ),
    ("tfrecord:imageless.tfrecord", "imageless.tfrecord: … say ?image=COLUMN: label, photo"),
    ("tfrecord:both.tfrecord", "both.tfrecord: … say ?label=label or ?caption=caption"),
    (
        "tfrecord:numbers.tfrecord",
        "expected at most 0: … caption is no text: numbers.tfrecord, the record at",
    ),
    (
        "tfrecord:foreign.tfrecord",
        "foreign.tfrecord: the first records: … expected a tf.train.Example or a map",
    ),
    ("tfrecord:good-0.tfrecord?folder=x", "good-0.tfrecord … unknown option 'folder' (known: image, label"),
    (
        "tfrecord:good-0.tfrecord?image=label",
        "good-0.tfrecord: the images in 'label' are int64, expected bytes",
    ),
    ("arrayrecord:hole", "hole: no file *.array_record in this directory; expected a file, a directory"),
    ("arrayrecord:none.arrayrecord", "none.arrayrecord: no records, expected one for each image"),
    ("arrayrecord:untold.arrayrecord", "untold.arrayrecord: … say ?label=COLUMN or ?caption=COLUMN: image"),
    (
        "arrayrecord:negative.arrayrecord",
        "negative.arrayrecord … the label -5, expected whole numbers from 0",
    ),
    (
        "arrayrecord:good-0.arrayrecord?label=lable",
        "good-0.arrayrecord: no column 'lable' … did you mean label",
    ),
    ("arrayrecord:good-0.arrayrecord?features=x", "unknown option 'features' (known: image, label, caption"),
    (
        "tfds:hole",
        "hole: no dataset_info.json there … bare shards are tfrecord:PATTERN or arrayrecord:PATTERN",
    ),
    (
        "tfds:bugs?folder=two.txt",
        "no prepared data set of this name in two.txt, which is no directory; ?folder",
    ),
    ("tfds:bugs?config=big", "tfds:bugs … unknown option 'config' (known: split, folder"),
    ("hf:saved?label=none", "hf:saved: no column 'none' for ?label= (it has image, kind)"),
    ("hf:saved?caption=kind", "hf:saved: the captions in 'kind' are int64, expected texts or lists of texts"),
    ("hf:saved?image=kind", "hf:saved: the images in 'kind' are int64, expected bytes of image files"),
    ("hf:saved?classes=1", "hf:saved, column 'kind': row 1 has the label 1, expected 0 to 0 of classes=1"),
    ("hf:saved?streaming=true", "hf:saved … unknown option 'streaming' (known: split, config, revision"),
    ("hf:splits", "hf:splits: which split? say ?split= with one of first, second"),
    ("hf:bare", "hf:bare: which column holds the images? say ?image=COLUMN: kind"),
    ("python", "'python:': expected python:package.module:function"),
    ("python:my_rows:number", "my_rows:number: a int, expected an object with __len__ and __getitem__"),
    (
        "python:my_rows:none",
        "my_rows:none: the first items are all None, expected images with labels or captions",
    ),
    (
        "python:my_rows:away",
        "my_rows:away: the first item, which shows what is in all, cannot be read (the disk is gone)",
    ),
    ("python:my_rows:text_classes", "my_rows:text_classes: its `classes` are 'ab', expected a list of names"),
    ("python:my_rows:half", "my_rows:half: item 0 has the label 0.5, expected 0 to 1, or one of ant, bee"),
    ("python:my_rows:unknown", "my_rows:unknown: item 0 has the label 'wasp', expected 0 to 1, or one of"),
    ("python:my_rows:lacking", "my_rows:lacking: item 1 lacks label; it has image"),
    ("python:my_rows:mixed", "my_rows:mixed: item 1 is a dict of image, label, unlike the first"),
    (
        "python:my_rows:flat",
        "my_rows:flat, row 0: the image is uint8[4], expected bytes, a path, a PIL image",
    ),
    ("python:my_rows:deep", "row 0: the image is uint8[6, 8, 5], expected … with C of 1, 3 or 4"),
    ("python:my_rows:wide", "row 0: the image is int32[6, 8, 3], expected … pixels uint8[H, W, C]"),
    ("python:my_rows:counted", "my_rows:counted, row 0: the image is a int, expected bytes, a path"),
    ("python:my_rows:imageless", "the first item: which column holds the images? say ?image=COLUMN: photo"),
    ("python:my_rows:both", "the first item: … say ?label=label or ?caption=caption"),
    (
        "python:my_rows:sizes",
        "row 1 (image 1) is 8×3 pixels … say python:MODULE:FUNCTION?size=N to resize all",
    ),
    ("python:my_rows:two", "my_rows:two cannot be called so … expected a function of no argument, or of one"),
    ("python:my_rows:fails:x", "my_rows:fails:x': KeyError: 'x' (my_rows.py, line"),
    ("python:my_rows:nothing", "my_rows:nothing: a NoneType, expected an object with __len__"),
    ("grain:my_rows:loaded", "my_rows:loaded: a DataLoader, expected a MapDataset"),
    ("grain:my_rows:empty", "my_rows:empty: 0 items, expected at least one"),
    ("grain:my_rows:batched?classes=2", "batched, row 0: the image is uint8[2, 6, 8, 3], expected"),
]
