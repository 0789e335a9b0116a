"""`classact compare`: a page that compares experiments."""

import contextlib
import errno
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

from absl import flags

from classact.launch.commands import arguments

USAGE = """\
  compare   RUN_DIR… --out=report.html [--baseline=RUN_DIR] [--metric=eval/EVALUATOR/NAME …]
            [--target=0.8 …] [--charts=DIR] [--csv=FILE] [--latex=FILE]
            [--reference-runs=N]
            compares finished (or running) experiments on one page
"""


_KINDS = {"charts": "folder"}


def main(argv: Sequence[str]) -> int:
    """Writes the page, and prints a table of it; see `cli.main`."""
    from classact.experiments.curves import RunError
    from classact.experiments.report import export, report

    out = flags.DEFINE_string("out", "report.html", "Where to write the page.")
    baseline = flags.DEFINE_string("baseline", None, "Run directory to compare with.")
    metrics = flags.DEFINE_multi_string(
        "metric", [], "What to compare, for instance eval/retrieval/t2i_r1; may be given several times."
    )
    targets = flags.DEFINE_multi_string(
        "target",
        [],
        "A value of the metric, as 0.8, at which to compare besides; may be given several times.",
    )
    charts = flags.DEFINE_string("charts", None, "Folder for each chart as SVG and as PNG.")
    csv = flags.DEFINE_string("csv", None, "Where to write all figures as CSV.")
    latex = flags.DEFINE_string("latex", None, "Where to write a LaTeX table.")
    reference_runs = flags.DEFINE_integer(
        "reference-runs",
        None,
        "Among how many runs the training of a reference is shared, for one of the three ways to count it. "
        "Without it: among those that are compared and use it.",
        lower_bound=1,
    )
    runs = arguments.parse(argv)
    if not runs:
        raise arguments.UsageError("compare: name at least one run directory")
    values = [_target(text) for text in targets.value]
    # Before the page is written: who asked for all has all or nothing.
    for name, path in (("csv", csv.value), ("latex", latex.value), ("charts", charts.value)):
        _check_place(name, path)
    with _writing("out", out.value):
        try:
            written = report.write_report(
                runs, pathlib.Path(out.value), baseline.value, metrics.value, values, reference_runs.value
            )
        except RunError as error:
            raise arguments.UsageError(str(error)) from None
    with _writing("charts", charts.value):
        if charts.value is not None:
            written.drawn.save(pathlib.Path(charts.value))
    for name, path, make in (("csv", csv.value, export.to_csv), ("latex", latex.value, export.to_latex)):
        with _writing(name, path):
            if path is not None:
                _write(pathlib.Path(path), make(written.comparisons))
    print(report.format_table(written))
    print(f"report: {written.path.absolute().as_uri()}")
    return 0


def _target(text: str) -> float:
    """A target's value.

    Raises:
        UsageError: if it is no share.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value <= 1.0:
        raise arguments.UsageError(
            f"--target={text}: expected a value of the metric above 0 and up to 1, such as 0.8"
        )
    return value


def _check_place(flag: str, path: str | None) -> None:
    """Raises UsageError if something else is where a flag's file or folder shall be, or above it."""
    if path is None:
        return
    place = pathlib.Path(path).absolute()
    with _writing(flag, path):
        if flag not in _KINDS and place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        above = place if flag in _KINDS else place.parent
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextlib.contextmanager
def _writing(flag: str, path: str | None) -> Iterator[None]:
    """Says which flag's file cannot be written.

    Raises:
        UsageError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        raise arguments.UsageError(
            f"--{flag}={path}: cannot be written ({error.strerror}): name another {_KINDS.get(flag, 'file')}"
        ) from None


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
