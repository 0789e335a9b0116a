import pytest

from classact.data.samples import evenly


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (5, 9, [0, 1, 2, 3, 4]),
        (9, 3, [0, 4, 8]),
        (9, 1, [0]),
        (9, 0, []),
        (9, -1, []),
        (1, 4, [0]),
        (0, 4, []),
    ],
)
def test_a_sample_is_spread_evenly_and_rises(count, most, expected):
    found = evenly(count, most)
    assert found.tolist() == expected and found.dtype == "int64"
