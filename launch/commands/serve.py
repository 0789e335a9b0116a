"""`classact serve`: selects for a trainer that is not ours, and hands sub-batches on to it."""

import pathlib
from collections.abc import Sequence

from absl import flags

from classact.launch.commands import arguments, command_help

USAGE = """\
  serve     --config=FILE.py --workdir=DIR [--listen=NUMBER:PORT] [--config.FIELD=VALUE …]
            [--launch=processes|threads|slurm|ray|MODULE:CLASS]
            selects sub-batches for a trainer of yours, which gets them by
            classact.client.connect("DIR"); see docs/any_trainer.md
"""
MORE_HELP = """fields:
  As those of `classact train`; `learner` is not used: what is trained is a model as `scorer` says.
"""


def main(argv: Sequence[str]) -> int:
    """Runs a selector with all that it needs, as the command line says; see `cli.main`."""
    from classact.launch.commands import config_file, train
    from classact.launch.engines import registry

    workdir = flags.DEFINE_string("workdir", None, "Run directory; a run in it goes on.")
    launch = flags.DEFINE_string("launch", registry.DEFAULT, "How to run the program: the name of an engine.")
    listen = flags.DEFINE_string(
        "listen", None, "Where trainers reach it: an IP address's number and a port, or unix:/PATH. "
        "As --config.serve.listen.",
    )  # fmt: skip
    command_help.check(argv[1:])
    config = config_file.parse(argv)
    if not workdir.value:
        raise arguments.UsageError("--workdir=DIR is missing: the directory for the run's files")
    engine = arguments.engine_named(launch.value)
    if not engine.has_nodes:
        raise arguments.UsageError(
            f"--launch={launch.value}: a loop without nodes has nobody who could hand sub-batches on; "
            "take threads or processes"
        )
    fields = config.to_dict()
    fields["serve"] = {**fields.get("serve", {}), "on": True}
    if listen.value is not None:
        fields["serve"]["listen"] = listen.value
    return train.train(fields, pathlib.Path(workdir.value), launch.value)
