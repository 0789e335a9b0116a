"""The data of a run as they are opened to train on."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
from on_digits import only, open_train, resolved

from classact.data.decoding import pool
from classact.data.source import DataError
from classact.data.stream import IIDStream
from classact.launch.assembly.parts import sources


def test_the_parts_of_the_training_data_do_not_overlap():
    split = lambda name: open_train(held_out=0.25, train_split=name)  # noqa: E731
    rest, held_out, everything = split("rest"), split("held_out"), open_train()
    ids = lambda data: set(data.batch(range(data.num_examples))["id"].tolist())  # noqa: E731
    assert not ids(rest) & ids(held_out)
    assert ids(rest) | ids(held_out) == ids(everything)


def test_what_is_trained_on_is_augmented_and_what_is_measured_on_is_not():
    chosen, plain = resolved(augment="crop", seed=3), resolved(seed=3)
    rows = np.arange(30)
    (evaluator,) = chosen.evaluation.evaluators.values()
    seen, usual = (
        sources.open_eval_source(config, evaluator).batch(rows)["image"] for config in (chosen, plain)
    )
    assert np.array_equal(seen, usual)
    streams = [
        IIDStream(sources.open_train_source(config, only(config)), 1438, 3)
        for config in (chosen, chosen, plain, resolved(augment="crop", seed=4))
    ]
    epochs = [[next(stream) for _ in range(2)] for stream in streams]
    by_id = [[batch["image"][np.argsort(batch["id"])] for batch in epoch] for epoch in epochs]
    assert np.array_equal(by_id[0], by_id[1])
    # Padded by an eighth of 8 pixels, a ninth of the crops is where it was.
    moved = np.mean(np.any(by_id[0][0] != by_id[2][0], axis=(1, 2, 3)))
    assert 0.84 < moved < 0.93
    assert not np.array_equal(by_id[0][0], by_id[0][1]) and not np.array_equal(by_id[0][0], by_id[3][0])


def test_what_the_replay_cannot_carry_is_said():
    with pytest.raises(DataError, match=r"digits: its images are in no files .*images=pixels, or ids"):
        open_train(images="encoded")
    far = dataclasses.replace(only(resolved()), train_data="far")
    with mock.patch.object(sources.specs, "open_source") as opened:
        opened.return_value.name, opened.return_value.num_classes = "tar:s3://far/0.tar", 2
        opened.return_value.fetched_whole = np.array([0, 100])
        with pytest.raises(DataError, match=r"tar:s3://far/0.tar: replay.images=ids .*encoded or pixels"):
            sources.open_train_source(resolved(), far, np.arange(1), images="ids")


def test_who_opens_data_decodes_by_as_many_threads_as_are_said():
    open_train(threads__decoding=3)
    assert pool.threads() == 3
    open_train()
    assert pool.threads() == pool.cpus()
