"""Records carry every field unchanged, and nothing of another shape."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from classact.replay import records

DTYPES = (np.uint8, np.int32, np.int64, np.float32, np.float16, np.bool_)
names = st.text("abcdefgh_", min_size=1, max_size=8).filter(lambda name: name != "score")


@st.composite
def batches(draw):
    size = draw(st.integers(0, 6))
    return {
        name: draw(
            hnp.arrays(
                draw(st.sampled_from(DTYPES)),
                (size, *draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))),
            )
        )
        for name in draw(st.sets(names, min_size=1, max_size=4))
    }


def scored(batch):
    size = len(next(iter(batch.values())))
    return {
        **batch,
        "score": np.linspace(-1, 1, size, dtype=np.float32),
        "scored_step": np.arange(size, dtype=np.int64),
    }


@given(batches())
def test_packing_and_unpacking_gives_the_same(batch):
    codec = records.RecordCodec(batch)
    rows = codec.pack(scored(batch))
    size = len(next(iter(batch.values())))
    assert rows.shape == (size, codec.num_bytes)
    assert rows.dtype == np.uint8
    apart = codec.taken_apart(rows)
    np.testing.assert_array_equal(apart.packed(), rows)
    # What is put together of each row's places is the row.
    together = [b"".join(apart.places(index)) for index in range(size)]
    assert together == [row.tobytes() for row in rows]
    for name, array in codec.unpack(apart).items():
        np.testing.assert_array_equal(array, scored(batch)[name])
        assert array.dtype == scored(batch)[name].dtype
    found = codec.unpack(rows)
    assert set(found) == {*batch, "score", "scored_step"} == set(codec.fields)
    for name, array in scored(batch).items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


BATCH = {"id": np.arange(3), "image": np.ones((3, 4, 5, 1), np.uint8), "label": np.zeros(3, np.int32)}


def test_the_schema_is_that_of_any_batch_size():
    codec = records.RecordCodec({name: array[:1] for name, array in BATCH.items()})
    assert codec.num_bytes == 8 + 20 + 4 + 4 + 8
    np.testing.assert_array_equal(codec.unpack(codec.pack(scored(BATCH)))["id"], [0, 1, 2])


def test_the_schema_names_types_and_shapes():
    codec = records.RecordCodec({"image": np.zeros((4, 2, 3, 1), np.uint8), "id": np.arange(4)})
    assert codec.schema == {
        "id": "int64[]", "image": "uint8[2, 3, 1]", "score": "float32[]", "scored_step": "int64[]"
    }  # fmt: skip


def test_the_images_of_a_batch_are_one_aligned_array_and_a_part_shares_it():
    codec = records.RecordCodec(BATCH)
    rows = codec.taken_apart(codec.pack(scored(BATCH)))
    image = codec.unpack(rows)["image"]
    assert image.flags.c_contiguous and image.ctypes.data % 64 == 0 and np.shares_memory(image, rows.largest)
    part = rows.part(1, 3)
    assert len(part) == 2
    part.places(0).largest[:] = bytes([7] * 20)
    np.testing.assert_array_equal(image[:, 0, 0, 0], [1, 7, 1])
    np.testing.assert_array_equal(codec.unpack(part)["id"], [1, 2])


def test_rows_stand_alone():
    codec = records.RecordCodec(BATCH)
    rows = codec.pack(scored(BATCH))
    np.testing.assert_array_equal(codec.unpack(rows[[2, 0]])["id"], [2, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "fields"),
        ({"extra": np.zeros(3)}, "extra"),
        ({"image": np.ones((3, 4, 4, 1), np.uint8)}, r"'image'.*uint8\[3, 4, 5, 1\].*\[3, 4, 4, 1\]"),
        ({"label": np.zeros(2, np.int32)}, r"'label'.*int32\[3\].*int32\[2\]"),
        ({"label": np.zeros(3, np.float32)}, r"'label'.*int32\[3\].*float32\[3\]"),
    ],
)
def test_another_schema_is_refused(change, message):
    batch = {name: array for name, array in {**scored(BATCH), **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        records.RecordCodec(BATCH).pack(batch)


@pytest.mark.parametrize(
    "rows", [np.zeros((2, 43), np.uint8), np.zeros(44, np.uint8), np.zeros((2, 44), np.float32)]
)
def test_rows_of_another_size_are_refused(rows):
    for read in (records.RecordCodec(BATCH).unpack, records.RecordCodec(BATCH).taken_apart):
        with pytest.raises(ValueError, match=r"expected uint8\[B, 44\]"):
            read(rows)
