"""What a benchmark measured, and the table and the JSON that it becomes."""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

DEFAULT_WORKDIR = pathlib.Path("runs/bench")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured.
        value: the number.
        unit: of the value; "" for a ratio.
        at_most: target, an upper bound; None: no such target.
        at_least: target, a lower bound; None: no such target.
    """

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        """The target and whether it is met; empty without one."""
        if self.at_most is not None:
            return f"{'met' if self.value <= self.at_most else 'MISSED'} (at most {self.at_most:g})"
        if self.at_least is not None:
            return f"{'met' if self.value >= self.at_least else 'MISSED'} (at least {self.at_least:g})"
        return ""


def format_table(figures: Sequence[Figure]) -> str:
    """Lays figures out in lines: name, value, unit, target."""
    width = max((len(figure.name) for figure in figures), default=0)
    rows = (
        f"{figure.name:<{width}}  {figure.value:>10.4g} {figure.unit:<12} {figure.verdict}"
        for figure in figures
    )
    return "\n".join(row.rstrip() for row in rows)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that every benchmark takes."""
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not a figure")
    parser.add_argument(
        "--workdir", type=pathlib.Path, default=DEFAULT_WORKDIR, help="where runs and JSON go"
    )


def exit_on_sigterm() -> None:
    """Makes SIGTERM unwind the stack, so that what was started is also stopped."""

    def leave(number: int, frame: Any) -> None:
        del frame
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def run(name: str, parser: argparse.ArgumentParser, measure: Callable[..., list[Figure]]) -> None:
    """Runs a benchmark from its command line; prints its table, writes its JSON.

    Args:
        name: of the JSON file in the work directory.
        parser: with the benchmark's own options; the common ones are added.
        measure: called with the parsed options.
    """
    add_common_arguments(parser)
    options = parser.parse_args()
    exit_on_sigterm()
    options.workdir = options.workdir.absolute()
    options.workdir.mkdir(parents=True, exist_ok=True)
    found = measure(options)
    write(options.workdir / f"{name}.json", found, quick=options.quick)
    print(format_table(found))


def write(path: pathlib.Path, figures: Sequence[Figure], *, quick: bool) -> None:
    """Writes figures as JSON, with the machine they were measured on.

    Args:
        path: of the file.
        figures: what was measured.
        quick: whether the sizes were too small for the figures to mean much.
    """
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "system": platform.platform()}
    entries = [dataclasses.asdict(figure) for figure in figures]
    path.write_text(json.dumps({"quick": quick, "machine": machine, "figures": entries}, indent=2) + "\n")


def read(path: pathlib.Path) -> list[Figure]:
    """Reads what `write` wrote.

    Raises:
        FileNotFoundError: if the benchmark left no result.
    """
    return [Figure(**entry) for entry in json.loads(path.read_text())["figures"]]
