"""`classact score`: a trained model's loss on every example of a data set, as files."""

import pathlib
from collections.abc import Sequence

from absl import flags

from classact.launch.commands import arguments, terminal

USAGE = """\
  score     --reference=RUN_DIR --out=DIR [--data=SOURCE --label_noise=P --processes=N …]
            writes a trained model's loss on each training example, by id, as Parquet files: for
            --config.reference.scores, policy=top_share, and other tools (docs/amortised.md)
"""


def main(argv: Sequence[str]) -> int:
    """Scores a data set; see `cli.main`."""
    from classact.data.score_files import ScoreFileError
    from classact.data.source import DataError
    from classact.experiments.config import ConfigError
    from classact.launch.assembly import joined_run
    from classact.launch.commands import score_run
    from classact.launch.commands.score_processes import WorkerError
    from classact.launch.engines.outcome import LaunchError

    run = flags.DEFINE_string("reference", None, "Run directory of the model that scores: its learner.")
    out = flags.DEFINE_string("out", None, "Folder to write; an interrupted scoring goes on there.")
    data = flags.DEFINE_string("data", "", "Source to score; else the run's train_data, with its noise.")
    label_noise = flags.DEFINE_float("label_noise", None, "As in the run that reads the files.", 0.0, 1.0)
    caption_noise = flags.DEFINE_float("caption_noise", None, "Likewise.", 0.0, 1.0)
    data_seed = flags.DEFINE_integer("data_seed", None, "Of both; else the run's.", 0)
    batch_size = flags.DEFINE_integer("batch_size", 256, "Examples of a forward pass.", 1)
    processes = flags.DEFINE_integer("processes", 0, "0: one a GPU, or one a processor core.", 0)
    arguments.parse_all(argv, run, out)
    given = {
        "train_data": data.value or None,
        # Other data are as they are.
        "label_noise": 0.0 if data.value and label_noise.value is None else label_noise.value,
        "caption_noise": 0.0 if data.value and caption_noise.value is None else caption_noise.value,
        "data_seed": data_seed.value,
    }
    fields = {name: value for name, value in given.items() if value is not None}
    folder = pathlib.Path(str(out.value))
    try:
        scoring = score_run.prepare(pathlib.Path(str(run.value)), folder, fields, int(batch_size.value or 1))
    except (joined_run.AttachError, ConfigError, DataError, ScoreFileError) as error:
        raise arguments.UsageError(str(error)) from None
    terminal.say_first(scoring.first_lines)
    stop, stopped = terminal.stop_on_signals()
    try:
        done = score_run.score(scoring, folder, int(processes.value or 0), stop)
    except (LaunchError, ConfigError) as error:
        raise arguments.UsageError(str(error)) from None
    except WorkerError as error:
        terminal.complain(f"{error}; the same command goes on with what is missing")
        return 2 if error.is_input else 1
    except OSError as error:
        terminal.complain(f"--out={folder}: cannot be written ({error.strerror}); the same command goes on")
        return 1
    if not done:
        terminal.complain(f"interrupted: the same command goes on with what {folder} lacks")
        return 128 + stopped[0]
    print(f"completed: {folder / '_scores.json'}")
    return 0
