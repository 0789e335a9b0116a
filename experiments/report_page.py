"""The report's page: one HTML file that loads nothing, and reads well on a phone."""

import html
import string
from collections.abc import Sequence
from typing import Optional

from classact.experiments import figures, table
from classact.experiments.comparison import Comparison
from classact.experiments.groups import Group, shared_fields
from classact.experiments.scored_images import Extremes, ScoredImage

_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; --ink: #1f2933; --grey: #5f6b76; --line: #e4e7eb; --soft: #f5f7fa;
  --wrong: #c0392b; }
* { box-sizing: border-box; stroke-linejoin: round; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial,
  sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
p { margin: .5rem 0; max-width: 46rem; }
.sub, .small, figcaption { color: var(--grey); }
.small { font-size: .87rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: .9rem;
  margin: 1.5rem 0 0; }
.card { border: 1px solid var(--line); border-top: 4px solid var(--colour); border-radius: 6px;
  padding: .9rem 1rem; }
.card .name { font-weight: 600; overflow-wrap: anywhere; }
.card .big { font-size: 1.75rem; font-weight: 650; line-height: 1.25; letter-spacing: -.02em; }
.card .big small { font-size: .95rem; font-weight: 500; letter-spacing: 0; }
.notes { background: #fff8e6; border-left: 4px solid #e6b422; padding: .6rem 1rem; margin: 1.5rem 0;
  border-radius: 0 6px 6px 0; }
.notes p { margin: .2rem 0; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .92rem; margin: .2rem 0 .6rem; }
.legend i { display: inline-block; width: 1.3em; height: .24em; margin-right: .45em;
  vertical-align: .22em;
  background: var(--colour); border-radius: 2px; }
.legend.parts i { width: .8em; height: .8em; vertical-align: -.05em; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr));
  gap: 1.4rem 1.6rem; }
.charts svg { display: block; width: 100%; height: auto; }
.table { overflow-x: auto; margin: 0 -1.2rem; padding: 0 1.2rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th { text-align: right; font-weight: 600; color: var(--grey); vertical-align: bottom; line-height: 1.3; }
th, td { padding: .4rem .55rem; border-bottom: 1px solid var(--line); }
td { text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tr.mean td, tr.mean td:first-child { background: var(--soft); font-weight: 600; }
td.none { color: #9aa5b1; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(76px, 1fr)); gap: .7rem .5rem;
  margin: .6rem 0 1.4rem; }
.images figure { margin: 0; text-align: center; }
.images img { width: 64px; height: 64px; object-fit: contain; image-rendering: pixelated;
  background: var(--soft);
  border: 1px solid var(--line); border-radius: 4px; }
.images .wrong img { border: 3px solid var(--wrong); }
.images figcaption { font-size: .72rem; line-height: 1.25; overflow-wrap: anywhere; }
.images .wrong figcaption b { color: var(--wrong); font-weight: 600; }
summary { cursor: pointer; font-weight: 600; margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .88rem;
  margin: 0; }
dt { color: var(--grey); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 480px) { main { padding-top: 1.3rem; } h1 { font-size: 1.4rem; } }
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


def render(compared: Comparison, notes: Sequence[str], images: Sequence[tuple[str, Extremes]]) -> str:
    """Renders the page.

    Args:
        compared: what to show.
        notes: what a reader must know before comparing.
        images: the extremes of the runs that have scored images, each with its label.
    """
    policies = dict.fromkeys(group.policy for group in compared.groups)
    sections = (
        _heading(compared),
        _cards(compared.groups),
        _notes(notes),
        _charts(compared),
        _table(compared.groups),
        _images(images),
        _configuration(compared.groups),
    )
    return _PAGE.substitute(
        title=f"classact: {_escape(', '.join(policies))}", body="\n".join(part for part in sections if part)
    )


def _escape(text: object) -> str:
    """Escapes a text of unknown content."""
    return html.escape(str(text))


def _heading(compared: Comparison) -> str:
    """The title, and what was compared on which data."""
    shared = shared_fields(compared.groups)
    where = [f"{shared['learner.model']}" if "learner.model" in shared else ""]
    where += [f"on {shared['train_data']}" if "train_data" in shared else ""]
    noise = shared.get("label_noise")
    where += [f"with {100 * noise:g} % label noise" if isinstance(noise, float) and noise else ""]
    subtitle = " ".join(part for part in where if part)
    return f'<h1>Selection policies compared</h1>\n<p class="sub">{_escape(subtitle)}</p>'


def _cards(groups: Sequence[Group]) -> str:
    """The result of each group in a few words."""
    colours = figures.colours(groups)
    cards = []
    for group in groups:
        words = _result(group)
        if words is not None:
            big, small = words
            cards.append(
                f'<div class="card" style="--colour: {colours[group.label]}">'
                f'<div class="name">{_escape(group.label)}</div><div class="big">{big}</div>'
                f'<div class="small">{small}</div></div>'
            )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _result(group: Group) -> Optional[tuple[str, str]]:
    """A group's result as a large and a small line."""
    final, target, updates = group.mean("final"), group.mean("target"), group.mean("updates")
    fewer, saved = group.mean("fewer_updates"), group.mean("saving_full")
    if group.is_baseline and final is not None:
        text = f"the baseline's final accuracy; it took {updates:,.0f} updates" if updates is not None else ""
        return table.percent(final), text
    if final is None or target is None:
        return None
    ends = f"ends at {table.percent(final)}"
    if fewer is None or updates is None:
        return "not reached", f"the baseline's {table.percent(target)}; {ends}"
    direction = "fewer" if fewer >= 0 else "more"
    compute = "" if saved is None else f"; compute saved, all included: {table.signed_percent(saved)}"
    return (
        f"{abs(100 * fewer):.0f} % <small>{direction} updates</small>",
        f"{updates:,.0f} to the baseline's {table.percent(target)}; {ends}{compute}",
    )


def _notes(notes: Sequence[str]) -> str:
    """What a reader must know before comparing."""
    lines = "".join(f"<p>{_escape(note)}</p>" for note in notes)
    return f'<div class="notes small">{lines}</div>' if lines else ""


def _charts(compared: Comparison) -> str:
    """The charts that there is data for, and how their numbers are made."""
    groups = compared.groups
    charts = (
        figures.accuracy_against_updates(groups, compared.metric),
        figures.accuracy_against_macs(groups, compared.metric),
        figures.compute_bars(groups),
        figures.corrupted_against_updates(groups),
    )
    parts = _legend(dict(figures.LEDGER_PARTS.values()), "parts")
    drawn = "".join(f"<div>{chart}{parts if chart == charts[2] else ''}</div>" for chart in charts if chart)
    if not drawn:
        return ""
    return f"""<h2>Learning curves</h2>
{_legend(figures.colours(groups))}
<div class="charts">{drawn}</div>
<p class="small">Every point is the mean of the last three evaluations, for every run alike, and a run has
reached the baseline's final accuracy (the dashed line) where the line through these points first crosses it
(the dots). Bands span the seeds. Compute is counted in multiply-accumulates, with a training step as three
forward passes: the training of the learner and of the scoring models, every example scored, and the
pretraining of the reference, with which a curve begins.</p>"""


def _legend(colours: dict[str, str], kind: str = "") -> str:
    """Names beside their colours."""
    items = "".join(
        f'<span style="--colour: {colour}"><i></i>{_escape(name)}</span>' for name, colour in colours.items()
    )
    return f'<div class="legend {kind}">{items}</div>'


def _table(groups: Sequence[Group]) -> str:
    """The table, and what its columns mean."""
    head = "".join(
        f"<th>{_escape(header)}</th>"
        for header in ("policy", "seed", *(column.header for column in table.COLUMNS))
    )
    rows = []
    for line in table.lines(groups):
        cells = "".join(
            f'<td class="none">{cell}</td>' if cell == table.NONE else f"<td>{_escape(cell)}</td>"
            for cell in (line.seed, *line.cells)
        )
        kind = ' class="mean"' if line.is_mean else ""
        rows.append(f"<tr{kind}><td>{_escape(line.label)}</td>{cells}</tr>")
    return f"""<h2>Every run</h2>
<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>
<p class="small">A run is held against the baseline run of its own seed. “Paper's formula” is Appendix A.1: it
leaves out the training of the online model, and takes the reference to be trained for as long as the
baseline; “full” compares what the runs have really spent. Staleness is how many updates old a score was when
its example was trained on.</p>"""


def _images(images: Sequence[tuple[str, Extremes]]) -> str:
    """The images that each policy scored highest and lowest, all but the first folded away."""
    sections: list[str] = []
    for label, extremes in images:
        content = _gallery("Highest scores, most worth training on", extremes.highest)
        content += _gallery("Lowest scores", extremes.lowest)
        opened = "" if sections else " open"
        sections.append(f"<details{opened}><summary>{_escape(label)}</summary>{content}</details>")
    if not sections:
        return ""
    return "<h2>What the scores single out</h2>" + "".join(sections)


def _gallery(title: str, images: Sequence[ScoredImage]) -> str:
    """A grid of images with their labels and scores."""
    wrong = sum(image.true_label is not None for image in images)
    remark = f": {wrong} of {len(images)} have a wrong label (in red, with the true one)" if wrong else ""
    return f'<p class="small">{title}{remark}</p><div class="images">{"".join(map(_picture, images))}</div>'


def _picture(image: ScoredImage) -> str:
    """An image with its label and its score."""
    label, kind = _escape(image.label), ""
    if image.true_label is not None:
        label, kind = f"<b>{label}</b> is {_escape(image.true_label)}", ' class="wrong"'
    score = f"{image.score:.2f}".replace("-", "−")
    return (
        f'<figure{kind}><img src="{image.url}" alt="{_escape(image.label)}" loading="lazy">'
        f"<figcaption>{label}<br>{score}</figcaption></figure>"
    )


def _configuration(groups: Sequence[Group]) -> str:
    """What all runs have in common, and where they are."""
    fields = "".join(
        f"<dt>{_escape(name)}</dt><dd>{_escape(value)}</dd>" for name, value in shared_fields(groups).items()
    )
    paths = "<br>".join(_escape(row.run.path) for group in groups for row in group.rows)
    return f"""<details><summary>Configuration</summary>
<dl>{fields}<dt>run directories</dt><dd>{paths}</dd></dl></details>"""
