import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.source import DataError
from classact.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

CORPUS = ["home outline", "home bold", "clipboard list", "clipboard check outline"] * 5


@pytest.fixture(scope="module")
def clip():
    return load_tokenizer("clip", 77)


@pytest.fixture(scope="module")
def small():
    return train_tokenizer(CORPUS, 300, 12)


def test_clip_has_its_sizes(clip):
    assert (clip.vocab_size, clip.context_length, clip.pad_id) == (49408, 77, 0)
    assert (clip.start_id, clip.end_id) == (49406, 49407)
    text = clip.encode(["a photo of a cat", ""])
    assert text.dtype == np.int32 and text.shape == (2, 77)
    assert text[0].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407] + [0] * 70
    assert text[1].tolist() == [49406, 49407] + [0] * 75


@pytest.fixture(scope="module")
def long():
    return train_tokenizer(CORPUS, 300, 200)


# What the tokenizer of open-clip-torch 3.3.0 gives for the same captions.
@pytest.mark.parametrize(
    ("caption", "ids"),
    [
        ("A Photo of a CAT!", [320, 1125, 539, 320, 2368, 256]),
        ("it\u2019s the dog\u2019s \u201cbone\u201d", [585, 568, 518, 1929, 568, 257, 6195, 257]),
        ("caf\xe9 cafe\u0301 na\xefve", [15304, 15304, 1097, 35689, 563]),
        (
            "10,000 miles &amp; 3.14 &amp;lt;b&amp;gt;",
            [272, 271, 267, 271, 271, 271, 3446, 261, 274, 269, 272, 275, 283, 321, 285],
        ),
        ("  tabs\tand\nnewlines  ", [29163, 537, 1218, 3418]),
        ("日本語", [39121, 44353, 34002, 508]),
        ("emoji 😀👍🏽", [16327, 12832, 43722]),
        (
            "don't we'll they've I'm he'd you're",
            [847, 713, 649, 1342, 889, 1200, 328, 880, 797, 1896, 592, 982],
        ),
        ("snake_case kebab-case", [8798, 318, 2068, 36497, 268, 2068]),
        ("a\xa0b \xbd \u2461", [320, 321, 33613, 158, 239, 350]),
        ("supercalifragilistic", [1642, 2857, 13093, 2076, 1561]),
        ("clipboard list outline regular", [39712, 1972, 1998, 26894, 6307]),
    ],
)
def test_clip_gives_the_original_s_ids(clip, caption, ids):
    assert clip.tokens([caption]) == [ids]


def test_what_spells_a_special_token_is_text(clip, small):
    for tokenizer, spelled in ((clip, "<|endoftext|>"), (small, "<end> <start> <pad>")):
        (ids,) = tokenizer.tokens([spelled])
        assert not {tokenizer.start_id, tokenizer.end_id} & set(ids)
        assert len(ids) > 3


def test_a_caption_beyond_the_context_is_cut_and_keeps_its_end():
    short = load_tokenizer("clip", 5)
    assert short.encode(["a photo of a cat", "a photo of", "cat"]).tolist() == [
        [49406, 320, 1125, 539, 49407],
        [49406, 320, 1125, 539, 49407],
        [49406, 2368, 49407, 0, 0],
    ]


def test_training_learns_the_corpus_s_words(small):
    assert (small.pad_id, small.start_id, small.end_id) == (0, 1, 2)
    assert 259 < small.vocab_size <= 300
    frequent, unseen = small.tokens(["outline", "zebra"])
    assert len(frequent) == 1 < len(unseen)
    assert small.tokens(["HOME\n  Outline "]) == small.tokens(["home outline"])


@settings(max_examples=60, deadline=None)
@given(captions=st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=5))
def test_rows_are_start_tokens_end_padding(small, clip, captions):
    for tokenizer in (small, clip):
        text = tokenizer.encode(captions)
        assert text.shape == (len(captions), tokenizer.context_length)
        for row, ids in zip(text.tolist(), tokenizer.tokens(captions), strict=True):
            kept = ids[: tokenizer.max_tokens]
            expected = [tokenizer.start_id, *kept, tokenizer.end_id]
            assert row == expected + [tokenizer.pad_id] * (tokenizer.context_length - len(expected))
            assert all(0 <= token < tokenizer.vocab_size for token in row)


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.text("abcdefgh-é日😀", min_size=1, max_size=8), max_size=4))
def test_decoding_gives_the_caption_back(long, words):
    assert long.decode(long.encode([" ".join(words)])) == [" ".join(words)]


def test_clip_s_decoding_parts_words_as_its_pattern_does(clip):
    assert clip.decode(clip.encode(["A photo, of a Caf\u00e9 \U0001f600"])) == [
        "a photo , of a caf\u00e9 \U0001f600"
    ]


def test_a_saved_vocabulary_gives_the_same_ids(tmp_path, small, clip):
    for tokenizer in (small, clip):
        tokenizer.save(tmp_path / "v.json")
        again = load_tokenizer(f"file:{tmp_path}/v.json", tokenizer.context_length)
        captions = ["clipboard \u201clist\u201d", "It's  a &amp; zebra", ""]
        assert again.encode(captions).tolist() == tokenizer.encode(captions).tolist()
        assert again.vocab_size == tokenizer.vocab_size


def test_icons_vocabulary_has_its_corpus_s_words_whole():
    tokenizer = load_tokenizer("icons", 16)
    assert tokenizer.vocab_size == 2048
    assert [
        len(ids) for ids in tokenizer.tokens(["clipboard list outline", "home", "arrow left filled"])
    ] == [3, 1, 3]


def test_bad_specs_files_and_sizes_are_refused(tmp_path):
    for spec in ("CLIP", "file:", "", "bert"):
        with pytest.raises(DataError, match="expected clip, icons, file:PATH, hf:FOLDER"):
            load_tokenizer(spec, 8)
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        load_tokenizer(f"file:{tmp_path}/none.json", 8)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(DataError, match=r"bad\.json: not a vocabulary"):
        load_tokenizer(f"file:{tmp_path}/bad.json", 8)
    with pytest.raises(ValueError, match="context_length=2"):
        load_tokenizer("clip", 2)
    with pytest.raises(ValueError, match="vocab_size=258: expected at least 259"):
        train_tokenizer(CORPUS, 258, 8)


def test_a_vocabulary_without_end_is_refused():
    library = tokenizers.Tokenizer(tokenizers.models.BPE({"<start>": 0, "a": 1}, []))
    with pytest.raises(DataError, match=r"2 tokens has none of <end>, <\|endoftext\|>"):
        Tokenizer(library, 8)


OWN = """
from classact.data.tokenizer import BaseTokenizer

class Words(BaseTokenizer):
    unknown_id = 3

    def tokens(self, captions):
        return [[{"a": 4, "cat": 5}.get(word, 3) for word in caption.split()] for caption in captions]

    def decode(self, text):
        return ["" for row in text]

def make(context_length):
    return Words(6, context_length, start_id=1, end_id=2)

def small(context_length):
    return Words(4, context_length, start_id=1, end_id=2)

def longer(context_length):
    return Words(6, context_length + 1, start_id=1, end_id=2)

def none(context_length):
    return None

def fails(context_length):
    return {}[context_length]
"""


def test_a_tokenizer_of_a_user_s_own(users_place):
    (users_place / "own_words.py").write_text(OWN)
    tokenizer = load_tokenizer("own_words:make", 5)
    np.testing.assert_array_equal(tokenizer.encode(["a cat", "a b c d"]), [[1, 4, 5, 2, 0], [1, 4, 3, 3, 2]])
    for name, said in (
        ("small", "with ids 1 to 4, expected int32.1, 5. with ids 0 to 3"),
        ("longer", "context_length=6, it was asked for 5"),
        ("none", "gave a NoneType"),
        ("fails", r"KeyError: 5 \(own_words.py, line 26\)"),
        ("missing", "own_words has no 'missing'"),
    ):
        with pytest.raises(DataError, match=f"tokenizer 'own_words:{name}'.*{said}"):
            load_tokenizer(f"own_words:{name}", 5)
