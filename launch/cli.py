"""The command line: `classact train`, `evaluate`, `actors`, `status`, `logs`, `compare` and `data`."""

import os
import pathlib
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from absl import app, flags
from ml_collections import config_flags

if TYPE_CHECKING:
    from classact.launch.outcome import Outcome

USAGE = """usage: classact COMMAND …

  train     --config=FILE.py --workdir=DIR [--config.FIELD=VALUE …]
            [--launch=processes|threads|slurm|ray|synchronous] [--isolate]
            trains one model; see experiments/configs/ for configurations
            --isolate gives it a network of its own, for processes, threads and synchronous:
            nothing outside reaches its servers, and it reaches nothing outside, such as data;
            evaluate and actors must enter it, and tell how (SECURITY.md)
  evaluate  --workdir=DIR --evaluator=accuracy|retrieval|zero_shot [--data=SOURCE --name=NAME …]
            joins a running experiment, or takes a finished one's last checkpoint
  actors    --workdir=DIR [--dataset=NAME] [--count=1]
            adds inference servers with their run loops to a running experiment, until it ends
  status    --workdir=DIR
            says what of a run is where, how far it is, and how fast
  logs      --workdir=DIR [--last=10]
            prints what the nodes print, until the run ends
  compare   RUN_DIR… --out=report.html [--baseline=RUN_DIR] [--metric=eval/EVALUATOR/NAME …]
            compares finished (or running) experiments on one page
  data      icons --out=DIR [--iconify=DIR] [--emojibase=DIR] [--size=32]
            builds a large set of image–text pairs as tar shards

Options of a command: classact COMMAND --help
"""


_ISOLATE_HELP = (
    "Run in a network of its own, with nothing but loopback: nobody outside reaches the program's servers, "
    "nor the program anything outside. No data over the network; `classact evaluate` and `actors` only "
    "within it, by a command that they tell. With processes, threads and synchronous; see SECURITY.md."
)
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


class UsageError(Exception):
    """What the user typed cannot be run; one line says why."""


def entry_point() -> None:
    """Runs `classact` and exits: 0 the goal is reached, 2 bad input, 1 anything else."""
    exit_with(main(sys.argv))


def exit_with(status: int) -> NoReturn:
    """Ends this process now."""
    sys.stdout.flush()
    sys.stderr.flush()
    # A node's thread that did not stop, or a C++ thread of Reverb or TensorFlow,
    # must not hold up a process whose work is done and written.
    os._exit(status)


def main(argv: Sequence[str]) -> int:
    """Runs one command.

    Args:
        argv: the program's name, the command, its arguments.

    Returns:
        The exit status.
    """
    commands = {
        "train": _train,
        "evaluate": _evaluate,
        "actors": _actors,
        "status": _status,
        "logs": _logs,
        "compare": _compare,
        "data": _data,
    }
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print(USAGE, end="", file=sys.stderr if len(argv) < 2 else sys.stdout)
        return 2 if len(argv) < 2 else 0
    if argv[1] not in commands:
        return _complain(f"unknown command {argv[1]!r}: expected one of {', '.join(commands)}")
    try:
        return commands[argv[1]]([f"{argv[0]} {argv[1]}", *argv[2:]])
    except UsageError as error:
        return _complain(str(error))


def _complain(message: str) -> int:
    print(f"classact: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Parses flags; returns the remaining arguments."""
    app.define_help_flags()
    try:
        return values(list(argv), known_only=False)[1:]
    # A configuration is Python and may fail in any way; to its user all of them
    # are one line about a flag.
    except Exception as error:
        raise UsageError(str(error).replace("FATAL Flags parsing error:", "")) from None


def _parse_all(argv: Sequence[str], *required: flags.FlagHolder[Any]) -> None:
    """Parses flags where nothing else is accepted."""
    rest = _parse(flags.FLAGS, argv)
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}")
    for flag in required:
        if flag.value is None:
            raise UsageError(f"--{flag.name} is missing")


def _train(argv: Sequence[str]) -> int:
    from classact.launch import isolation
    from classact.launch import run as run_lib

    argv = [_with_shipped_config(argument) for argument in argv]
    values = flags.FLAGS
    config_flag = config_flags.DEFINE_config_file(
        "config", None, "Configuration file.", lock_config=True, sys_argv=list(argv)
    )
    workdir = flags.DEFINE_string("workdir", None, "Run directory; must not hold a run yet.")
    launch = flags.DEFINE_enum("launch", "processes", run_lib.LAUNCHES, "How to start the program.")
    isolate = flags.DEFINE_bool("isolate", False, _ISOLATE_HELP)
    rest = _parse(values, argv)
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}: fields are set by --config.FIELD=VALUE")
    if config_flag.value is None:
        raise UsageError("--config=FILE.py is missing; see experiments/configs/")
    if workdir.value is None:
        raise UsageError("--workdir=DIR is missing")
    if isolate.value and launch.value in run_lib.CLUSTERS:
        raise UsageError(f"--isolate: not with --launch={launch.value}, whose nodes must reach each other")
    if isolate.value and not isolation.is_inside():
        isolation.start_over()
    try:
        fields = config_flag.value.to_dict()
    # A file that is not there is reported only when its configuration is read.
    except OSError as error:
        raise UsageError(str(error)) from None
    return train(fields, pathlib.Path(workdir.value), launch.value)


def _with_shipped_config(argument: str) -> str:
    """Lets `--config=experiments/configs/demo.py` mean the package's file in any folder that has none."""
    name, _, value = argument.partition("=")
    path = value.split(":")[0]
    if name.lstrip("-") != "config" or pathlib.Path(path).exists() or not (_PACKAGE / path).is_file():
        return argument
    return f"{name}={_PACKAGE / value}"


def train(fields: dict, workdir: pathlib.Path, engine: str) -> int:
    """Checks and runs one experiment; prints how it ended.

    Args:
        fields: of the configuration, see `experiments/base.py`.
        workdir: the run directory.
        engine: one of `run.LAUNCHES`.

    Returns:
        The exit status.

    Raises:
        UsageError: if a check fails; no process has started and nothing is written.
    """
    from classact.data.source import DataError
    from classact.experiments import resolution
    from classact.experiments.config import ConfigError
    from classact.launch import run as run_lib
    from classact.launch.outcome import LaunchError

    try:
        prepared = run_lib.prepare(resolution.resolve(fields), workdir, engine)
    except (ConfigError, DataError) as error:
        raise UsageError(str(error)) from None
    try:
        outcome = run_lib.run(prepared, engine)
    except LaunchError as error:
        raise UsageError(str(error)) from None
    _say_how_it_ended(outcome)
    result = workdir / "result.json"
    print(f"{outcome.status}: {result if result.exists() else workdir}")
    return outcome.exit_status


def _say_how_it_ended(outcome: "Outcome") -> None:
    if outcome.traceback:
        print(outcome.traceback, file=sys.stderr)
    if outcome.message:
        print(f"classact: {outcome.message}", file=sys.stderr)
    if outcome.stuck:
        print(f"classact: did not stop in time: {', '.join(outcome.stuck)}", file=sys.stderr)


def _evaluate(argv: Sequence[str]) -> int:
    from classact.data.source import DataError
    from classact.experiments.config import ConfigError, EvaluatorConfig
    from classact.launch import attach
    from classact.nodes.checkpoints import CheckpointError

    workdir = flags.DEFINE_string("workdir", None, "Run directory of the experiment.")
    kind = flags.DEFINE_string("evaluator", None, "What to measure: accuracy, retrieval or zero_shot.")
    data = flags.DEFINE_string("data", "", "Source to measure on; else the experiment's eval_data.")
    name = flags.DEFINE_string("name", None, "Metrics are eval/NAME/…; else named as what is measured.")
    every = flags.DEFINE_integer("every", 0, "Updates between evaluations; 0: as the experiment.", 0)
    templates = flags.DEFINE_string("templates", "simple", "Prompts of zero_shot.")
    distinct = flags.DEFINE_bool("distinct", False, "Of retrieval: one pair a caption.")
    _parse_all(argv, workdir, kind)
    own = EvaluatorConfig(str(kind.value), data.value, templates.value, bool(distinct.value))
    try:
        attached = attach.prepare(
            pathlib.Path(str(workdir.value)),
            name.value or f"attached_{kind.value}",
            own,
            int(every.value or 0),
        )
    except (attach.AttachError, ConfigError, DataError) as error:
        raise UsageError(str(error)) from None
    stop, stopped = _stop_on_signals()
    try:
        attach.evaluate(attached, stop, report=lambda line: print(line, flush=True))
    except (attach.AttachError, CheckpointError) as error:
        _complain(str(error))
        return 1
    return 128 + stopped[0] if stopped else 0


def _actors(argv: Sequence[str]) -> int:
    from classact.launch import attach, attach_actors
    from classact.launch.outcome import LaunchError

    workdir = flags.DEFINE_string("workdir", None, "Run directory of the experiment.")
    data_set = flags.DEFINE_string("dataset", "", "Whose replay to fill; needed if there are several.")
    count = flags.DEFINE_integer("count", 1, "How many inference servers to add.", 1)
    _parse_all(argv, workdir)
    try:
        joining = attach_actors.prepare(
            pathlib.Path(str(workdir.value)), str(data_set.value), int(count.value or 1)
        )
    except attach.AttachError as error:
        raise UsageError(str(error)) from None
    stop, stopped = _stop_on_signals()
    try:
        outcome = attach_actors.run(joining, stop, report=lambda line: print(line, flush=True))
    except (attach.AttachError, LaunchError) as error:
        _complain(str(error))
        return 1
    _say_how_it_ended(outcome)
    return 128 + stopped[0] if stopped else outcome.exit_status


def _stop_on_signals() -> tuple[threading.Event, list[int]]:
    """An event that SIGINT and SIGTERM set, and the signals that came."""
    stopped: list[int] = []
    stop = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        del frame
        stopped.append(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop, stopped


def _logs(argv: Sequence[str]) -> int:
    from classact.experiments.curves import RunError
    from classact.launch import logs

    workdir = flags.DEFINE_string("workdir", None, "Run directory of the experiment.")
    last = flags.DEFINE_integer("last", 10, "Lines of each node to begin with.", 1)
    _parse_all(argv, workdir)
    stop, stopped = _stop_on_signals()
    try:
        logs.follow(pathlib.Path(str(workdir.value)), stop, int(last.value or 10))
    except RunError as error:
        raise UsageError(str(error)) from None
    return 128 + stopped[0] if stopped else 0


def _status(argv: Sequence[str]) -> int:
    from classact.experiments.curves import RunError
    from classact.launch import status

    workdir = flags.DEFINE_string("workdir", None, "Run directory of the experiment.")
    _parse_all(argv, workdir)
    try:
        status.print_status(pathlib.Path(str(workdir.value)))
    except RunError as error:
        raise UsageError(str(error)) from None
    return 0


def _compare(argv: Sequence[str]) -> int:
    from classact.experiments import report
    from classact.experiments.curves import RunError

    out = flags.DEFINE_string("out", "report.html", "Where to write the page.")
    baseline = flags.DEFINE_string("baseline", None, "Run directory to compare with.")
    metrics = flags.DEFINE_multi_string(
        "metric", [], "What to compare, for instance eval/retrieval/t2i_r1; may be given several times."
    )
    runs = _parse(flags.FLAGS, argv)
    if not runs:
        raise UsageError("compare: name at least one run directory")
    try:
        written = report.write_report(runs, pathlib.Path(out.value), baseline.value, metrics.value)
    except RunError as error:
        raise UsageError(str(error)) from None
    print(report.format_table(written))
    print(f"report: {written.path.absolute().as_uri()}")
    return 0


def _data(argv: Sequence[str]) -> int:
    from classact.data import icon_shards
    from classact.data.source import DataError

    out = flags.DEFINE_string("out", None, "Folder to write; an interrupted build is continued there.")
    iconify = flags.DEFINE_string("iconify", None, "The unpacked npm package @iconify/json; else fetched.")
    emojibase = flags.DEFINE_string(
        "emojibase", None, "The unpacked npm package emojibase-data; else fetched."
    )
    size = flags.DEFINE_integer("size", 32, "Side of the images, in pixels.", lower_bound=1)
    rest = _parse(flags.FLAGS, argv)
    if rest != ["icons"]:
        raise UsageError(f"data: expected the name of a set, icons, got {' '.join(rest) or 'nothing'}")
    if out.value is None:
        raise UsageError("--out=DIR is missing")
    packages = [pathlib.Path(flag.value) if flag.value else None for flag in (iconify, emojibase)]
    try:
        counts = icon_shards.build(pathlib.Path(out.value), packages[0], packages[1], int(size.value))
    except DataError as error:
        raise UsageError(str(error)) from None
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'classact[icons]'") from None
    for kind, images in counts.items():
        print(f"{images:,} images: tar:{out.value}/{kind}-*.tar")
    return 0
