"""What models and tables must know of a data set."""

import json

from on_digits import open_train, resolved

from classact.launch.assembly.parts import shapes


def test_a_shape_is_described_as_json_has_it(digits):
    described = digits.described()
    assert json.loads(json.dumps(described)) == described
    assert described["num_examples"] == open_train().num_examples
    assert described["image_shape"] == [8, 8, 1]
    assert described["record"]["label"] == "int32[]"
    # The same data may lie elsewhere under another name.
    assert "name" not in described


def test_a_replay_that_carries_ids_has_small_records_of_the_same_examples(digits):
    config = resolved(replay__images="ids")
    ids = shapes.data_shape(config, open_train(images="ids"), "ids")
    assert set(ids.codec.fields) == {"id", "label", "epoch", "image_check", "score", "scored_step"}
    assert ids.sent_bytes == ids.codec.num_bytes == 8 + 4 + 8 + 4 + 4 + 8
    assert digits.sent_bytes == digits.codec.num_bytes == digits.example_bytes == ids.example_bytes == 88
    assert ids.examples(3)["image"].shape == (3, 8, 8, 1) and set(ids.examples(3)) == set(digits.codec.fields)
    assert ids.described()["record"]["epoch"] == "int64[]"


def test_label_noise_keeps_the_truth(digits):
    noisy = open_train(label_noise=0.5)
    assert "clean_label" in noisy.batch(range(2))
    assert "clean_label" in shapes.data_shape(resolved(), noisy).codec.fields
    assert "clean_label" not in digits.codec.fields
