import json

import pytest

from classact.data import prompts
from classact.data.source import DataError


def test_the_templates_of_imagenet_are_the_80_of_clip():
    found = prompts.templates("imagenet")
    assert len(found) == len(set(found)) == 80
    assert found[0] == "a bad photo of a {}."
    assert found[-1] == "a tattoo of the {}."
    assert {"itap of my {}.", "a origami {}.", "a {} in a video game."} < set(found)


@pytest.mark.parametrize("spec", prompts.template_names())
def test_all_shipped_templates_take_one_name(spec):
    for template in prompts.templates(spec):
        assert prompts.fill(template, "heart").count("heart") == 1


def test_simple_and_icons_begin_with_the_bare_name():
    assert prompts.template_names() == ("icons", "imagenet", "simple")
    assert prompts.templates("simple") == ("{}", "a photo of a {}.")
    assert prompts.templates("icons")[0] == "{}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("arrow-left", "arrow left"), ("t_shirt", "t shirt"), ("_a--b ", "a b"), ("{} {0}", "{} {0}")],
)
def test_names_are_read_as_words(name, expected):
    assert prompts.fill("<{0}> {}!", name) == f"<{{0}}> {expected}!"


def test_a_name_without_words_is_refused():
    with pytest.raises(ValueError, match="class name '_-'"):
        prompts.fill("{}", "_-")


def test_files_of_lines_and_of_json_say_the_same(tmp_path):
    lines, items = tmp_path / "mine.txt", tmp_path / "mine.json"
    lines.write_bytes("\ufeff{} – icône\r\n  the {} \n\n".encode())
    items.write_text(json.dumps(["{} – icône", "the {}"]))
    for path in (lines, items):
        assert prompts.templates(f"file:{path}") == ("{} – icône", "the {}")
    names = tmp_path / "names"
    names.write_text("red panda\ncrane\ncrane\u2028bird")
    assert prompts.class_names(f"file:{names}") == ("red panda", "crane", "crane\u2028bird")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"a {}\nan icon\n", r"t.txt, line 2: 'an icon' has 0 times"),
        ("t.txt", b"a {} of {}", r"t.txt, line 1: .* has 2 times"),
        ("t.txt", b"a {}\n\nb {}\n", r"t.txt, line 2: '', expected text"),
        ("t.txt", b" \n", r"t.txt: has no entries"),
        ("t.txt", b"a {}\nb \xff {}\n", r"t.txt, line 2: not UTF-8"),
        ("t.json", b'["a {}",\n "b {}"', r"t.json, line 2: not JSON"),
        pytest.param("t.json", b"[" * 100_000, r"t.json: not a list of strings", id="deep"),
        ("t.json", b'{"a": "{}"}', r"t.json: a JSON dict, expected a list"),
        ("t.json", b'["a {}", 3]', r"t.json, item 2: 3, expected text"),
        ("t.json", b'["a {}", "b"]', r"t.json, item 2: 'b' has 0 times"),
        ("t.json", b"[]", r"t.json: has no entries"),
    ],
)
def test_errors_name_the_file_and_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        prompts.templates(f"file:{tmp_path / name}")


def test_missing_files_and_unknown_names():
    with pytest.raises(DataError, match=r"/nowhere/t.txt: cannot be read \(No such file"):
        prompts.templates("file:/nowhere/t.txt")
    with pytest.raises(DataError, match=r"templates 'imagnet': expected icons, imagenet, simple, file:PATH"):
        prompts.templates("imagnet")
    with pytest.raises(DataError, match="templates 'file:'"):
        prompts.templates("file:")
    with pytest.raises(DataError, match="class names 'imagenet': expected file:PATH"):
        prompts.class_names("imagenet")
