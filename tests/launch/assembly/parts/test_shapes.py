"""What models and tables must know of a data set."""

import json

import pytest
from on_digits import open_train, resolved

from classact.launch.assembly.parts import shapes


@pytest.fixture(scope="module")
def digits():
    return shapes.data_shape(resolved(), open_train())


def test_a_shape_is_described_as_json_has_it(digits):
    described = digits.described()
    assert json.loads(json.dumps(described)) == described
    assert described["num_examples"] == open_train().num_examples
    assert described["image_shape"] == [8, 8, 1]
    assert described["record"]["label"] == "int32[]"
    # The same data may lie elsewhere under another name.
    assert "name" not in described


def test_label_noise_keeps_the_truth(digits):
    noisy = open_train(label_noise=0.5)
    assert "clean_label" in noisy.batch(range(2))
    assert "clean_label" in shapes.data_shape(resolved(), noisy).codec.fields
    assert "clean_label" not in digits.codec.fields
