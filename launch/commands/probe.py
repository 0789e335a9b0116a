"""`classact probe`: a linear classifier on the features of a checkpoint, as a reference."""

import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from classact.launch.commands import arguments, terminal

USAGE = """\
  probe     --config=FILE.py --from=RUN_DIR|hf:FOLDER|… --out=DIR [--config.FIELD=VALUE … --l2=X]
            fits a linear classifier on the features of a trained model, on the configuration's
            training data; --config.reference.checkpoint=DIR takes it (docs/checkpoints.md)
"""
_L2_HELP = "Of the weights, for features of deviation 1; -1: the best of five on a tenth of the examples."


def main(argv: Sequence[str]) -> int:
    """Fits a probe, as the command line says; see `cli.main`."""
    from classact.launch.commands import config_file

    source = flags.DEFINE_string(
        "from", None, "Whose features: a run directory, or a checkpoint such as hf:FOLDER."
    )
    out = flags.DEFINE_string("out", None, "Directory to write; there must be nothing in it.")
    l2 = flags.DEFINE_float("l2", -1.0, _L2_HELP, -1.0)
    batch_size = flags.DEFINE_integer("batch_size", 256, "Examples of a forward pass.", 1)
    config = config_file.parse(argv)
    for flag in (source, out):
        if not flag.value:
            raise arguments.UsageError(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}")
    value = float(l2.value if l2.value is not None else -1.0)
    if -1 < value < 0:
        raise arguments.UsageError(f"--l2={value}: expected at least 0, or -1")
    return probe(
        config.to_dict(), str(source.value), pathlib.Path(str(out.value)), value, int(batch_size.value or 1)
    )


def probe(fields: dict[str, Any], checkpoint: str, out: pathlib.Path, l2: float, batch_size: int) -> int:
    """Checks and fits a probe; prints where it is.

    Args:
        fields: of the configuration, see `experiments/base.py`.
        checkpoint: whose features.
        out: directory to write, as a run leaves one.
        l2: see the command's help.
        batch_size: examples of a forward pass.

    Returns:
        The exit status.

    Raises:
        arguments.UsageError: if a check fails; nothing is written.
    """
    from classact.data.source import DataError
    from classact.experiments import resolution
    from classact.experiments.config import ConfigError
    from classact.launch.assembly.parts import probe as probe_lib
    from classact.launch.assembly.parts import sources
    from classact.launch.commands import counting, probe_files
    from classact.launch.commands import run as run_lib
    from classact.nodes import linear_probe

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise arguments.UsageError(f"--out={out}: something is there already; name another directory")
    began, busy = time.monotonic(), time.process_time()
    try:
        config = resolution.resolve(probe_lib.fields_of(fields, checkpoint))
        prepared = run_lib.prepare(config, out, "synchronous")
        ((name, own),), (shape,) = config.data_sets.items(), prepared.data.values()
        probe_lib.check(config, shape)
        opened = sources.open_train_source(config, own, shape.held_out, known=shape.classes)
        terminal.say_first(prepared.first_lines)
        with counting.Counting("examples", opened.num_examples) as shown:
            values = linear_probe.L2 if l2 < 0 else (l2,)
            fitted = probe_lib.fit(config, shape, opened, values, batch_size, shown.add)
    except (ConfigError, DataError) as error:
        raise arguments.UsageError(str(error)) from None
    said = f"fitted on {fitted.examples:,} examples of {name}, l2={fitted.head.l2:g}"
    print(f"classact: {said}", file=sys.stderr, flush=True)
    try:
        result = probe_files.write(prepared, fitted, time.monotonic() - began, time.process_time() - busy)
    except OSError as error:
        raise arguments.UsageError(
            f"--out={out}: cannot be written ({error.strerror}): name another"
        ) from None
    for metric, found in result["final"].items():
        print(f"{metric} {found:.4g}")
    print(f"completed: {out}")
    return 0
