"""`classact evaluate`: an evaluator that joins an experiment."""

import pathlib
from collections.abc import Sequence

from absl import flags

from classact.launch.commands import arguments, terminal

USAGE = """\
  evaluate  --workdir=DIR --evaluator=accuracy|retrieval|zero_shot [--data=SOURCE --name=NAME …]
            joins a running experiment, or takes a finished one's last checkpoint
"""


def main(argv: Sequence[str]) -> int:
    """Evaluates until the experiment ends; see `cli.main`."""
    from classact.data.source import DataError
    from classact.experiments.config import EVALUATOR_KINDS, ConfigError, EvaluatorConfig
    from classact.launch.assembly import joined_run
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
    arguments.parse_all(argv, workdir, kind)
    own = EvaluatorConfig(str(kind.value), data.value, templates.value, bool(distinct.value))
    try:
        attached = attach.prepare(
            pathlib.Path(str(workdir.value)),
            name.value or f"attached_{kind.value}",
            own,
            int(every.value or 0),
        )
    except (joined_run.AttachError, ConfigError, DataError) as error:
        raise arguments.UsageError(str(error)) from None
    terminal.say_first(attached.first_lines)
    stop, stopped = terminal.stop_on_signals()
    try:
        attach.evaluate(attached, stop, report=lambda line: print(line, flush=True))
    except (DataError, CheckpointError) as error:
        raise arguments.UsageError(str(error)) from None
    except DivergedError as error:
        terminal.complain(f"{workdir.value}: {error}")
        return 1
    except joined_run.AttachError as error:
        terminal.complain(str(error))
        return 1
    return 128 + stopped[0] if stopped else 0
