import pytest

from classact.data.shown import is_text, shown


@pytest.mark.parametrize(
    ("name", "expected", "text"),
    [
        ("café 東京", "café 東京", True),
        (b"caf\xe9/\xff".decode(errors="surrogateescape"), r"caf\xe9/\xff", False),
        ("a\nb\x1b[31m\u2028", r"a\nb\x1b[31m\u2028", True),
        ("\ud800", r"\ud800", False),
    ],
)
def test_names_are_shown_as_one_line_of_text(name, expected, text):
    assert shown(name) == expected
    assert shown(name).encode()
    assert is_text(name) is text
