import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.captions import LabelsAsText, Tokenized, class_text, with_shuffled_captions
from classact.data.noise import with_label_noise
from classact.data.source import ArraySource, DataError, Source, checked_indices
from classact.data.tokenizer import load_tokenizer, train_tokenizer
from classact.data.views import Subset, held_out_split


class Pairs(Source):
    """Pair i is image i // captions, "image I caption J"; every image in `damaged` is left out."""

    def __init__(self, images=20, captions=1, damaged=(), texts=None):
        self.name = "pairs"
        self.num_examples = images * captions
        self.image_shape = (2, 2, 1)
        self.num_classes = 0
        self.captioned = True
        self.image_of = np.arange(self.num_examples) // captions
        self.damaged = damaged
        self.texts = texts or [
            f"image {i // captions} caption {i % captions}" for i in range(self.num_examples)
        ]

    def batch(self, indices):
        indices = checked_indices(indices, self.num_examples)
        indices = indices[~np.isin(self.image_of[indices], self.damaged)]
        pixels = self.image_of[indices].astype(np.uint8)[:, None, None, None]
        caption = np.array([*self.caption_at(indices), None], object)[:-1]
        return {"id": indices, "image": np.broadcast_to(pixels, (len(indices), 2, 2, 1)), "caption": caption}

    def caption_at(self, indices):
        return [self.texts[index] for index in checked_indices(indices, self.num_examples)]


def read_all(source):
    return source.batch(np.arange(source.num_examples))


def labelled(names=("arrow-left", "big_home"), count=6):
    return ArraySource("labelled", np.zeros((count, 1, 1, 1), np.uint8), np.arange(count) % 2, 2, names)


def test_a_subset_passes_captions_and_images_through():
    subset = Subset(Subset(Pairs(4, 2), np.array([7, 2, 3, 0])), np.array([2, 0, 1]))
    assert subset.captioned and subset.num_classes == 0
    assert subset.image_of.tolist() == [1, 3, 1]
    assert subset.caption_at(np.array([1, 0])) == ["image 3 caption 1", "image 1 caption 1"]
    assert subset.ids(np.array([0, 2])).tolist() == [3, 2]
    assert read_all(subset)["caption"].tolist() == subset.caption_at(np.arange(3))


def test_sources_without_captions_say_so():
    assert not labelled().captioned and labelled().image_of is None
    for make in (
        lambda: Tokenized(labelled(), load_tokenizer("icons", 8)),
        lambda: with_shuffled_captions(labelled(), 0.5, 0),
        lambda: labelled().caption_at(np.arange(1)),
    ):
        with pytest.raises(DataError, match="labelled has no captions"):
            make()


def test_a_held_out_split_keeps_an_image_s_captions_together():
    rest, held_out = held_out_split(Pairs(10, 3), 0.3, seed=0)
    assert (rest.num_examples, held_out.num_examples) == (21, 9)
    assert not set(rest.image_of.tolist()) & set(held_out.image_of.tolist())


def test_tokenized_puts_text_in_place_of_the_caption():
    tokenizer = train_tokenizer(["image caption 0"], 300, 16)
    source = Tokenized(Pairs(damaged=[2]), tokenizer)
    assert source.captioned and source.caption_at(np.array([1])) == ["image 1 caption 0"]
    batch = source.batch(np.array([5, 2, 1]))
    assert set(batch) == {"id", "image", "text"}
    assert batch["text"].dtype == np.int32 and batch["text"].shape == (2, 16)
    assert tokenizer.decode(batch["text"]) == ["image 5 caption 0", "image 1 caption 0"]
    assert source.truncated == 0


def test_captions_that_are_cut_are_counted_each_time():
    texts = ["a", "a b c d e f g", "b", "a b c d e f g"]
    tokenizer = train_tokenizer(["a b c d e f g"] * 2, 259, 8)
    source = Tokenized(Pairs(4, texts=texts), tokenizer)
    text = source.batch(np.array([0, 1, 1]))["text"]
    assert (text[1] == tokenizer.end_id).tolist() == [False] * 7 + [True]
    assert (source.truncated, source.read) == (2, 3)
    read_all(source)
    assert (source.truncated, source.read) == (4, 7)


def test_labels_become_captions_by_their_names():
    source = LabelsAsText(labelled())
    assert source.captioned and source.image_of.tolist() == list(range(6))
    batch = source.batch(np.array([3, 0]))
    assert batch["caption"].tolist() == ["big home", "arrow left"]
    assert batch["caption"].dtype == object
    assert batch["label"].tolist() == [1, 0]


def test_templates_are_taken_by_the_id():
    source = LabelsAsText(Subset(labelled(), np.array([1, 3, 5])), ["a {}", "the {}.", "{}"])
    assert read_all(source)["caption"].tolist() == ["the big home.", "a big home", "big home"]


def test_a_redrawn_label_is_the_caption():
    batch = read_all(LabelsAsText(with_label_noise(labelled(count=64), 1.0, seed=0)))
    assert (batch["label"] != batch["clean_label"]).any()
    assert batch["caption"].tolist() == [["arrow left", "big home"][label] for label in batch["label"]]


@pytest.mark.parametrize("template", ["", "a photo", "{} and {}", "{name}"])
def test_templates_that_do_not_take_one_name_are_refused(template):
    with pytest.raises(ValueError, match="expected exactly one"):
        LabelsAsText(labelled(), [template])


def test_labels_that_cannot_be_text_are_refused():
    with pytest.raises(DataError, match="no names"):
        LabelsAsText(labelled(names=None))
    with pytest.raises(DataError, match="captions already"):
        LabelsAsText(LabelsAsText(labelled()))
    with pytest.raises(ValueError, match="at least one"):
        LabelsAsText(labelled(), [])
    with pytest.raises(DataError, match="redraw the labels instead"):
        with_shuffled_captions(LabelsAsText(labelled()), 0.5, 0)


def test_class_text_is_words():
    assert class_text("arrow-left_2--up") == "arrow left 2 up"


@settings(max_examples=100, deadline=None)
@given(images=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_shuffling_passes_captions_round_and_keeps_the_truth(images, share, seed):
    source = Pairs(images)
    batch = read_all(with_shuffled_captions(source, share, seed))
    chosen = round(share * images)
    # One alone keeps its caption: there is none to swap with.
    assert batch["corrupted"].sum() == (chosen if chosen > 1 else 0)
    assert sorted(batch["caption"]) == sorted(source.texts)
    changed = [caption != text for caption, text in zip(batch["caption"], source.texts, strict=True)]
    assert batch["corrupted"].tolist() == changed


def test_shuffling_is_the_same_in_every_reading_and_differs_by_seed():
    whole = read_all(with_shuffled_captions(Pairs(200), 0.5, 3))
    again = with_shuffled_captions(Pairs(200, damaged=[7, 9]), 0.5, 3)
    indices = np.array([9, 150, 7, 3, 150, 20])
    some = again.batch(indices)
    assert some["id"].tolist() == [150, 3, 150, 20]
    for field in ("caption", "corrupted"):
        assert some[field].tolist() == whole[field][[150, 3, 150, 20]].tolist()
    assert again.caption_at(indices) == whole["caption"][indices].tolist()
    other = read_all(with_shuffled_captions(Pairs(200), 0.5, 4))
    assert other["corrupted"].tolist() != whole["corrupted"].tolist()


def test_only_a_subset_s_own_captions_are_shuffled_in_it():
    chosen = np.array([5, 11, 2, 17, 8])
    batch = read_all(with_shuffled_captions(Subset(Pairs(), chosen), 1.0, 0))
    assert batch["id"].tolist() == chosen.tolist() and batch["corrupted"].all()
    assert sorted(batch["caption"]) == sorted(f"image {image} caption 0" for image in chosen)


def test_an_equal_text_or_a_caption_of_the_same_image_is_not_corrupted():
    same = read_all(with_shuffled_captions(Pairs(10, texts=["home"] * 10), 1.0, 0))
    assert not same["corrupted"].any() and same["corrupted"].dtype == bool
    assert not read_all(with_shuffled_captions(Pairs(1, captions=8), 1.0, 0))["corrupted"].any()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="share="):
        with_shuffled_captions(Pairs(), share, 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed={seed}"):
        with_shuffled_captions(Pairs(), 0.5, seed)


def test_shuffling_twice_is_refused():
    with pytest.raises(ValueError, match="shuffled captions already"):
        read_all(with_shuffled_captions(with_shuffled_captions(Pairs(), 0.5, 0), 0.5, 0))
    with pytest.raises(DataError, match="tokens already"):
        with_shuffled_captions(Tokenized(Pairs(), load_tokenizer("icons", 8)), 0.5, 0)
