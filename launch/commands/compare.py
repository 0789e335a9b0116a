"""`classact compare`: a page that compares experiments."""

import pathlib
from collections.abc import Sequence

from absl import flags

from classact.launch.commands import arguments

USAGE = """\
  compare   RUN_DIR… --out=report.html [--baseline=RUN_DIR] [--metric=eval/EVALUATOR/NAME …]
            compares finished (or running) experiments on one page
"""


def main(argv: Sequence[str]) -> int:
    """Writes the page, and prints a table of it; see `cli.main`."""
    from classact.experiments import report
    from classact.experiments.curves import RunError

    out = flags.DEFINE_string("out", "report.html", "Where to write the page.")
    baseline = flags.DEFINE_string("baseline", None, "Run directory to compare with.")
    metrics = flags.DEFINE_multi_string(
        "metric", [], "What to compare, for instance eval/retrieval/t2i_r1; may be given several times."
    )
    runs = arguments.parse(argv)
    if not runs:
        raise arguments.UsageError("compare: name at least one run directory")
    try:
        written = report.write_report(runs, pathlib.Path(out.value), baseline.value, metrics.value)
    except RunError as error:
        raise arguments.UsageError(str(error)) from None
    except OSError as error:
        raise arguments.UsageError(
            f"--out={out.value}: cannot be written ({error.strerror}): name another file"
        ) from None
    print(report.format_table(written))
    print(f"report: {written.path.absolute().as_uri()}")
    return 0
