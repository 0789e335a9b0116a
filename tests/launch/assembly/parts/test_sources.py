"""The data of a run as they are opened to train on."""

from on_digits import open_train


def test_the_parts_of_the_training_data_do_not_overlap():
    split = lambda name: open_train(held_out=0.25, train_split=name)  # noqa: E731
    rest, held_out, everything = split("rest"), split("held_out"), open_train()
    ids = lambda data: set(data.batch(range(data.num_examples))["id"].tolist())  # noqa: E731
    assert not ids(rest) & ids(held_out)
    assert ids(rest) | ids(held_out) == ids(everything)
