import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.data.idx import read_idx
from classact.data.source import DataError


def encode(array, code=0x08):
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("array", "code"),
    [(IMAGES, 0x08), (np.array([-2, 70_000], np.int32), 0x0C), (np.array([0.5], np.float32), 0x0D)],
)
def test_reads_what_was_written(tmp_path, pack, array, code):
    path = tmp_path / "data"
    path.write_bytes(pack(encode(array, code)))
    read = read_idx(path)
    assert read.dtype == array.dtype and read.dtype.isnative
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_truncated_file_names_the_first_example_that_is_not_whole(tmp_path, pack):
    path = tmp_path / "data"
    path.write_bytes(pack(encode(IMAGES)[:-13]))
    with pytest.raises(DataError, match=r"data: truncated inside example 3 of 5: 63 bytes, expected 76"):
        read_idx(path)


def test_a_truncated_gzip_file_names_the_example_too(tmp_path):
    path = tmp_path / "data.gz"
    noise = np.random.default_rng(0).integers(0, 256, (100, 50, 50), np.uint8)
    whole = gzip.compress(encode(noise))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"data\.gz: truncated inside example (4[89]|50) of 100"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file .it starts with nothing"),
        (b"\x89PNG\r\n", "not an IDX file .it starts with 89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\0", "not an IDX file"),
        (b"\0\0\x08\x03\0\0", "truncated inside the header, 6 of 16 bytes"),
        (encode(IMAGES) + b"!", "more than the 76 bytes that its header .5, 4, 3. describes"),
        (b"\x1f\x8b\x08garbage that is no gzip", "damaged gzip data"),
        (
            b"\0\0\x08\x02" + struct.pack(">2I", 2**32 - 1, 2**32 - 1),
            "truncated inside example 0 of 4294967295",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"file: {message}"):
        read_idx(path)


def test_a_gzip_file_whose_header_describes_more_than_there_can_be(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"\0\0\x0e\x03" + struct.pack(">3I", *[2**32 - 1] * 3) + b"some"))
    with pytest.raises(DataError, match=r"file\.gz: truncated inside example 0 of 4294967295"):
        read_idx(path)


@pytest.mark.parametrize("array", [IMAGES, np.arange(3000, dtype=np.uint8).reshape(30, 100)])
def test_a_gzip_file_is_not_unpacked_beyond_what_its_header_describes(tmp_path, array):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(encode(array) + bytes(1 << 28)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"file\.gz: more than the {len(encode(array))} bytes"):
            read_idx(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The file itself has 261 kB.
    assert peak < 2 << 20


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: cannot be read .No such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot be read .Is a directory"):
        read_idx(tmp_path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_gives_an_array_or_a_data_error(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from([encode(IMAGES), gzip.compress(encode(IMAGES))])))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert isinstance(read_idx(path), np.ndarray)
    except DataError as error:
        assert str(path) in str(error)
