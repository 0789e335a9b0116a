"""What was made before a run, and a data set goes by: fields of the configuration."""

import dataclasses

from classact.experiments.checks import require

TOP_SHARE_BY = ("hard", "easy", "learnability")


@dataclasses.dataclass(frozen=True)
class TopShareConfig:
    """What `top_share` keeps of the data; see `experiments/base.py`."""

    share: float = 0.5
    by: str = "hard"
    scores: str = ""
    reference_scores: str = ""

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "top_share.share", self.share, "above 0 and at most 1")
        require(self.by in TOP_SHARE_BY, "top_share.by", self.by, f"one of {TOP_SHARE_BY}")


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """The recorded order in which `curriculum` trains; see `experiments/base.py`."""

    record: str = ""
    data_set: str = ""
