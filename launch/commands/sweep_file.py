"""A sweep's file: what it wants run, and what it makes of it."""

import dataclasses
import pathlib
import types
from collections.abc import Mapping
from typing import Any

from classact.experiments import sweeps
from classact.experiments.config import ConfigError
from classact.experiments.records import Record
from classact.launch.commands import config_file


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """A sweep that has been read.

    Attributes:
        path: of the file.
        module: what it defines.
        asked: the names in `RUNS`.
        parts: these, and the references that they need, by name; references first.
    """

    path: str
    module: types.ModuleType
    asked: tuple[str, ...]
    parts: Mapping[str, sweeps.Part]

    @property
    def name(self) -> str:
        """The file's name, which its table and picture get."""
        return pathlib.Path(self.path).stem

    @property
    def records(self) -> pathlib.Path:
        """Where what is known of its runs may be, beside it."""
        return pathlib.Path(self.module.__file__ or self.path).with_name("records.jsonl")

    def outputs(self, records: Mapping[str, Record], out: pathlib.Path) -> list[pathlib.Path]:
        """Writes the table and the picture of the runs that have a record.

        Returns:
            The files written; none if no run has ended.

        Raises:
            ConfigError: if `baseline` or `draw` fails.
            OSError: if a file cannot be written.
        """
        done = {
            name: records[name]
            for name in self.asked
            if name in records and any(records[name].curves.values())
        }
        if not done:
            return []
        metric = getattr(self.module, "METRIC", None) or next(iter(next(iter(done.values())).curves))
        baseline = getattr(self.module, "baseline", None)
        lines = []
        for name, record in done.items():
            named = self._called(baseline, name) if baseline else None
            if named is not None and named not in self.parts:
                raise ConfigError(f"{self.path}: baseline({name!r}) is {named!r}, which is no name in RUNS")
            lines.append(sweeps.against(record, records.get(named) if named else None, metric))
        table = out / f"{self.name}.csv"
        table.write_text(sweeps.table(lines))
        draw = getattr(self.module, "draw", None)
        if draw is None:
            return [table]
        figure = self._called(draw, {name: record.run(metric) for name, record in done.items()})
        # Nothing to show yet.
        if figure is None:
            return [table]
        pictures = [out / f"{self.name}.{kind}" for kind in ("svg", "png")]
        for picture in pictures:
            figure.savefig(picture, dpi=150, bbox_inches="tight")
        return [table, *pictures]

    def _called(self, function: Any, argument: Any) -> Any:
        try:
            return function(argument)
        # Of a user's file, which may fail in any way.
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{self.path}: {function.__name__} failed: {said}") from error


def load(path: str) -> SweepFile:
    """Reads a sweep's file and all its configurations; starts nothing.

    Raises:
        ConfigError: if the file, or one of its configurations, is not right.
    """
    module = config_file.run_file(path, path)
    asked = getattr(module, "RUNS", None)
    if not (isinstance(asked, (tuple, list)) and asked and all(isinstance(name, str) for name in asked)):
        raise ConfigError(f"{path}: RUNS={asked!r}, expected the names of its parts, in a tuple or a list")
    try:
        found = sweeps.parts(asked, lambda part: config_file.load(f"{path}:{part}"))
    except ConfigError as error:
        said = str(error)
        raise ConfigError(said if said.startswith("--config") else f"{path}: {said}") from None
    return SweepFile(path, module, tuple(asked), found)
