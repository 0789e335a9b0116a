import json
import re

import pytest
import table_files

from classact.launch.commands import cli

pytestmark = pytest.mark.usefixtures("clean_flags")


@pytest.fixture
def place(tmp_path, monkeypatch):
    table_files.write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_source_holds_is_said_and_shown(place, capsys):
    assert cli.main(["classact", "inspect", "csv:pairs.csv", "--page=out/page.html"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "csv:pairs.csv (train): 80 pairs of 40 images, 6×8×3; no split of its own to measure on",
        "sizes of 40 files that were opened: 8×6 40",
        "captions: 2 words; 5 to 8, median 6 characters; 80 different ones",
        "read: 80 examples; damaged: none",
        "page: out/page.html",
    ]
    page = (place / "out" / "page.html").read_text()
    assert len(re.findall(r'<img src="data:image/png;base64,', page)) == 60
    assert "small 0" in page and not re.findall(r'(?:src|href)="(?!data:)', page)


def test_json_is_one_object(place, capsys):
    assert cli.main(["classact", "inspect", "tsv:labelled.tsv", "--json", "--page=p.html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == {"ant": 14, "bee": 13, "cow": 13} and found["image_shape"] == [6, 8, 3]
    assert "<td>ant</td><td>14</td>" in (place / "p.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one SPEC, got nothing"),
        (["csv:pairs.csv", "npz:x"], "expected one SPEC, got csv:pairs.csv npz:x"),
        (["csv:pairs.cvs"], "pairs.cvs: no such file; expected a file"),
        (["csv:pairs.csv", "--split=test"], "split"),
        (["csv:pairs.csv", "--page=pairs.csv/x.html"], "--page=pairs.csv/x.html: cannot be written"),
    ],
)
def test_what_it_cannot_do_is_one_line(place, capsys, arguments, message):
    assert cli.main(["classact", "inspect", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
