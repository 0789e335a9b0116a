"""What the learner's next line of metrics is made of."""

import collections
from collections.abc import Mapping, Sequence

from classact.nodes import batches


class Interval:
    """Sums and means since the last line of metrics.

    With several data sets each one's are there too, as `<group>/<data set>/<name>`.
    """

    def __init__(self, data_sets: Sequence[str]) -> None:
        """Begins empty; `data_sets`: the names of all."""
        self._each = len(data_sets) > 1
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._values: dict[str, list[float]] = collections.defaultdict(list)

    def add(
        self, step: int, sampled: Mapping[str, batches.Sampled], repeated: Mapping[str, float] | None = None
    ) -> None:
        """Adds an update's batches, with the share of each that was trained on before."""
        for data_set, item in sampled.items():
            self._sums["train/examples"] += item.size
            values = dict(item.measured or {})
            scored = item.scored_step[item.scored_step >= 0]
            if scored.size:
                # The update that made `step` sampled at step − 1.
                staleness = step - 1 - scored
                values["staleness_steps"] = float(staleness.mean())
                values["staleness_max_steps"] = float(staleness.max())
            if item.corrupted is not None:
                values["corrupted_fraction"] = item.corrupted
            if repeated and data_set in repeated:
                values["repeated_fraction"] = repeated[data_set]
            for name, value in values.items():
                self._values[f"selection/{name}"].append(value)
                if self._each:
                    self._values[f"selection/{data_set}/{name}"].append(value)

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Adds an update's own metrics."""
        for name, value in metrics.items():
            self._values[name].append(value)

    def add_wait(self, data_set: str, seconds: float) -> None:
        """Adds how long an update waited for a data set."""
        if self._each:
            self._sums[f"train/{data_set}/data_wait_seconds"] += seconds

    def add_times(self, waited: float, stepped: float) -> None:
        """Adds how long an update waited for data, and how long it took itself."""
        self._sums["train/data_wait_seconds"] += waited
        self._sums["train/step_seconds"] += stepped

    def add_save(self, seconds: float) -> None:
        """Adds how long saving a checkpoint held up the updates."""
        self._sums["train/save_seconds"] += seconds

    def pop(self) -> dict[str, float]:
        """Returns the line of metrics, and begins anew."""
        line: dict[str, float] = dict(self._sums)
        for name, values in self._values.items():
            line[name] = max(values) if "_max_" in name else sum(values) / len(values)
        self._sums.clear()
        self._values.clear()
        return line
