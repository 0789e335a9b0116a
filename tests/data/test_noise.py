import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.noise import effective_noise_rate, with_label_noise
from classact.data.source import ArraySource
from classact.data.views import Subset

COUNT, CLASSES = 40_000, 10
SOURCE = ArraySource("test", np.zeros((COUNT, 1, 1, 1), np.uint8), np.arange(COUNT) % CLASSES, CLASSES)


def read_all(source):
    return source.batch(np.arange(source.num_examples))


def test_share_of_wrong_labels_is_the_effective_rate():
    batch = read_all(with_label_noise(SOURCE, 0.2, seed=3))
    assert batch["clean_label"].tolist() == (np.arange(COUNT) % CLASSES).tolist()
    assert batch["label"].dtype == np.int32
    wrong = batch["label"] != batch["clean_label"]
    expected = effective_noise_rate(0.2, CLASSES)
    assert expected == pytest.approx(0.18)
    # Five standard deviations of a binomial share.
    assert abs(wrong.mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / COUNT)


@pytest.mark.parametrize(
    ("seed", "first", "digest"),
    [
        (0, [0, 6, 1, 9, 4, 5, 6, 7, 8, 9, 0, 1], "87f932bad73f76bc"),
        (3, [0, 7, 9, 3, 4, 3, 6, 7, 1, 9, 0, 1], "39a237820e889def"),
        (2**32 - 1, [9, 1, 2, 1, 0, 4, 3, 7, 3, 7, 5, 1], "9caa88a61edca99d"),
    ],
)
def test_noisy_labels_are_those_of_earlier_runs(seed, first, digest):
    labels = read_all(with_label_noise(SOURCE, 0.5, seed))["label"]
    assert labels[:12].tolist() == first
    assert hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest()[:16] == digest


def test_redrawn_labels_are_uniform_over_all_classes_whatever_the_truth():
    batch = read_all(with_label_noise(SOURCE, 1.0, seed=0))
    table = np.zeros((CLASSES, CLASSES))
    np.add.at(table, (batch["clean_label"], batch["label"]), 1)
    expected = COUNT / CLASSES**2
    chi_square = ((table - expected) ** 2 / expected).sum()
    # 90 degrees of freedom: mean 90, standard deviation 13.4.
    assert 40 < chi_square < 150


def test_noise_belongs_to_the_example_and_not_to_the_reading():
    whole = read_all(with_label_noise(SOURCE, 0.5, seed=7))
    indices = np.random.default_rng(0).permutation(COUNT)[:1000]
    some = with_label_noise(SOURCE, 0.5, seed=7).batch(indices)
    assert some["label"].tolist() == whole["label"][indices].tolist()
    subset = read_all(with_label_noise(Subset(SOURCE, indices), 0.5, seed=7))
    assert subset["label"].tolist() == whole["label"][indices].tolist()


def test_seeds_give_independent_noise():
    first = read_all(with_label_noise(SOURCE, 0.5, seed=0))
    second = read_all(with_label_noise(SOURCE, 0.5, seed=1))
    wrong = first["label"] != first["clean_label"]
    wrong_too = second["label"] != second["clean_label"]
    assert abs((wrong & wrong_too).mean() - 0.45**2) < 0.02


def test_rate_zero_changes_nothing_and_other_fields_pass():
    batch = read_all(with_label_noise(SOURCE, 0.0, seed=0))
    assert batch["label"].tolist() == batch["clean_label"].tolist()
    assert set(batch) == {"id", "image", "label", "clean_label"}


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(0, 1), seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 50))
def test_labels_stay_in_range_and_truth_is_kept(rate, seed, classes):
    labels = np.arange(200) % classes
    source = ArraySource("test", np.zeros((200, 1, 1, 1), np.uint8), labels, classes)
    batch = read_all(with_label_noise(source, rate, seed))
    assert batch["label"].min() >= 0 and batch["label"].max() < classes
    assert batch["clean_label"].tolist() == labels.tolist()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(ValueError, match="label_noise="):
        with_label_noise(SOURCE, rate, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed={seed}: must be at least 0 and below 2"):
        with_label_noise(SOURCE, 0.1, seed=seed)


def test_noise_on_noise_is_refused():
    with pytest.raises(ValueError, match="label noise already"):
        read_all(with_label_noise(with_label_noise(SOURCE, 0.1, seed=0), 0.1, seed=1))
