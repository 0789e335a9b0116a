"""The command line: `classact train`, `evaluate`, `actors`, `status`, `logs`, `compare` and `data`."""

import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

from classact import user_code
from classact.launch.commands import command_help

if TYPE_CHECKING:
    from classact.launch.engines.outcome import Outcome

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

# What Python says of a word that is no value of a flag's type.
_NO_VALUE = (
    (r"invalid literal for int\(\) with base 10: .*", "expected a whole number"),
    (r"could not convert string to float: .*", "expected a number"),
    (r"\('Non-boolean argument to boolean flag', .*\)", "expected true or false"),
    (r"Failed to parse .* as a ConfigDict: .*", "expected a dict, such as \"{'name': 1}\""),
)

_ISOLATE_HELP = (
    "Run in a network of its own, with nothing but loopback: nobody outside reaches the program's servers, "
    "nor the program anything outside. No data over the network; `classact evaluate` and `actors` only "
    "within it, by a command that they tell. With processes, threads and synchronous; see SECURITY.md."
)
_PACKAGE = pathlib.Path(__file__).resolve().parents[2]
_FIELDS_HELP = f"""fields:
  --config=FILE.py[:PART]
      The configuration, for instance experiments/configs/classification.py. Required.
  --config.FIELD=VALUE
      Sets a field, --config.GROUP.FIELD=VALUE one in a group. All fields, each with its default and
      what it is for, are in {_PACKAGE}/experiments/base.py
"""
# What bad input is in the traceback of a node that was the first to see it.
_REFUSAL = re.compile(
    r"^classact\.(experiments\.config\.ConfigError|data\.source\.DataError): (?P<said>.+)", re.MULTILINE
)


class UsageError(Exception):
    """What the user typed cannot be run; one line says why."""


def entry_point() -> None:
    """Runs `classact` and exits: 0 the goal is reached, 2 bad input, 1 anything else."""
    user_code.use_working_directory()
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
    except command_help.HelpAsked:
        more = _FIELDS_HELP if argv[1] == "train" else ""
        print(command_help.of_command(argv[1], USAGE, __name__, more), end="")
        return 0
    except UsageError as error:
        return _complain(str(error))
    # Before there are nodes to stop, or after.
    except KeyboardInterrupt:
        print("classact: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _complain(message: str) -> int:
    print(f"classact: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parse(argv: Sequence[str], config: ConfigDict | None = None) -> list[str]:
    """Parses flags, and those that set a configuration's fields; returns the remaining arguments."""
    command_help.check(argv[1:])
    try:
        if config is not None:
            config_flags.DEFINE_config_dict("config", config, "Configuration file.", sys_argv=list(argv))
        return flags.FLAGS(list(argv))[1:]
    # Of many kinds, if a value is of another type; to the user all of them are one
    # line about a flag.
    except Exception as error:
        said = str(error)
        for pattern, accepted in _NO_VALUE:
            said = re.sub(pattern, accepted, said, flags=re.DOTALL)
        raise UsageError(said) from None


def _parse_all(argv: Sequence[str], *required: flags.FlagHolder[Any]) -> None:
    """Parses flags where nothing else is accepted."""
    rest = _parse(argv)
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}: everything is given as --NAME=VALUE")
    for flag in required:
        # Empty, it is a variable of a shell's that was not set.
        if not flag.value:
            raise UsageError(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}")


def _train(argv: Sequence[str]) -> int:
    from classact.experiments.config import ConfigError
    from classact.launch.commands import config_file, isolation
    from classact.launch.commands import run as run_lib

    workdir = flags.DEFINE_string("workdir", None, "Run directory; a run in it goes on.")
    launch = flags.DEFINE_enum("launch", "processes", run_lib.LAUNCHES, "How to start the program.")
    isolate = flags.DEFINE_bool("isolate", False, _ISOLATE_HELP)
    # Before a configuration that may be missing, or fail.
    command_help.check(argv[1:])
    file, argv = config_file.split(argv)
    if not file:
        given = next((word for word in argv[1:] if re.search(r"\.py(:\w+)?$", word)), None)
        meant = f"did you mean --config={given}?" if given else "see experiments/configs/"
        raise UsageError(f"--config=FILE.py is missing; {meant}")
    try:
        config = config_file.load(file)
        config_file.check_fields(config, argv)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    rest = _parse(argv, config)
    if rest:
        raise UsageError(f"unexpected argument {rest[0]!r}: fields are set by --config.FIELD=VALUE")
    if not workdir.value:
        raise UsageError("--workdir=DIR is missing: the directory for the run's files")
    if isolate.value and launch.value in run_lib.CLUSTERS:
        raise UsageError(f"--isolate: not with --launch={launch.value}, whose nodes must reach each other")
    if isolate.value and not isolation.is_inside():
        isolation.start_over()
    return train(config.to_dict(), pathlib.Path(workdir.value), launch.value)


def train(fields: dict, workdir: pathlib.Path, engine: str) -> int:
    """Checks and runs one experiment; prints how it ended.

    Args:
        fields: of the configuration, see `experiments/base.py`.
        workdir: the run directory.
        engine: one of `run.LAUNCHES`.

    Returns:
        The exit status.

    Raises:
        UsageError: if a check fails; no process has started and nothing is written. Also
            if only a node could find it, on the devices that it has or far into its data.
    """
    from classact.data.source import DataError
    from classact.experiments import resolution
    from classact.experiments.config import ConfigError
    from classact.launch.commands import run as run_lib
    from classact.launch.engines.outcome import LaunchError
    from classact.nodes import checkpoints

    try:
        prepared = run_lib.prepare(resolution.resolve(fields), workdir, engine)
    except (ConfigError, DataError) as error:
        raise UsageError(str(error)) from None
    _say_first(prepared.first_lines)
    try:
        outcome = run_lib.run(prepared, engine)
    except LaunchError as error:
        raise UsageError(str(error)) from None
    _say_how_it_ended(outcome)
    step = checkpoints.latest_step(workdir / "checkpoints")
    if outcome.status != "completed" and step is not None and engine != "synchronous":
        again = ", and would most likely diverge again" if outcome.diverged is not None else ""
        said = f"its newest checkpoint is of step {step}; the same command goes on{again}"
        print(f"classact: {said}", file=sys.stderr)
    result = workdir / "result.json"
    print(f"{outcome.status}: {result if result.exists() else workdir}")
    return outcome.exit_status


def _say_how_it_ended(outcome: "Outcome") -> None:
    """Prints what there is to say of a run; UsageError if bad input has ended it."""
    refusal = _REFUSAL.search(outcome.traceback)
    if refusal:
        raise UsageError(f"{refusal['said']} (found by task {outcome.failed_task})")
    # That numbers grow out of bounds is no fault at the place where it is found.
    if outcome.traceback and outcome.diverged is None:
        print(outcome.traceback, file=sys.stderr)
    if outcome.message:
        print(f"classact: {outcome.message}", file=sys.stderr)
    if outcome.stuck:
        print(f"classact: did not stop in time: {', '.join(outcome.stuck)}", file=sys.stderr)


def _say_first(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"classact: {line}", file=sys.stderr, flush=True)


def _evaluate(argv: Sequence[str]) -> int:
    from classact.data.source import DataError
    from classact.experiments.config import EVALUATOR_KINDS, ConfigError, EvaluatorConfig
    from classact.launch.commands import attach
    from classact.nodes.checkpoints import CheckpointError
    from classact.nodes.errors import DivergedError

    workdir = flags.DEFINE_string("workdir", None, "Run directory of the experiment.")
    kind = flags.DEFINE_enum("evaluator", None, EVALUATOR_KINDS, "What to measure.")
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
    _say_first(attached.first_lines)
    stop, stopped = _stop_on_signals()
    try:
        attach.evaluate(attached, stop, report=lambda line: print(line, flush=True))
    except (DataError, CheckpointError) as error:
        raise UsageError(str(error)) from None
    except DivergedError as error:
        _complain(f"{workdir.value}: {error}")
        return 1
    except attach.AttachError as error:
        _complain(str(error))
        return 1
    return 128 + stopped[0] if stopped else 0


def _actors(argv: Sequence[str]) -> int:
    from classact.launch.commands import attach, attach_actors
    from classact.launch.engines.outcome import LaunchError

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
    _say_first(joining.first_lines)
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
    from classact.launch.commands import logs

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
    from classact.launch.commands import status

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
    runs = _parse(argv)
    if not runs:
        raise UsageError("compare: name at least one run directory")
    try:
        written = report.write_report(runs, pathlib.Path(out.value), baseline.value, metrics.value)
    except RunError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(
            f"--out={out.value}: cannot be written ({error.strerror}): name another file"
        ) from None
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
    rest = _parse(argv)
    if rest != ["icons"]:
        raise UsageError(f"data: expected the name of a set, icons, got {' '.join(rest) or 'nothing'}")
    if not out.value:
        raise UsageError("--out=DIR is missing: the folder to write")
    packages = [pathlib.Path(flag.value) if flag.value else None for flag in (iconify, emojibase)]
    try:
        counts = icon_shards.build(pathlib.Path(out.value), packages[0], packages[1], int(size.value))
    except DataError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"--out={out.value}: cannot be written ({error.strerror}): name another") from None
    except ImportError as error:
        raise UsageError(f"{error}: pip install 'classact[icons]'") from None
    for kind, images in counts.items():
        print(f"{images:,} images: 'tar:{out.value}/{kind}-*.tar?captions=lines'")
    return 0
