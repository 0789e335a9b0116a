import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data.caption_text import CaptionedImages, captions_of, captions_option
from classact.data.source import DataError


def test_a_file_is_one_caption_or_one_a_line():
    assert captions_of(b" a\r\n\n b \n") == ["a\r\n\n b"]
    assert captions_of(b" a\r\n\n b \n", lines=True) == ["a", "b"]
    assert captions_of("a\u2028b\x0bc\x0cd\x85e\r".encode(), lines=True) == ["a\u2028b\x0bc\x0cd\x85e"]
    assert captions_of(b"\n \t\r\n") == captions_of(b"", lines=True) == []


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
def test_a_mark_says_how_it_is_encoded(encoding):
    mark = "\ufeff" if encoding[-3:] in ("-le", "-be") else ""
    assert captions_of(f"{mark}é\n猫".encode(encoding), lines=True) == ["é", "猫"]


@pytest.mark.parametrize(
    "content",
    [
        "café".encode("latin-1"),
        "猫".encode("shift-jis"),
        "cat".encode("utf-16-be"),
        b"\xff\xfea",
        b"\xed\xa0\x80",
    ],
)
def test_what_is_no_text_is_an_error(content):
    with pytest.raises(ValueError, match=r"."):
        captions_of(content)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff")))
def test_captions_are_stripped_and_never_empty(text):
    lines = captions_of(text.encode(), lines=True)
    assert all(line and line == line.strip() and "\n" not in line for line in lines)
    assert captions_of("\n".join(lines).encode(), lines=True) == lines
    assert captions_of(text.encode()) == ([text.strip()] if text.strip() else [])


def test_options_are_named_when_they_are_wrong():
    assert captions_option("tar", "lines") and not captions_option("tar", "one")
    with pytest.raises(DataError, match=r"'tar': captions=line, expected one .* or lines"):
        captions_option("tar", "line")


def test_a_few_captions_that_are_no_text_are_left_out_and_more_are_refused(tmp_path):
    def found(bad, good):
        images = CaptionedImages("x", lines=False)
        for number in range(bad):
            images.add(tmp_path, f"bad{number}", b"\xe9")
        for number in range(good):
            images.add(tmp_path, f"good{number}", b"text")
        images.finish()
        return images

    assert list(found(3, 7).left_out) == [("with a caption that is no UTF-8", 3, ("bad0", "bad1", "bad2"))]
    assert len(found(5, 495).files) == 495
    with pytest.raises(
        DataError, match=r"x: 4 of 10 captions are no UTF-8, expected at most 3; the last one is bad3"
    ):
        found(4, 6)
    with pytest.raises(DataError, match="6 of 500 captions are no UTF-8, expected at most 1%"):
        found(6, 494)
    with pytest.raises(DataError, match="1 of 1 captions"):
        found(1, 0)
