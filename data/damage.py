"""How much of a data set may be damaged before a run ends: one rule for images, captions and streams."""

import math

MAX_SHARE = 0.01
MAX_FEW = 3


def too_many_damaged(damaged: int, total: int, share: float = MAX_SHARE) -> bool:
    """Whether so much is damaged that a run must end.

    A few never are too many, so that one bad file ends no run on a small set; but all are.
    With a share of 0 one is too many.

    Args:
        damaged: how many have turned out to be damaged.
        total: of how many, damaged or not.
        share: of all that may be damaged, the option `damaged` of a spec.
    """
    return damaged > _most_damaged(total, share) or 0 < total <= damaged


def accepted_damage(total: int, share: float = MAX_SHARE) -> str:
    """What `too_many_damaged` accepts of `total`, for errors: "at most 3", or "at most 1%"."""
    few = MAX_FEW if share else 0
    if total <= few:
        return f"at most {total - 1}"
    return f"at most {100 * share:.4g}%" if share * total > few else f"at most {few}"


def most_damaged_of_share(share: int, total: int, per_image: int, accepted: float = MAX_SHARE) -> float:
    """How many damaged examples a reader may meet in its share of an epoch.

    It is never fewer than those of a data set that has not too many: a share is a sample,
    and can by chance have more than its part, here by six standard deviations.

    Args:
        share: how many examples are this reader's.
        total: how many the data set has.
        per_image: how many examples one damaged image can be.
        accepted: the share of a data set that may be damaged.
    """
    expected = accepted * share
    return per_image * min(_most_damaged(total, accepted), MAX_FEW + expected + 6 * math.sqrt(expected))


def _most_damaged(total: int, share: float) -> float:
    return max(MAX_FEW, share * total) if share else 0
