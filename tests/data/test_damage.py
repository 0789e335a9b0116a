import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data.damage import accepted_damage, most_damaged_of_share, too_many_damaged


@pytest.mark.parametrize(
    ("damaged", "total", "too_many"),
    [
        (0, 0, False), (0, 1, False), (1, 1, True), (1, 2, False), (2, 2, True), (2, 3, False), (3, 3, True),
        (3, 4, False), (3, 300, False), (4, 300, True), (4, 400, False), (5, 400, True), (100, 10_000, False),
        (101, 10_000, True),
    ],
)  # fmt: skip
def test_three_or_one_percent_are_accepted_but_never_all(damaged, total, too_many):
    assert too_many_damaged(damaged, total) is too_many


def test_what_is_accepted_is_said():
    assert [accepted_damage(total) for total in (1, 3, 4, 300, 400)] == [
        "at most 0", "at most 2", "at most 3", "at most 3", "at most 1%",
    ]  # fmt: skip


def test_a_share_may_have_as_many_as_all_of_it_and_a_small_one_of_many_less():
    assert most_damaged_of_share(300, 300, 1) == 3
    assert most_damaged_of_share(10_000, 10_000, 5) == 500
    # 10 are expected in a hundredth of a million; 10,000 would never be reached.
    assert 20 < most_damaged_of_share(1000, 1_000_000, 1) < 35


@given(st.integers(0, 500), st.integers(1, 10_000), st.sampled_from([0.0, 0.001, 0.05, 0.5]))
def test_the_share_is_a_setting(damaged, total, share):
    few = 3 if share else 0
    assert too_many_damaged(damaged, total, share) is (damaged > max(few, share * total) or damaged >= total)
    # Who reads all of an epoch may meet as many.
    assert most_damaged_of_share(total, total, 1, share) == max(few, share * total)


def test_a_setting_is_said():
    assert [accepted_damage(total, 0.055) for total in (3, 50, 1000)] == [
        "at most 2",
        "at most 3",
        "at most 5.5%",
    ]
    assert accepted_damage(1000, 0.0) == "at most 0"
