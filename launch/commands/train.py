"""`classact train`: checks an experiment, and runs it."""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from classact.launch.commands import arguments, terminal

USAGE = """\
  train     --config=FILE.py --workdir=DIR [--config.FIELD=VALUE …]
            [--launch=processes|threads|slurm|ray|synchronous|MODULE:CLASS] [--isolate]
            trains one model; see experiments/configs/ for configurations
            --isolate gives it a network of its own, for processes, threads and synchronous:
            nothing outside reaches its servers, and it reaches nothing outside, such as data;
            evaluate and actors must enter it, and tell how (SECURITY.md)
"""
_ISOLATE_HELP = (
    "Run in a network of its own, with nothing but loopback: nobody outside reaches the program's servers, "
    "nor the program anything outside. No data over the network; `classact evaluate` and `actors` only "
    "within it, by a command that they tell. With processes, threads and synchronous; see SECURITY.md."
)
_PACKAGE = pathlib.Path(__file__).resolve().parents[2]
MORE_HELP = f"""fields:
  --config=FILE.py[:PART]
      The configuration, for instance experiments/configs/classification.py. Required.
  --config.FIELD=VALUE
      Sets a field, --config.GROUP.FIELD=VALUE one in a group. All fields, each with its default and
      what it is for, are in {_PACKAGE}/experiments/base.py
"""


def main(argv: Sequence[str]) -> int:
    """Trains one model, as the command line says; see `cli.main`."""
    from classact.launch.commands import config_file
    from classact.launch.engines import isolation, registry

    workdir = flags.DEFINE_string("workdir", None, "Run directory; a run in it goes on.")
    launch = flags.DEFINE_string("launch", registry.DEFAULT, "How to run the program: the name of an engine.")
    isolate = flags.DEFINE_bool("isolate", False, _ISOLATE_HELP)
    config = config_file.parse(argv)
    if not workdir.value:
        raise arguments.UsageError("--workdir=DIR is missing: the directory for the run's files")
    engine = arguments.engine_named(launch.value)
    if isolate.value and engine.several_hosts:
        raise arguments.UsageError(
            f"--isolate: not with --launch={launch.value}, whose nodes must reach each other"
        )
    if isolate.value and not isolation.is_inside():
        isolation.start_over()
    return train(config.to_dict(), pathlib.Path(workdir.value), launch.value)


def train(fields: dict, workdir: pathlib.Path, engine: str) -> int:
    """Checks and runs one experiment; prints how it ended.

    Args:
        fields: of the configuration, see `experiments/base.py`.
        workdir: the run directory.
        engine: name of an engine, see `registry`.

    Returns:
        The exit status.

    Raises:
        arguments.UsageError: if a check fails; no process has started and nothing is written. Also
            if only a node could find it, on the devices that it has or far into its data.
    """
    from classact.data.source import DataError
    from classact.experiments import resolution
    from classact.experiments.config import ConfigError
    from classact.launch.commands import resume
    from classact.launch.commands import run as run_lib
    from classact.launch.engines import registry
    from classact.launch.engines.outcome import LaunchError
    from classact.nodes import checkpoints

    try:
        fields = resume.with_known_models(fields, workdir)
        prepared = run_lib.prepare(resolution.resolve(fields), workdir, engine)
    except (ConfigError, DataError) as error:
        raise arguments.UsageError(str(error)) from None
    terminal.say_first(prepared.first_lines)
    try:
        outcome = run_lib.run(prepared, engine)
    except LaunchError as error:
        raise arguments.UsageError(str(error)) from None
    terminal.say_how_it_ended(outcome)
    step = checkpoints.latest_step(workdir / "checkpoints")
    if outcome.status != "completed" and step is not None and registry.get(engine).resumes:
        again = ", and would most likely diverge again" if outcome.diverged is not None else ""
        said = f"its newest checkpoint is of step {step}; the same command goes on{again}"
        print(f"classact: {said}", file=sys.stderr)
    result = workdir / "result.json"
    print(f"{outcome.status}: {result if result.exists() else workdir}")
    return outcome.exit_status
