"""How every chart is drawn, and what becomes of it: an `<svg>` element, an SVG file, a PNG file.

Text stays text, in the page's own font; colours are told apart by colour-blind
readers (the Okabe-Ito palette); the baseline is black.
"""

import dataclasses
import html
import io
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from classact.experiments.compare.groups import Group

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6a51a3", "#8c6d31")
BASELINE_COLOUR = "#222222"
GREY = "#5f6b76"
INK, LINE, SPINE = "#1f2933", "#e4e7eb", "#9aa5b1"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SPINE,
    "axes.labelcolor": GREY,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
# Inches, at 72 px each: as wide as a phone, so that its text is not scaled down there.
WIDTH, HEIGHT = 5.4, 3.7
_DOTS_PER_INCH = 200


@dataclasses.dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        name: of its files, without an ending.
        description: what it shows, for those who do not see it.
        figure: the drawing.
    """

    name: str
    description: str
    figure: Figure

    @property
    def svg(self) -> str:
        """An `<svg>` element for a page, which takes the width that it is given."""
        return _element(self.figure, self.description)

    def save(self, folder: pathlib.Path) -> None:
        """Writes `<name>.svg` and `<name>.png` on white; the folder must exist.

        Raises:
            OSError: if one cannot be written.
        """
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.description}):
            for ending, options in (
                ("svg", {"metadata": {"Date": None, "Creator": None}}),
                ("png", {"dpi": _DOTS_PER_INCH, "metadata": {"Software": None}}),
            ):
                self.figure.savefig(folder / f"{self.name}.{ending}", facecolor="white", **options)


def file_name(*parts: str) -> str:
    """A file's name of words and metrics, as `top1-test-updates`."""
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(parts)).strip("-").lower()


def colours(groups: Sequence[Group]) -> dict[str, str]:
    """A colour for each group's label."""
    others = iter(range(len(groups)))
    return {
        group.label: BASELINE_COLOUR if group.is_baseline else PALETTE[next(others) % len(PALETTE)]
        for group in groups
    }


def percent_axis(axes: Axes) -> None:
    """Labels the y axis in per cent."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def updates_axis(axes: Axes) -> None:
    """Labels the x axis in whole numbers."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def new_axes(title: str, label: str, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """Makes a chart; a `Figure` of its own leaves pyplot's global state alone."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, pad=12)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure, axes


def _element(figure: Figure, description: str) -> str:
    """Renders a chart as an `<svg>` element that takes the width it is given."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # No metadata, no style that would reach the page around the picture, the
    # page's own font, and no element ids that two charts would share.
    text = re.sub(r"\s*<metadata>.*?</metadata>|\s*<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    view_box = re.search(r'viewBox="[^"]*"', text)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'aria-label="{html.escape(description)}" {view_box.group() if view_box else ""}>'
    )
    return opening + text[text.index(">") + 1 :]
