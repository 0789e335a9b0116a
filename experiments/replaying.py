"""The part of the configuration that says what the replay holds and how."""

import dataclasses

from classact.data.carried.kinds import ENCODED, IMAGES, PIXELS
from classact.experiments.checks import require
from classact.replay.config import COMPRESSIONS


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """The replay; see `experiments/base.py`."""

    capacity: int
    shards: int = 1
    compression: str = "auto"
    # Runs that were made before there was one carried pixels.
    images: str = PIXELS
    # And read one batch ahead.
    read_ahead: int = 1

    def __post_init__(self) -> None:
        require(self.shards >= 1, "replay.shards", self.shards, "at least 1")
        known = self.compression in COMPRESSIONS
        require(known, "replay.compression", self.compression, " or ".join(COMPRESSIONS))
        require(self.read_ahead >= 1, "replay.read_ahead", self.read_ahead, "at least 1")
        require(self.images in IMAGES, "replay.images", self.images, " or ".join(IMAGES))
        if self.images == ENCODED:
            accepted = "auto or snappy with replay.images=encoded: files have zeros behind them"
            require(self.compression != "none", "replay.compression", self.compression, accepted)
