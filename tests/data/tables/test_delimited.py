import gzip

import numpy as np
import pytest
from table_files import pixels, png

from classact.data.specs import open_source


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(pixels(i)))
    return tmp_path


def test_what_is_compressed_or_has_line_ends_in_quotes_is_read(place):
    with gzip.open("x.csv.gz", "wt") as file:
        file.write('filepath,title\n1.png,"two\nlines, quoted"\n2.png,NA\n')
    source = open_source("csv:x.csv.gz", "train")
    assert source.caption_at(np.arange(2)) == ["two\nlines, quoted", "NA"]


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (["0", "2", "1", ""], [0, 2, 1], None),
        (["1.0", "0.0", "", "1.0"], [1, 0, 1], None),
        (["007", "012", "007", "1"], [0, 1, 0, 2], ("007", "012", "1")),
        (["2020-01-01", "true", "null", "NA"], [0, 3, 2, 1], ("2020-01-01", "NA", "null", "true")),
    ],
)
def test_labels_are_numbers_if_all_are_and_names_otherwise(place, labels, numbers, names):
    lines = [f"{i}.png,{label}" for i, label in enumerate(labels)]
    (place / "x.csv").write_text("\ufeffpath,label\r\n" + "\r\n".join(lines) + "\r\n")
    source = open_source("csv:x.csv", "train")
    assert source.label_of.tolist() == numbers and source.class_names == names


def test_absolute_paths_stay_and_others_start_from_the_folder_or_the_file(place, tmp_path):
    (place / "lists").mkdir()
    lines = [f"{place}/1.png\tone", "../2.png\ttwo"]
    (place / "lists" / "x.tsv").write_text("filepath\ttitle\n" + "\n".join(lines))
    batch = open_source("tsv:lists/x.tsv", "train").batch(np.arange(2))
    assert (batch["image"] == np.stack([pixels(1), pixels(2)])).all()
    (place / "lists" / "y.tsv").write_text("filepath\ttitle\n3.png\tthree\n")
    batch = open_source("tsv:lists/y.tsv?folder=.", "train").batch(np.arange(1))
    assert (batch["image"][0] == pixels(3)).all()


def test_several_files_are_one_table_and_a_row_is_named_by_its_file(place):
    for name, rows in {"b-08": "1.png,0\n", "b-09": "2.png,\n3.png,2\n", "b-10": "0.png,0\n"}.items():
        (place / f"{name}.csv").write_text(f"path,label\n{rows}")
    source = open_source("csv:b-{08..10}.csv", "train")
    assert (source.batch(np.arange(3))["image"] == np.stack([pixels(i) for i in (1, 3, 0)])).all()
    assert source.left_out.lines() == ["1 without a label: b-09.csv, row 0"]
    # Numbers, as all of them are, whichever file they are in.
    assert source.label_of.tolist() == [0, 2, 0] and source.class_names is None
    (place / "b-{08..10}.csv").write_text("path,label\n0.png,0\n1.png,1\n")
    assert open_source("csv:b-{08..10}.csv", "train").num_examples == 2
