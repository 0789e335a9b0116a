"""Score files as a run reads them: a reference's losses by id, and the best share of a data set."""

import pathlib

import numpy as np

from classact.data import score_files, views
from classact.data.source import DataError, Source
from classact.experiments.config import DataSetConfig
from classact.selection import policies


def reference_losses(data_set: DataSetConfig) -> score_files.Losses | None:
    """The reference's losses that a data set is scored with; None if a model gives them, or nothing does.

    Raises:
        source.DataError: if they cannot be read.
    """
    return _read("reference.scores", data_set.reference.scores).losses if data_set.reference.scores else None


def best_share(data_set: DataSetConfig, opened: Source) -> Source:
    """The part of a data set that its policy keeps: of all others the whole.

    Of n examples with a score round(share · n) are kept, one at least; of equal scores those with smaller
    indices. An example without a score is not. So it is the same in every process.

    Args:
        data_set: it.
        opened: what there is to train on.

    Raises:
        source.DataError: if the score files cannot be read, or have no score for any example.
    """
    if policies.get(data_set.policy).prepared != "share":
        return opened
    own = data_set.top_share
    ids = opened.ids(np.arange(opened.num_examples))
    wanted = _read("top_share.scores", own.scores).losses(ids)
    if own.by == "easy":
        wanted = -wanted
    elif own.by == "learnability":
        wanted = wanted - _read("top_share.reference_scores", own.reference_scores).losses(ids)
    scored = np.flatnonzero(np.isfinite(wanted))
    if not len(scored):
        raise DataError(f"top_share.scores={own.scores!r}: no example of {opened.name} has a score there")
    count = max(1, round(own.share * len(scored)))
    best = scored[np.argsort(-wanted[scored], kind="stable")[:count]]
    return views.Subset(opened, np.sort(best))


def folders(data_set: DataSetConfig) -> dict[str, pathlib.Path]:
    """The folders of score files that a data set names, by field."""
    named = {
        "reference.scores": data_set.reference.scores,
        "top_share.scores": data_set.top_share.scores,
        "top_share.reference_scores": data_set.top_share.reference_scores,
    }
    return {field: pathlib.Path(folder) for field, folder in named.items() if folder}


def _read(field: str, folder: str) -> score_files.ScoreFile:
    try:
        return score_files.read(pathlib.Path(folder))
    except score_files.ScoreFileError as error:
        raise DataError(f"{field}={folder!r}: {error}") from None
