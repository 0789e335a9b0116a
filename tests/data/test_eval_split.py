"""What is held out of a source without an eval split."""

import numpy as np
import pytest

from classact.data.eval_split import eval_indices
from classact.data.source import ArraySource
from classact.data.views import SourceView


def labelled(labels, images=None):
    labels = np.asarray(labels)
    images = np.arange(len(labels)) if images is None else np.asarray(images)
    pixels = images.astype("<u4").view(np.uint8).reshape(-1, 1, 1, 4)
    return ArraySource("mine", pixels, labels, int(labels.max()) + 1)


def captioned(image_of):
    source = SourceView(labelled(np.zeros(len(image_of), int), image_of))
    source.label_of = None
    source.image_of = np.asarray(image_of)
    return source


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_the_share_is_exact_and_even_over_the_classes(share):
    source = labelled(np.repeat([0, 1, 2], [100, 200, 700]))
    held = eval_indices(source, share, 0)
    assert len(held) == 1000 * share
    assert np.bincount(source.label_of[held]).tolist() == (np.array([100, 200, 700]) * share).tolist()
    assert (np.diff(held) > 0).all()


def test_whole_numbers_come_closest_to_the_share():
    source = labelled(np.repeat(np.arange(4), 30))
    counts = np.bincount(source.label_of[eval_indices(source, 0.05, 0)])
    # 1.5 of each class.
    assert sorted(counts) == [1, 1, 2, 2]


def test_each_class_gives_one_but_never_its_last():
    source = labelled([0, 1, 1, 2, 2, 2, *[3] * 20])
    assert np.bincount(source.label_of[eval_indices(source, 0.05, 0)]).tolist() == [0, 1, 1, 1]


def test_there_may_be_nothing_to_spare():
    assert not len(eval_indices(labelled([0, 1, 2]), 0.05, 0))
    assert not len(eval_indices(labelled([0] * 100), 0.0, 0))


def test_copies_stay_on_one_side():
    images = np.arange(100) % 25
    held = eval_indices(labelled(np.arange(100) % 5, images), 0.2, 3)
    assert not set(images[held]) & set(images[np.setdiff1d(np.arange(100), held)])
    # One image of five of each class.
    assert len(held) == 20


def test_captions_of_an_image_stay_on_one_side():
    image_of = np.repeat(np.arange(20), 5)
    held = eval_indices(captioned(image_of), 0.1, 3)
    assert len(held) == 10
    assert len(set(image_of[held])) == 2


def test_a_seed_gives_the_same_choice_and_another_seed_another():
    source = labelled(np.arange(300) % 3)
    chosen = [eval_indices(source, 0.1, seed).tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]
