"""Rows of tokens as the tools make them of the same vocabulary; `make_tokenizers.py` has asked the tools."""

import os
import pathlib
import sys

import numpy as np
import odd_captions
import pytest

from classact.data.source import DataError
from classact.data.tokenizer import load_tokenizer

FOLDER = pathlib.Path(os.environ.get("TOKENIZERS", pathlib.Path(__file__).parent / "fixtures"))
CAPTIONS = odd_captions.captions(int(os.environ.get("CAPTIONS", "400")))
SPECS = {
    "hf_clip_files": f"hf:{FOLDER}/hf_clip_files",
    "hf_clip": f"hf:{FOLDER}/hf_clip",
    "hf_siglip": f"hf:{FOLDER}/hf_siglip",
    "hf_siglip2": f"hf:{FOLDER}/hf_siglip2",
    "open_clip": "open_clip",
    "open_clip_canonicalize": f"open_clip:{FOLDER}/open_clip_canonicalize",
    "open_clip_whitespace": f"open_clip:{FOLDER}/open_clip_whitespace",
}
with np.load(FOLDER / "expected.npz") as file:
    EXPECTED = dict(file)


@pytest.mark.parametrize("name", SPECS)
def test_rows_are_those_of_the_tool(name):
    expected = EXPECTED[name]
    tokenizer = load_tokenizer(SPECS[name], expected.shape[1])
    found = tokenizer.encode(CAPTIONS)
    assert found.dtype == np.int32 and found.shape == expected.shape
    differs = np.flatnonzero((found != expected).any(axis=1))
    assert not len(differs), (
        f"{len(differs)}, such as {CAPTIONS[differs[0]][:80]!r}: {found[differs[0]]}, {expected[differs[0]]}"
    )
    assert found.min() >= 0 and found.max() < tokenizer.vocab_size
    # What is cut is what has more tokens than fit.
    cut = [len(ids) > tokenizer.max_tokens for ids in tokenizer.tokens(CAPTIONS)]
    assert any(cut) and not all(cut)


def test_captions_are_read_again():
    tokenizer = load_tokenizer(SPECS["hf_clip_files"], 16)
    assert tokenizer.decode(tokenizer.encode(["a red house"])) == ["a red house"]
    # A name in the working directory is no module of a user's.
    with pytest.raises(DataError, match="nothing_here: no such file or folder"):
        load_tokenizer("hf:nothing_here", 16)


@pytest.mark.parametrize(
    ("spec", "file", "text", "match"),
    [
        ("hf", "spiece.model", "damaged", r"spiece\.model: not a vocabulary of sentencepiece"),
        ("hf", "tokenizer.json", "{", r"tokenizer\.json: not a vocabulary of the library"),
        ("hf", "other.json", "{}", r"no tokenizer: expected tokenizer\.json"),
        ("open_clip", "open_clip_config.json", "{", r"open_clip_config\.json: cannot be read"),
        ("sentencepiece", "", "", "not a vocabulary of sentencepiece"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, spec, file, text, match):
    place = tmp_path / (file or "a.model")
    place.write_text(text)
    with pytest.raises(DataError, match=match) as caught:
        load_tokenizer(f"{spec}:{tmp_path if file else place}", 16)
    assert "\n" not in str(caught.value)


def test_a_folder_without_padding_is_refused(tmp_path):
    source = FOLDER / "open_clip_canonicalize" / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match="names no pad_token"):
        load_tokenizer(f"hf:{tmp_path}", 16)


def test_a_lacking_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(DataError, match=r"package ftfy.*pip install classact\[texts\]"):
        load_tokenizer("open_clip", 16)


def test_big_vision_ends_every_text_and_lowers_ascii_alone():
    """`tokenize(lower=True, eos="sticky", pad_value=1)`, of whose cases big_vision's docstring has these."""
    tokenizer = load_tokenizer(f"sentencepiece:{FOLDER}/hf_siglip/spiece.model", 5)
    assert tokenizer.pad_id == tokenizer.end_id == 1
    short, long, ascii_only = tokenizer.encode(["A", "a red house " * 3, "\u00cf E"])
    assert short[1:].tolist() == [1] * 4 and short[0] == tokenizer.encode(["a"])[0, 0]
    assert long[-1] == 1 and 1 not in long[:-1]
    np.testing.assert_array_equal(ascii_only, tokenizer.encode(["\u00cf e"])[0])
    assert tokenizer.encode(["\u00cf"])[0].tolist() != tokenizer.encode(["\u00ef"])[0].tolist()
