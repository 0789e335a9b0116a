"""`classact logs`: what the nodes of a run print, as they print it."""

import pathlib
import threading
import zlib
from collections.abc import Sequence

import rich.console
import rich.text
from absl import flags

from classact.experiments.curves import RunError
from classact.launch.commands import arguments, terminal

_POLL_SECONDS = 0.5
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red", "bright_cyan", "bright_green")

USAGE = """\
  logs      --workdir=DIR [--last=10]
            prints what the nodes print, until the run ends
"""


def main(argv: Sequence[str]) -> int:
    """Prints them until the run ends; see `cli.main`."""
    workdir = flags.DEFINE_string("workdir", None, "Run directory of the experiment.")
    last = flags.DEFINE_integer("last", 10, "Lines of each node to begin with.", 1)
    arguments.parse_all(argv, workdir)
    stop, stopped = terminal.stop_on_signals()
    try:
        follow(pathlib.Path(str(workdir.value)), stop, int(last.value or 10))
    except RunError as error:
        raise arguments.UsageError(str(error)) from None
    return 128 + stopped[0] if stopped else 0


def follow(
    workdir: pathlib.Path, stop: threading.Event, last: int = 10, console: rich.console.Console | None = None
) -> None:
    """Prints the nodes' lines, each after its node's name, until the run has ended.

    Blocks while the run goes on; of a run that has ended it prints what there is.

    Args:
        workdir: the run directory, with one file a node in `logs/`.
        stop: ends it within half a second.
        last: lines of each node to begin with.
        console: where to print; standard output by default.

    Raises:
        RunError: if the directory is no run's, or has no logs.
    """
    folder = workdir / "logs"
    if not folder.is_dir() and not (workdir / "config.json").is_file():
        raise RunError(f"{workdir} is no run directory: it has no config.json, which `classact train` writes")
    if not folder.is_dir():
        raise RunError(f"{workdir} has no logs: they are written by runs whose nodes are processes")
    console = console or rich.console.Console()
    tails: dict[str, _Lines] = {}
    while True:
        # Asked first: what was written before the end is read after it.
        ended = (workdir / "result.json").exists()
        for path in sorted(folder.glob("*.log")):
            if path.stem not in tails:
                tails[path.stem] = _Lines(path)
                lines = tails[path.stem].read(everything=ended)[-last:]
            else:
                lines = tails[path.stem].read(everything=ended)
            for line in lines:
                _print(console, path.stem, line)
        if ended or stop.wait(_POLL_SECONDS):
            return


class _Lines:
    """The lines of a file, as they are appended."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def read(self, everything: bool) -> list[str]:
        """Returns the lines since the last call; an unfinished one only if `everything`."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if everything and self._rest:
            lines.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace").rstrip("\r") for line in lines]


def _print(console: rich.console.Console, node: str, line: str) -> None:
    # A node keeps its colour from one call to the next.
    colour = _COLOURS[zlib.crc32(node.encode()) % len(_COLOURS)]
    console.print(rich.text.Text.assemble((node, colour), " | ", line), soft_wrap=True)
