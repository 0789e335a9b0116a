"""`classact actors`: actors that join a running experiment."""

import pathlib
from collections.abc import Sequence

from absl import flags

from classact.launch.commands import arguments, terminal

USAGE = """\
  actors    --workdir=DIR [--dataset=NAME] [--count=1]
            adds inference servers with their run loops to a running experiment, until it ends
"""


def main(argv: Sequence[str]) -> int:
    """Runs actors until the experiment ends; see `cli.main`."""
    from classact.launch.assembly import joined_run
    from classact.launch.commands import attach_actors
    from classact.launch.engines.outcome import LaunchError

    workdir = flags.DEFINE_string("workdir", None, "Run directory of the experiment.")
    data_set = flags.DEFINE_string("dataset", "", "Whose replay to fill; needed if there are several.")
    count = flags.DEFINE_integer("count", 1, "How many inference servers to add.", 1)
    arguments.parse_all(argv, workdir)
    try:
        joining = attach_actors.prepare(
            pathlib.Path(str(workdir.value)), str(data_set.value), int(count.value or 1)
        )
    except joined_run.AttachError as error:
        raise arguments.UsageError(str(error)) from None
    terminal.say_first(joining.first_lines)
    stop, stopped = terminal.stop_on_signals()
    try:
        outcome = attach_actors.run(joining, stop, report=lambda line: print(line, flush=True))
    except (joined_run.AttachError, LaunchError) as error:
        terminal.complain(str(error))
        return 1
    terminal.say_how_it_ended(outcome)
    return 128 + stopped[0] if stopped else outcome.exit_status
