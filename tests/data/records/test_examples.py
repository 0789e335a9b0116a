import pickle

import hypothesis.strategies as st
import msgpack
import pytest
import record_files
from hypothesis import given, settings

from classact.data.records.examples import fields, values

WHOLE = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.lists(st.binary(max_size=20), min_size=1, max_size=3),
    st.lists(WHOLE, min_size=1, max_size=3),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3),
)
NAMES = st.text(max_size=9).filter(lambda name: "__" not in name and name != "none")


@given(given=st.dictionaries(NAMES, VALUES, max_size=5))
@settings(max_examples=40, deadline=None)
def test_an_example_has_the_fields_that_were_written(given):
    content = record_files.example(**given)
    assert fields(content) == given
    assert all(values(content, name) == given[name] for name in given) and values(content, "none") == []


@given(
    given=st.dictionaries(
        NAMES, st.one_of(st.binary(), st.text(), WHOLE, st.floats(allow_nan=False), st.lists(st.text()))
    )
)
@settings(max_examples=40, deadline=None)
def test_a_map_of_msgpack_has_the_fields_that_were_written(given):
    content = msgpack.packb(given)
    read = fields(content)
    assert all(values(content, name) == read[name] for name in read) and values(content, "none") == []
    assert read == {name: value if isinstance(value, list) else [value] for name, value in given.items()}


def test_fields_may_lack_their_values():
    # A feature of no kind, as TensorFlow writes an empty one.
    assert fields(bytes.fromhex("0a070a050a01611200")) == {"a": []}
    assert fields(b"") == {} and fields(msgpack.packb({"a": None, "b": []})) == {"a": [], "b": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({}), "a pickle, and neither"),
        (b"\x0a\xff", "a tf.train.Example that is damaged"),
        (b"\x89PNG", "a map that is damaged"),
        (b"\xff\xd8\xff", "no tf.train.Example and no map"),
        (msgpack.packb(["a"]), "no tf.train.Example and no map"),
    ],
)
def test_what_is_neither_is_said(content, message):
    with pytest.raises(ValueError, match=message):
        fields(content)
