"""What is said of captions that a tokenizer cuts or does not know."""

import numpy as np
import pytest

from classact.data.captions import LabelsAsText, Tokenized
from classact.data.source import ArraySource, DataError
from classact.data.tokenizer import BaseTokenizer
from classact.data.views import SourceView
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.assembly.parts.text_lines import say_what_is_cut


class Words(BaseTokenizer):
    def tokens(self, captions):
        return [[3 if word == "what" else 4 for word in caption.split()] for caption in captions]

    def decode(self, text):
        raise NotImplementedError


class Captioned(SourceView):
    """Images that cannot be read, with captions."""

    def __init__(self, captions):
        count = len(captions)
        super().__init__(ArraySource("mine", np.zeros((count, 1, 1, 1), np.uint8), np.zeros(count, int), 1))
        self.captioned, self.image_of, self._captions = True, np.arange(count), captions
        self.read = 0

    def batch(self, indices):
        raise DataError("no image may be read for this")

    def caption_at(self, indices):
        self.read += len(indices)
        return [self._captions[i] for i in indices]


def said(source, unknown=None, length=5):
    tokenizer = Words(9, length, start_id=1, end_id=2)
    tokenizer.unknown_id = unknown
    lines = FirstLines()
    say_what_is_cut(Tokenized(source, tokenizer), lines)
    (line,) = lines.lines()
    return line


def test_all_captions_of_a_small_set_are_looked_at():
    line = said(Captioned(["a b", "a b c", "a b c d", "a b c d e f"]))
    assert line.startswith("warning: mine: 50.0 % of the 4 captions are longer than 3 tokens")
    assert "the longest has 6" in line and "context_length=8 would keep all" in line


def test_a_large_set_is_sampled():
    source = Captioned(["a b c d"] * 30 + ["a"] * 4_970)
    assert "of 1,000 captions drawn from 5,000" in said(source)
    assert source.read == 1_000


@pytest.mark.parametrize(("captions", "warns"), [(["a b"] * 200, False), (["what b"] * 3 + ["a"] * 97, True)])
def test_many_unknown_tokens_are_a_warning(captions, warns):
    line = said(Captioned(captions), unknown=3)
    assert line.startswith("warning: ") == warns
    assert ("3.0 % have unknown tokens" in line) == warns


def test_captions_made_of_class_names_are_looked_at_too():
    images, labels = np.zeros((2, 1, 1, 1), np.uint8), np.arange(2)
    source = ArraySource("mine", images, labels, 2, ["cat", "very-long-name-of-a-dog"])
    assert "50.0 % of the captions made of class names" in said(LabelsAsText(source, ("a {}",)))
