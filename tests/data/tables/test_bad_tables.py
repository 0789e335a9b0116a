"""What a user can get wrong with tables: one line, which names the file and what would be accepted."""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import pixels, png

from classact.data.source import DataError
from classact.data.specs import open_source

IMAGES = [png(pixels(i)) for i in range(4)]


def parquet(name="x.parquet", **columns):
    return lambda: pq.write_table(pa.table(columns), name)


def text(name, content):
    return lambda: pathlib.Path(name).write_bytes(content)


def images():
    for i, content in enumerate(IMAGES):
        pathlib.Path(f"{i}.png").write_bytes(content)


def both(*steps):
    return lambda: [step() for step in steps]


GOOD = parquet(image=IMAGES, label=[0, 1, 0, 1])
CASES = [
    ("parquet", lambda: None, "data source 'parquet' needs a file: parquet:PATTERN"),
    ("parquet:x.parquet", lambda: None, "x.parquet: no such file"),
    ("parquet:empty", lambda: pathlib.Path("empty").mkdir(), "empty: no file *.parquet in this directory"),
    (
        "parquet:x.parquet",
        text("x.parquet", b"image,label\n" * 9),
        "x.parquet: no parquet file that",
    ),
    ("parquet:x.parquet", parquet(image=[], label=[]), "x.parquet: no rows"),
    (
        "parquet:*.parquet",
        both(GOOD, parquet("y.parquet", image=IMAGES, label=["a"] * 4)),
        "y.parquet: columns image (binary), label (string), expected those of x.parquet: image (",
    ),
    (
        "parquet:x.parquet?label=labl",
        GOOD,
        "x.parquet: no column 'labl' for ?label=; did you mean label?",
    ),
    (
        "parquet:x.parquet?image=label",
        GOOD,
        "x.parquet: the images in 'label' are int64, expected bytes",
    ),
    (
        "parquet:x.parquet?label=image",
        GOOD,
        "x.parquet: the labels in 'image' are binary, expected whole numbers",
    ),
    ("parquet:x.parquet?caption=label", GOOD, "x.parquet: the captions in 'label' are int64, expected texts"),
    (
        "parquet:x.parquet?label=label&caption=label",
        GOOD,
        "?label=label and ?caption=label: expected one",
    ),
    (
        "parquet:x.parquet",
        parquet(image=IMAGES, label=[0] * 4, text=["a"] * 4),
        "x.parquet: it has labels (label) and captions (text): say ?label=label or ?caption=text",
    ),
    (
        "parquet:x.parquet",
        parquet(foto=IMAGES, label=[0] * 4),
        "x.parquet: which column holds the images? say ?image=COLUMN: foto, label",
    ),
    (
        "parquet:x.parquet",
        parquet(image=IMAGES, score=[1.0] * 4),
        "x.parquet: which column holds labels or captions? say ?label=COLUMN or ?caption=COLUMN: image",
    ),
    (
        "parquet:x.parquet",
        parquet(image=IMAGES, label=[0, 1, 7, 1]),
        "x.parquet, column 'label': row 2 has the label 7, more than there are examples",
    ),
    (
        "parquet:x.parquet?classes=1",
        GOOD,
        "column 'label': row 1 has the label 1, expected 0 to 0 of",
    ),
    (
        "parquet:x.parquet?classes=names",
        GOOD,
        "classes=names: cannot be read (No such file",
    ),
    (
        "parquet:x.parquet?damaged=2",
        GOOD,
        "data source 'parquet': damaged=2, expected a share from 0",
    ),
    (
        "parquet:x.parquet?folder=photos",
        GOOD,
        "folder=photos: no such directory, expected",
    ),
    ("parquet:x.parquet?fodler=photos", GOOD, "unknown option 'fodler'; did you mean folder?"),
    (
        "parquet:x.parquet",
        parquet(image=[b"<html>", b"no", b"", b"x"], label=[0] * 4),
        "4 of 4 images are damaged, expected at most 3; the last one is image 3, x.parquet, row 3: ",
    ),
    ("csv:x.csv", lambda: None, "x.csv: no such file; expected a file"),
    ("csv:x.csv", text("x.csv", b""), "x.csv: cannot be read (Empty CSV file)"),
    (
        "csv:x.csv",
        text("x.csv", b"filepath,title\n1.png\n"),
        "x.csv: cannot be read (CSV parse error",
    ),
    (
        "csv:x.csv",
        text("x.csv", b"filepath\ttitle\n1.png\tx\n"),
        "x.csv: its columns are separated by tabs: say",
    ),
    ("csv:x.csv", text("x.csv", b"filepath,title\n"), "x.csv: no rows"),
    ("csv:x.csv", text("x.csv", b"filepath,title,title\n1.png,a,b\n"), "two columns are called 'title'"),
    (
        "csv:x.csv",
        both(images, text("x.csv", b"filepath,title\n1.png,\xff\n")),
        "x.csv: cannot be read (In",
    ),
    (
        "csv:x.csv",
        text("x.csv", b"url,caption\nhttps://a.org/1.png,x\n"),
        "x.csv: which column holds the images? say ?image=COLUMN: url, caption",
    ),
    (
        "csv:x.csv?image=url",
        text("x.csv", b"url,caption\nhttps://a.org/1.png,x\n"),
        "x.csv: the image is 'https://a.org/1.png', expected a local path: download the images first",
    ),
    (
        "csv:x.csv",
        text("x.csv", b"filepath,title\nphotos/1.png,x\n"),
        "x.csv: photos/1.png does not exist, nor do others: relative paths start from",
    ),
    (
        "tsv:x.tsv",
        text("x.tsv", b"path\tlabel\n\tx\n"),
        "no row with all that an example needs: 1 without",
    ),
]


@pytest.mark.parametrize(("spec", "prepare", "message"), CASES, ids=range(len(CASES)))
def test_a_bad_table_is_one_line(tmp_path, monkeypatch, spec, prepare, message):
    monkeypatch.chdir(tmp_path)
    prepare()
    with pytest.raises(DataError) as raised:
        open_source(spec, "train")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_row_group_that_is_damaged_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": IMAGES * 30, "label": [0, 1] * 60}), path, row_group_size=10)
    source = open_source(f"parquet:{path}", "train")
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 4, len(content) // 2):
        content[place] ^= 0xFF
    path.write_bytes(content)
    source._table._read.clear()
    with pytest.raises(DataError, match=r"x.parquet: row group \d+ of column 'image' cannot be read|damaged"):
        source.batch(range(120))
