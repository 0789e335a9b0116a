"""Which images are copies of each other."""

import numpy as np
import pytest

from classact.data import digests, duplicates
from classact.data.tar_members import TarMember


def test_equal_rows_have_one_number():
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 3, 1), np.uint8)
    images[4] = images[1]
    images[5] = images[1]
    assert duplicates.equal_rows(images).tolist() == [0, 1, 2, 3, 1, 1]
    # Also where rows are not contiguous.
    assert duplicates.equal_rows(images[:, :, ::-1]).tolist() == [0, 1, 2, 3, 1, 1]


def places(tmp_path, *contents):
    paths = [tmp_path / f"{number}.png" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return digests.places_of(paths)


def test_equal_files_have_one_number(tmp_path):
    found = duplicates.equal_files(places(tmp_path, b"one", b"two", b"three", b"one", b"owt", b"two"))
    assert found.tolist() == [0, 1, 2, 0, 4, 1]


def test_files_that_differ_outside_of_the_piece_are_told_apart(tmp_path):
    large = bytes(3 * duplicates._PIECE)
    found = duplicates.equal_files(places(tmp_path, large, large[:-1] + b"x", large, b"x" + large[1:]))
    assert found.tolist() == [0, 1, 0, 3]


def test_members_of_shards_are_compared_wherever_they_are(tmp_path):
    (tmp_path / "a").write_bytes(b"..cat..dog")
    (tmp_path / "b").write_bytes(b"cat")
    parts = [("a", 2), ("a", 7), ("b", 0), ("a", 2)]
    members = [TarMember(tmp_path / name, str(at), at, 3) for name, at in parts]
    assert duplicates.equal_files(digests.places_of(members)).tolist() == [0, 1, 0, 0]


def test_what_is_not_there_is_like_nothing(tmp_path):
    found = places(tmp_path, b"one", b"one", b"one")
    (tmp_path / "0.png").unlink()
    assert duplicates.equal_files(found).tolist() == [0, 1, 1]
    assert digests.places_of([tmp_path / "0.png"])[0].size == -1


@pytest.mark.parametrize(("most", "looked"), [(2, True), (1, False)])
def test_too_many_of_equal_size_are_not_looked_at(tmp_path, monkeypatch, most, looked):
    monkeypatch.setattr(duplicates, "MAX_CANDIDATES", most)
    found = duplicates.equal_files(places(tmp_path, b"one", b"one", b"three"))
    assert (found is not None) == looked
