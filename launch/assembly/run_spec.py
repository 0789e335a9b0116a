"""What every node of a run is built from: its configuration, its directory, the shapes of its data."""

import dataclasses
import pathlib
from collections.abc import Mapping

from classact.experiments import curves
from classact.experiments.config import ExperimentConfig
from classact.launch.assembly.parts.shapes import DataShape
from classact.replay import folders
from classact.replay.config import TableConfig


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """A run as it is sent to the processes of its nodes.

    Attributes:
        config: the resolved configuration.
        workdir: the run directory, absolute.
        data: the shapes of each data set.
    """

    config: ExperimentConfig
    workdir: pathlib.Path
    data: Mapping[str, DataShape]

    @property
    def shape(self) -> DataShape:
        """What the models are built for: the data sets agree in it."""
        return next(iter(self.data.values()))

    def table_config(self, data_set: str) -> TableConfig:
        """The tables of each shard of a data set."""
        own = self.config.data_sets[data_set]
        shards = own.replay.shards
        return TableConfig(
            # All, in the order in which they come, where the learner itself chooses.
            batch_size=own.drawn_size // shards,
            # Not 1 − filter_ratio, which differs if B was rounded: then the learner would
            # take more, or less, from the stream table than this ratio lets in.
            samples_per_insert=own.drawn_size / own.super_batch_size,
            capacity=own.replay.capacity // shards,
            super_batch=own.reference.super_batch // shards,
            read_ahead=own.replay.read_ahead,
        )

    def replay_folders(self, data_set: str) -> list[pathlib.Path]:
        """Where the tables of each shard of a data set are saved."""
        return folders.shard_folders(self.workdir, data_set, self.config.data_sets[data_set].replay.shards)

    def evaluated(self, name: str) -> int:
        """The last step that an evaluator has measured, in this process or an earlier one; -1: none."""
        lines = curves.history(curves.read_metrics(self.workdir / "metrics" / f"evaluator-{name}.jsonl"))
        return lines[-1]["step"] if lines else -1
