"""The eval split of a source in two halves: one to choose settings on, the other for the final figures."""

import numpy as np

from classact.data import specs
from classact.data.eval_split import eval_indices
from classact.data.source import DataError, Source
from classact.data.views import Subset

HALVES = ("validation", "test")
_SEED = 2312


def open_half(argument: str, split: str, *, source: str = "icons", classes: str = "") -> Source:
    """`…:open_half:validation?source=icons&classes=200`: half of what `icons?classes=200` evaluates on.

    Each class gives half of its images, the same ones in every process.

    Args:
        argument: one of `HALVES`.
        split: of a run; the half is the same for both.
        source: name of the source.
        classes: its option of that name.

    Raises:
        DataError: for another half.
    """
    del split
    if argument not in HALVES:
        raise DataError(f"open_half:{argument}: expected one of {', '.join(HALVES)}")
    whole = specs.open_source(f"{source}?classes={classes}" if classes else source, "eval")
    first = eval_indices(whole, 0.5, _SEED)
    rest = np.setdiff1d(np.arange(whole.num_examples), first)
    return Subset(whole, first if argument == "validation" else rest)
