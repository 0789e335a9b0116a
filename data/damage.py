"""How much of a data set may be damaged before a run ends: one rule for images, captions and streams."""

import math

MAX_SHARE = 0.01
MAX_FEW = 3


def too_many_damaged(damaged: int, total: int) -> bool:
    """Whether so much is damaged that a run must end.

    A few never are too many, so that one bad file ends no run on a small set; but all are.

    Args:
        damaged: how many have turned out to be damaged.
        total: of how many, damaged or not.
    """
    return damaged > _most_damaged(total) or 0 < total <= damaged


def accepted_damage(total: int) -> str:
    """What `too_many_damaged` accepts of `total`, for errors: "at most 3", or "at most 1%"."""
    if total <= MAX_FEW:
        return f"at most {total - 1}"
    return f"at most {MAX_SHARE:.0%}" if MAX_SHARE * total > MAX_FEW else f"at most {MAX_FEW}"


def most_damaged_of_share(share: int, total: int, per_image: int) -> float:
    """How many damaged examples a reader may meet in its share of an epoch.

    It is never fewer than those of a data set that has not too many: a share is a sample,
    and can by chance have more than its part, here by six standard deviations.

    Args:
        share: how many examples are this reader's.
        total: how many the data set has.
        per_image: how many examples one damaged image can be.
    """
    expected = MAX_SHARE * share
    return per_image * min(_most_damaged(total), MAX_FEW + expected + 6 * math.sqrt(expected))


def _most_damaged(total: int) -> float:
    return max(MAX_FEW, MAX_SHARE * total)
