"""`classact export`: a trained model, for other tools."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from classact.launch.commands import arguments, terminal

USAGE = """\
  export    RUN_DIR --format=hf|open_clip|timm|big_vision|safetensors --out=DIR
            [--of=learner|online|reference]  writes a trained model for other tools: weights,
            configuration, preprocessing and a model card (docs/checkpoints.md)
"""
MORE_HELP = """RUN_DIR may also be a checkpoint of another tool, such as hf:FOLDER: it is converted.
"""
# As `weights.exporting.FORMATS`, which would have to be imported for `--help`.
FORMATS = ("hf", "open_clip", "timm", "big_vision", "safetensors")


def main(argv: Sequence[str]) -> int:
    """Writes a model; see `cli.main`."""
    from classact.launch.assembly.parts import run_weights
    from classact.weights import exporting, model_card, opening
    from classact.weights.errors import WeightsError

    kind = flags.DEFINE_enum("format", None, FORMATS, "Which tool is to read it.")
    out = flags.DEFINE_string("out", None, "Folder to write; there must be nothing in it.")
    of = flags.DEFINE_enum("of", "learner", run_weights.MODELS, "Which of the run's models.")
    rest = arguments.parse(argv)
    if len(rest) != 1:
        raise arguments.UsageError(f"export: expected one RUN_DIR, got {' '.join(rest) or 'nothing'}")
    for flag in (kind, out):
        if not flag.value:
            raise arguments.UsageError(f"--{flag.name} is missing: {flags.FLAGS[flag.name].help}")
    spec, folder, tool = rest[0], pathlib.Path(str(out.value)), str(kind.value)
    outside = opening.is_outside(spec)
    try:
        checkpoint = opening.read(spec) if outside else run_weights.of_run(pathlib.Path(spec), str(of.value))
        found = exporting.prepare(checkpoint, tool, folder)
    except WeightsError as error:
        raise arguments.UsageError(f"export: {error}") from None
    config, result = ({}, {}) if outside else _told(pathlib.Path(spec))
    title = spec if outside else f"{of.value} of {pathlib.Path(spec).resolve().name}"
    text = model_card.card(title, checkpoint, tool, found.load, config, result)
    try:
        written = exporting.write(found, folder, text)
    except OSError as error:
        raise arguments.UsageError(
            f"--out={folder}: cannot be written ({error.strerror}): name another"
        ) from None
    for path in written:
        print(path)
    if checkpoint.input.tokenizer is not None:
        name = checkpoint.input.tokenizer
        terminal.say_first([f"its texts need the tokenizer {name.kind} {name.name}, which is not written"])
    return 0


def _told(run: pathlib.Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What a run says of itself: `config.json`, and `result.json` if it has ended."""
    from classact.weights.files.opened import read_json

    result = run / "result.json"
    try:
        return read_json(run / "config.json"), read_json(result) if result.exists() else {}
    except ValueError as error:
        raise arguments.UsageError(f"export: {error}") from None
