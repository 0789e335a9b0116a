"""Makes what is left of several sweeps, and their tables and pictures."""

import pathlib
import threading
from collections.abc import Mapping, Sequence

import rich.console
import rich.progress

from classact.experiments import records, sweeps
from classact.experiments.config import ConfigError
from classact.experiments.sweeps import Part
from classact.launch.commands import sweep_file, sweep_runs


def together(files: Sequence[sweep_file.SweepFile]) -> dict[str, Part]:
    """The parts of several sweeps by name.

    Raises:
        ConfigError: for two runs of one name.
    """
    wanted: dict[str, Part] = {}
    for file in files:
        for name, part in file.parts.items():
            if wanted.setdefault(name, part).changes != part.changes:
                raise ConfigError(f"{file.path}: {name!r} is another run in a file before it")
    return wanted


def make_all(
    files: Sequence[sweep_file.SweepFile],
    runs: sweep_runs.Runs,
    records_file: pathlib.Path,
    stop: threading.Event,
) -> list[str]:
    """Makes what is left of several sweeps, and their tables and pictures; blocks until then or `stop`.

    Args:
        files: the sweeps; runs of one name must be the same in all.
        runs: makes them.
        records_file: of what is known of ended runs; written after each.
        stop: ends it early; what has ended is kept.

    Returns:
        The names of the runs that failed.

    Raises:
        ConfigError: for two runs of one name, or a run directory with another run.
        RecordError: if the records cannot be read.
        RunError: if a run's files are damaged.
    """
    wanted = together(files)
    kept = [records.read(path) for path in (*{file.records for file in files}, records_file)]
    known = {
        name: record
        for found in kept
        for name, record in found.items()
        if name not in wanted
        or record.is_of(wanted[name].changes, wanted[name].changes_of_references(wanted))
    }
    there = [name for name in wanted if runs.has_ended(name)]
    for name in there:
        runs.check(wanted[name])
        if name not in known:
            known[name] = runs.record(wanted[name])
    left = sweeps.undone(wanted, known, there)
    # A record that is of no run that is wanted now stays until another takes its place.
    records.write(records_file, {**records.read(records_file), **known}.values())
    failed = _made(left, wanted, runs, known, records_file, stop)
    for file in files:
        for path in file.outputs(known, runs.out):
            print(path)
    return failed


def _made(
    left: Sequence[Part],
    wanted: Mapping[str, Part],
    runs: sweep_runs.Runs,
    known: dict[str, records.Record],
    records_file: pathlib.Path,
    stop: threading.Event,
) -> list[str]:
    console = rich.console.Console(stderr=True)
    failed: list[str] = []
    console.print(f"{len(wanted) - len(left)} of {len(wanted)} runs are done, {len(left)} are left")
    if not left:
        return []
    columns = [
        rich.progress.TextColumn("{task.completed:,.0f} of {task.total:,.0f} updates"),
        rich.progress.BarColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
    ]
    with rich.progress.Progress(*columns, console=console, speed_estimate_period=3600.0) as progress:
        task = progress.add_task("", total=sum(part.steps for part in left))

        def on_end(ended: sweep_runs.Ended) -> None:
            progress.advance(task, ended.part.steps)
            if ended.record is None:
                failed.append(ended.part.name)
                said = "stopped" if stop.is_set() else f"failed: {ended.said}"
                console.print(f"{ended.part.name}: {said}", markup=False)
                return
            known[ended.part.name] = ended.record
            records.write(records_file, {**records.read(records_file), **known}.values())
            seconds = float(ended.record.result.get("wall_seconds", 0.0))
            console.print(
                f"{ended.part.name}: {ended.record.result['status']} in {seconds:.0f} s", markup=False
            )

        for name in runs.run(left, on_end, stop):
            failed.append(name)
            console.print(f"{name}: not made, its reference failed", markup=False)
    return failed
