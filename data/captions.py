"""Views on sources with captions: captions as tokens, labels as captions, captions of other images."""

from collections.abc import Mapping, Sequence

import numpy as np

from classact.data import prompts, seeds
from classact.data.source import Batch, DataError, Source, checked_indices
from classact.data.tokenizer import BaseTokenizer
from classact.data.views import SourceView


class Tokenized(SourceView):
    """A captioned source whose batches have `text: int32[B, L]` in place of `caption`.

    Args:
        source: a captioned source.
        tokenizer: the vocabulary and the context length L.
        others: more of them, by the field that each adds, for models that read other tokens.

    Raises:
        DataError: if the source has no captions.
    """

    def __init__(
        self, source: Source, tokenizer: BaseTokenizer, others: Mapping[str, BaseTokenizer] | None = None
    ) -> None:
        super().__init__(source)
        _check_captioned(source)
        self.tokenizer = tokenizer
        self._others = dict(others or {})
        self._read = self._truncated = 0

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`."""
        batch = self.source.batch(indices)
        captions = batch.pop("caption")
        more = {name: other.encode(captions.tolist()) for name, other in self._others.items()}
        tokens = self.tokenizer.tokens(captions)
        self._read += len(tokens)
        self._truncated += sum(len(ids) > self.tokenizer.max_tokens for ids in tokens)
        return {**batch, "text": self.tokenizer.pack(tokens), **more}

    @property
    def read(self) -> int:
        """How many captions were read so far; a pair counts each time that it comes."""
        return self._read

    @property
    def truncated(self) -> int:
        """How many of those that were read were too long, and were cut."""
        return self._truncated


class LabelsAsText(SourceView):
    """A labelled source with captions made of its class names (Appendix A.3).

    Its batches keep `label`, and have `caption` too. An example's template follows
    from its id: it is the same in every epoch.

    Args:
        source: a source with `class_names`; their `-` and `_` are read as spaces.
        templates: what to say of a class, with one `{}` for its name.

    Raises:
        DataError: if the classes have no names, or the source has captions.
        ValueError: if there is no template, or one has not exactly one `{}`.
    """

    def __init__(self, source: Source, templates: Sequence[str] = ("{}",)) -> None:
        super().__init__(source)
        if source.captioned:
            raise DataError(f"{source.name} has captions already")
        if not source.class_names:
            raise DataError(f"{source.name}: its classes have no names to make captions of")
        if not templates:
            raise ValueError("templates: expected at least one")
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"template {template!r}: expected exactly one {{}}, for the class's name")
        self.captioned = True
        self.image_of = np.arange(source.num_examples)
        try:
            self._texts = [[prompts.fill(text, name) for text in templates] for name in source.class_names]
        except DataError as error:
            raise DataError(f"{source.name}: {error}") from None

    @property
    def texts(self) -> list[str]:
        """Every caption that an example may have."""
        return [text for own in self._texts for text in own]

    def batch(self, indices: np.ndarray) -> Batch:
        """See `Source.batch`."""
        batch = self.source.batch(indices)
        captions = np.empty(len(batch["id"]), object)
        # A label may have been redrawn (`noise`): then so is the caption.
        for row, (example, label) in enumerate(zip(batch["id"], batch["label"], strict=True)):
            texts = self._texts[label]
            captions[row] = texts[example % len(texts)]
        return {**batch, "caption": captions}

    def caption_at(self, indices: np.ndarray) -> list[str]:
        """DataError: the labels aren't known without reading the images; see `noise.with_label_noise`."""
        raise DataError(f"{self.name}: its captions come from labels; redraw the labels instead")


def class_text(name: str) -> str:
    """A class's name as words: `-` and `_` become spaces."""
    return prompts.fill("{}", name)


def with_shuffled_captions(source: Source, share: float, seed: int) -> Source:
    """Gives a share of the pairs the caption of another pair, and keeps the truth beside it.

    The pairs are drawn at random and pass their captions round in a ring, so none
    keeps its own. Which pairs, and whose caption, depends on the seed and the
    source's length only: it is the same in every epoch, reader and process.

    Args:
        source: a captioned source; of a part of one, only its pairs are shuffled.
        share: the share of the pairs, in [0, 1], rounded to whole pairs.
        seed: the same seed gives the same captions.

    Returns:
        A source whose batches have `corrupted: bool[B]`: true where the caption
        now has another text, and comes from another image.

    Raises:
        ValueError: if the share or the seed is out of range, or captions are shuffled already.
        DataError: if the source has no captions that can be read without images, or they are tokens.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"shuffled captions: share={share}, expected 0 to 1")
    _check_captioned(source)
    if isinstance(source, Tokenized):
        raise DataError(f"{source.name}: its captions are tokens already; shuffle them before")
    return _ShuffledSource(source, share, seeds.checked(seed))


class _ShuffledSource(SourceView):
    def __init__(self, source: Source, share: float, seed: int) -> None:
        super().__init__(source)
        source.caption_at(np.arange(1))  # So that a source that cannot fails now.
        order = np.random.default_rng([0xCA9, seed]).permutation(source.num_examples)
        ring = order[: round(share * source.num_examples)]
        self._giver = np.arange(source.num_examples)
        self._giver[ring] = np.roll(ring, 1)

    def batch(self, indices: np.ndarray) -> Batch:
        batch = self.source.batch(indices)
        if "corrupted" in batch:
            raise ValueError(f"{self.name} has shuffled captions already")
        # The source may have left out rows: find those of this batch.
        kept = np.asarray(indices)[np.isin(self.source.ids(indices), batch["id"])]
        captions = np.empty(len(kept), object)
        captions[:] = self.caption_at(kept)
        other = np.ones(len(kept), bool)
        if self.image_of is not None:
            other = self.image_of[kept] != self.image_of[self._giver[kept]]
        return {**batch, "caption": captions, "corrupted": other & (captions != batch["caption"])}

    def caption_at(self, indices: np.ndarray) -> list[str]:
        return self.source.caption_at(self._giver[checked_indices(indices, self.num_examples)])


def _check_captioned(source: Source) -> None:
    if not source.captioned:
        raise DataError(f"{source.name} has no captions: make some of its labels with LabelsAsText")
