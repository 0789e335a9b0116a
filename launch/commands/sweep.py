"""`classact sweep`: all the runs of a figure or a table."""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from classact.launch.commands import arguments, command_help, terminal

USAGE = """\
  sweep     FILE.py … --out=DIR [--records=FILE] [--jobs=N] [--launch=synchronous|threads|…]
            makes all runs of a file of experiments/figures/ or of yours, its table and its
            picture; goes on where it was stopped, and makes no run twice
"""
MORE_HELP = """What is known of runs is read from a `records.jsonl` beside the file, too.

a sweep's file:
  RUNS              the names of its parts
  get_config(part)  a part's configuration; a `reference.checkpoint`, `learner.init` or
                    `scorer.init` that is the name of a part means that part's run
  baseline(part)    optional: the name of the part that this one is held against
  METRIC            optional: eval/EVALUATOR/NAME, what the table is of
  draw(runs)        optional: makes a matplotlib Figure of the runs, by name
"""


def main(argv: Sequence[str]) -> int:
    """Makes the runs that are left, then tables and pictures; see `cli.main`."""
    from classact.experiments.config import ConfigError
    from classact.experiments.curves import RunError
    from classact.experiments.records import RecordError
    from classact.launch.commands import sweep_file, sweep_runs, sweeping
    from classact.launch.engines import accelerators, folders
    from classact.launch.engines.outcome import LaunchError

    out = flags.DEFINE_string("out", None, "Directory of the runs; one that is in it is not made again.")
    kept = flags.DEFINE_string(
        "records", None, "Takes what is known of ended runs; default: OUT/records.jsonl."
    )
    launch = flags.DEFINE_string("launch", "synchronous", "How each run is launched; see `classact train`.")
    jobs = flags.DEFINE_integer(
        "jobs",
        0,
        "Runs at once; 0: as many as cores where a run is one process without a GPU, else one.",
        lower_bound=0,
    )
    command_help.check(argv[1:])
    files = arguments.parse(argv)
    if not files:
        raise arguments.UsageError("sweep: name a file, for instance experiments/figures/figure_3.py")
    if not out.value:
        raise arguments.UsageError("--out=DIR is missing: the directory for the runs")
    engine = arguments.engine_named(launch.value)
    folder = pathlib.Path(out.value)
    records_file = pathlib.Path(kept.value) if kept.value else folder / "records.jsonl"
    # Several processes on one GPU would take its memory from each other.
    cores = 1 if accelerators.found().gpus else len(os.sched_getaffinity(0))
    at_once = jobs.value or (cores if engine.one_process else 1)
    try:
        sweeps = [sweep_file.load(file) for file in files]
        runs = sweep_runs.Runs(folder, launch.value, engine, at_once, sweeping.together(sweeps))
        records_file.parent.mkdir(parents=True, exist_ok=True)
        said = f"--records={records_file}: another sweep is writing it"
        with sweep_runs.locked(folder), folders.held(records_file.with_suffix(".lock"), said):
            stop, stopped = terminal.stop_on_signals()
            failed = sweeping.make_all(sweeps, runs, records_file, stop)
            if stopped:
                return 128 + stopped[0]
            return 1 if failed else 0
    except (ConfigError, RecordError, RunError, LaunchError) as error:
        raise arguments.UsageError(str(error)) from None
    except OSError as error:
        raise arguments.UsageError(f"{error.filename or folder}: {error.strerror}") from None
