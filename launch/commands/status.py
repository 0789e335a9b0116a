"""`classact status`: what of a run is where, how far it is, and how fast.

All of it is read from the run directory, as the progress display does: no node is
asked, so the answer is the same from any machine that sees the directory.
"""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import rich.console
import rich.table
from absl import flags

from classact.experiments import curves
from classact.launch.commands import arguments
from classact.launch.commands.progress import RunState
from classact.launch.engines.task import DOING

# Rates are over the last few records of a node.
_RECENT_RECORDS = 5
# What a task says of itself is written every ten seconds; a shared disk may show it late.
_SAID_SECONDS = 60.0

USAGE = """\
  status    --workdir=DIR
            says what of a run is where, how far it is, and how fast
"""


def main(argv: Sequence[str]) -> int:
    """Prints it; see `cli.main`."""
    workdir = flags.DEFINE_string("workdir", None, "Run directory of the experiment.")
    arguments.parse_all(argv, workdir)
    try:
        print_status(pathlib.Path(str(workdir.value)))
    except curves.RunError as error:
        raise arguments.UsageError(str(error)) from None
    return 0


def print_status(workdir: pathlib.Path, console: rich.console.Console | None = None) -> None:
    """Prints a line on the run and a line on each node that has written metrics or has an address.

    Below them is what each task says that it does now, if its process runs.

    Args:
        workdir: the run directory.
        console: where to print; standard output by default.

    Raises:
        curves.RunError: if the directory is no run's, or a file of it is damaged.
    """
    console = console or rich.console.Console()
    run = curves.load_run(workdir)
    records = {path.stem: curves.read_metrics(path) for path in sorted((workdir / "metrics").glob("*.jsonl"))}
    addresses = _addresses(workdir)
    console.print(_headline(run, records.get("learner", ())), highlight=False, soft_wrap=True)
    table = rich.table.Table(box=None, pad_edge=False)
    for header in ("node", "address", "step", "written", "rate"):
        # What does not fit goes on in the next line: names differ at their ends.
        justify: Literal["left", "right"] = "left" if header in ("node", "address") else "right"
        table.add_column(header, justify=justify, overflow="fold")
    now = time.time()
    for node, written in records.items():
        last = written[-1] if written else {}
        table.add_row(
            node,
            addresses.pop(node, ""),
            f"{int(last['step']):,}" if last else "",
            f"{max(0.0, now - last['time']):,.0f} s ago" if "time" in last else "",
            _rate(node, written[-_RECENT_RECORDS:]),
        )
    for node, address in sorted(addresses.items()):
        table.add_row(node, address, "", "", "")
    console.print(table)
    for name, said in _doing(workdir, now).items():
        console.print(f"{name}: {said}", highlight=False, markup=False, soft_wrap=True)


def _doing(workdir: pathlib.Path, now: float) -> dict[str, str]:
    """What each task has said of itself lately, where a process is watched."""
    found = {}
    for path in sorted((workdir / "logs").glob(f"*{DOING}")):
        # The task may end at any moment; a launcher that was killed leaves what was said last.
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime < _SAID_SECONDS:
                found[path.stem] = path.read_text(errors="replace").strip()
    return found


def _headline(run: curves.Run, learner: Sequence[Mapping[str, Any]]) -> str:
    steps = run.field("steps")
    if not isinstance(steps, int):
        raise curves.RunError(f"{run.path / 'config.json'} is no run's configuration: it says no steps")
    state = RunState(steps)
    for record in learner:
        state.add_learner_record(record)
    parts = [f"{run.path}: {run.status}", f"step {run.steps:,}/{steps:,}", *state.facts()]
    return " | ".join(parts)


def _addresses(workdir: pathlib.Path) -> dict[str, str]:
    """Addresses by the names that the nodes' metrics files have, where there is one."""
    path = workdir / "endpoints.json"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise curves.RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(several, list) for several in found.values()):
        raise curves.RunError(f"{path} is damaged: expected lists of addresses by label")
    addresses = {}
    for label, several in found.items():
        name = label.replace("/", "-")
        # Behind the learner's address is where its hosts find each other.
        servers = several[:1] if label == "learner" else several
        # Inference servers are numbered even if there is only one, the others as their logs are.
        numbered = name.startswith("inference-") or len(servers) > 1
        for index, address in enumerate(servers):
            addresses[f"{name}-{index}" if numbered else name] = address
    return addresses


def _rate(node: str, records: Sequence[Mapping[str, Any]]) -> str:
    """How fast a node is, in the unit of its kind; empty if that cannot be told."""
    if not records:
        return ""
    last = records[-1]
    if "inference/examples_per_second" in last:
        return f"{last['inference/examples_per_second']:,.0f} examples/s"
    seconds = last["time"] - records[0]["time"] if len(records) > 1 else 0.0
    if seconds <= 0:
        return ""
    if "run_loop/examples" in last and "run_loop/examples" in records[0]:
        return f"{(last['run_loop/examples'] - records[0]['run_loop/examples']) / seconds:,.0f} examples/s"
    if node == "learner":
        return f"{(last['step'] - records[0]['step']) / seconds:,.1f} updates/s"
    each = seconds / (len(records) - 1)
    return f"every {each:,.0f} s" if each >= 10 else f"every {each:.1f} s"
