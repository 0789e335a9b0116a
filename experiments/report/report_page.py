"""The report's page: one HTML file that loads nothing, and reads well on a phone."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Optional

from classact.experiments.compare.comparison import Comparison
from classact.experiments.compare.differences import Difference
from classact.experiments.compare.groups import Group, shared_fields
from classact.experiments.report import charts, page_template, report_sections, summary, table
from classact.experiments.report.drawing import Chart, colours
from classact.experiments.report.drawn import Drawn, OfMetric
from classact.experiments.report.scored_images import Extremes, ScoredImage

# Characters from which on a label in the table may take several lines.
_LONG_LABEL = 24

_ABOUT_TABLE = """<p class="small">A run is held against the baseline run of its own seed. “Paper's formula”
is Appendix A.1: it leaves out the training of the online model, and takes the reference to be trained for as
long as the baseline; “full” compares what the runs have really spent, with all of the reference's training.
“Reference shared” divides that among the runs that use it, those on this page unless
<code>--reference-runs=N</code> says another number; “not counted” is right for one taken off the shelf.
Staleness is how many updates old a score was when its example was trained on.</p>"""


def render(
    comparisons: Sequence[Comparison],
    drawn: Drawn,
    headline: Sequence[str],
    notes: Sequence[str],
    differences: Mapping[str, Sequence[Difference]],
    images: Sequence[tuple[str, Extremes]],
) -> str:
    """Renders the page.

    Args:
        comparisons: what to show, one for each metric, of the same groups.
        drawn: their charts.
        headline: what makes figures worthless, or unlike what they seem.
        notes: what a reader must know besides.
        differences: from the baseline, by the label of a group.
        images: the extremes of the runs that have scored images, each with its label.
    """
    first = comparisons[0]
    policies = dict.fromkeys(group.policy for group in first.groups)
    of_metrics = list(zip(comparisons, drawn.metrics, strict=True))
    results = _one_metric(*of_metrics[0], notes) if len(of_metrics) == 1 else _several(of_metrics, notes)
    sections = (
        _heading(first.groups),
        _notes(headline, "headline"),
        *results,
        report_sections.selection(first, drawn.selection),
        *(report_sections.classes(compared, own, len(of_metrics) > 1) for compared, own in of_metrics),
        _differences(differences),
        _images(images, first.targets),
        _configuration(first.groups),
    )
    return page_template.PAGE.substitute(
        title=f"classact: {_escape(', '.join(policies))}", body="\n".join(part for part in sections if part)
    )


def _one_metric(compared: Comparison, own: OfMetric, notes: Sequence[str]) -> list[str]:
    """The results by the only metric."""
    curves = report_sections.charts(compared.groups, [*map(_svg, own.curves), _cost(own)])
    return [
        _cards(compared),
        _notes(notes),
        f"<h2>Learning curves</h2>\n{curves}\n{_about_charts(compared.measure)}" if curves else "",
        report_sections.seeds(compared),
        report_sections.speedups(compared, own),
        f"<h2>Every run</h2>\n{_table(compared)}\n{_ABOUT_TABLE}",
    ]


def _several(of_metrics: Sequence[tuple[Comparison, OfMetric]], notes: Sequence[str]) -> list[str]:
    """The results by each metric, then what does not depend on it."""
    sections = [_notes(notes)]
    for compared, own in of_metrics:
        name = charts.long_name(compared.metric)
        sections += [
            f"<h2>{_escape(name[0].upper() + name[1:])} <small>{_escape(compared.metric)}</small></h2>",
            _cards(compared),
            report_sections.charts(compared.groups, [_svg(chart) for chart in (*own.curves, *own.speedups)]),
            report_sections.seeds(compared, "h3", explained=False),
            report_sections.targets(compared),
            _table(compared),
        ]
    first = of_metrics[0][0]
    groups = first.groups
    costs = report_sections.charts(groups, [_cost(own) for _, own in of_metrics])
    measures = " or ".join(dict.fromkeys(compared.measure for compared, _ in of_metrics))
    return [
        *sections,
        f"<h2>Compute</h2>\n{costs}" if costs else "",
        _about_charts(measures),
        report_sections.about_seeds(first),
        f"{report_sections.ABOUT_SPEEDUPS}\n{_ABOUT_TABLE}",
    ]


def _escape(text: object) -> str:
    """Escapes a text of unknown content."""
    return html.escape(str(text))


def _heading(groups: Sequence[Group]) -> str:
    """The title, and what was compared on which data."""
    shared = shared_fields(groups)
    where = [f"{shared['learner.model']}" if "learner.model" in shared else ""]
    where += [f"on {shared['train_data']}" if "train_data" in shared else ""]
    noises = {"label_noise": "label noise", "caption_noise": "of the captions shuffled"}
    shares = {what: shared.get(name) for name, what in noises.items()}
    known = {what: share for what, share in shares.items() if isinstance(share, float) and share}
    noise = " and ".join(f"{100 * share:g} % {what}" for what, share in known.items())
    where += [f"with {noise}" if noise else ""]
    subtitle = " ".join(part for part in where if part)
    return f'<h1>Selection policies compared</h1>\n<p class="sub">{_escape(subtitle)}</p>'


def _cards(compared: Comparison) -> str:
    """The result of each group in a few words."""
    palette = colours(compared.groups)
    cards = []
    for group in compared.groups:
        words = _result(group, compared.measure)
        if words is not None:
            big, small = words
            cards.append(
                f'<div class="card" style="--colour: {report_sections.variable(palette[group.label])}">'
                f'<div class="name">{_escape(group.label)}</div><div class="big">{big}</div>'
                f'<div class="small">{small}</div>{_certainty(group)}{_unlike(group)}</div>'
            )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _certainty(group: Group) -> str:
    """How sure a gain is, where it is shown as one."""
    told = "" if group.is_baseline else summary.certainty(group)
    return f'<div class="small">{_escape(told)}</div>' if told else ""


def _unlike(group: Group) -> str:
    """In what a gain of the group may have another reason than its policy."""
    found = [difference for difference in group.differences if difference.consequence]
    lines = (f"{item.field} {item.value} (baseline {item.baseline})" for item in found)
    return "".join(f'<div class="unlike">{_escape(line)}</div>' for line in lines)


def _result(group: Group, measure: str) -> Optional[tuple[str, str]]:
    """A group's result as a large and a small line."""
    if group.diverged and not group.is_baseline:
        of = f" <small>{len(group.diverged)} of {len(group.rows)} runs</small>" if group.counted else ""
        return f"diverged{of}", "its numbers became NaN or infinite; nothing is saved by it"
    final, target, updates = group.mean("final"), group.mean("target"), group.mean("updates")
    fewer, saved = group.mean("fewer_updates"), group.mean("saving_full")
    if group.is_baseline and final is not None:
        took = f"; it took {updates:,.0f} updates" if updates is not None else ""
        return table.percent(final), f"the baseline's final {measure}{took}"
    if final is None or target is None:
        return None
    ends = f"ends at {table.percent(final)}"
    if fewer is None or updates is None:
        there, tried = group.reached
        of = f" by {tried - there} of {tried} runs" if there else ""
        return f"not reached<small>{of}</small>", f"the baseline's {table.percent(target)}; {ends}"
    reached = f"{updates:,.0f} to the baseline's {table.percent(target)}; {ends}"
    changed = f"{abs(100 * fewer):.0f} % {'fewer' if fewer >= 0 else 'more'} updates"
    compute = "" if saved is None else f"; compute saved, everything counted: {table.signed_percent(saved)}"
    if summary.within_chance(group):
        return "no gain shown", f"{changed}, as chance shows, too: {reached}{compute}"
    if summary.only_ends_higher(group):
        ended = f"{table.percent(final)} <small>instead of {table.percent(target)}</small>"
        return ended, f"{changed}, as chance may show where a baseline has hardly learned: {reached}{compute}"
    big, small = changed.split(" % ")
    lines = [f"{big} % <small>{small}{summary.star(group.paired('fewer_updates'))}</small>"]
    if saved is not None:
        more = "less" if saved >= 0 else "more"
        lines.append(f"{abs(100 * saved):.0f} % <small>{more} compute, everything counted</small>")
    return "<br>".join(lines), reached


def _notes(notes: Sequence[str], kind: str = "small") -> str:
    """What a reader must know before comparing."""
    lines = "".join(f"<p>{_escape(note)}</p>" for note in notes)
    return f'<div class="notes {kind}">{lines}</div>' if lines else ""


def _svg(chart: Chart) -> str:
    """A chart as part of the page."""
    return report_sections.themed(chart)


def _cost(own: OfMetric) -> Optional[str]:
    """What reaching a baseline's final value was spent on, with what its colours mean."""
    parts = report_sections.legend(dict(charts.LEDGER_PARTS.values()), "parts")
    return None if own.cost is None else _svg(own.cost) + parts


def _about_charts(measure: str) -> str:
    """How the numbers in the charts are made."""
    return f"""<p class="small">Every point is the mean of the last three evaluations, for every run alike,
and a run has reached the baseline's final {measure} (the dashed line) where the line through these points
first crosses it (the dots). Bands span the seeds. Time is what the learner's updates and its waits for
data took: not what passed between a stop and the resumption, nor the reference's training. Compute is
counted in multiply-accumulates, with a training step as three forward passes: the training of the learner
and of the scoring models, every example scored, and the pretraining of the reference, with which a curve
begins.</p>"""


def _table(compared: Comparison) -> str:
    """The table."""
    words = table.words(compared)
    head = "".join(
        f"<th>{_escape(header)}</th>"
        for header in ("policy", "seed", *(column.header.format(**words) for column in table.COLUMNS))
    )
    rows = []
    for line in table.lines(compared.groups):
        cells = "".join(
            f'<td class="none">{cell}</td>' if cell == table.NONE else f"<td>{_escape(cell)}</td>"
            for cell in (line.seed, *line.cells)
        )
        kind = ' class="mean"' if line.is_mean else ""
        long = ' class="long"' if len(line.label) > _LONG_LABEL else ""
        rows.append(f"<tr{kind}><td{long}>{_escape(line.label)}</td>{cells}</tr>")
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="table"><table>{body}</table></div>'


def _differences(differences: Mapping[str, Sequence[Difference]]) -> str:
    """In what each group differs from its baseline."""
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{_escape(cell)}</td>" for cell in (label, *dataclasses.astuple(difference)))
        + "</tr>"
        for label, found in differences.items()
        for difference in found
    )
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("policy", "field", "run", "baseline", "so"))
    return f"""<h2>Differences from the baseline</h2>
<p class="small">All that the runs' configurations record, but for what the policies imply and what changes no
result.</p>
<div class="table"><table class="left"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"""


def _images(images: Sequence[tuple[str, Extremes]], targets: str) -> str:
    """The images that each policy scored highest and lowest, all but the first folded away."""
    sections: list[str] = []
    for label, extremes in images:
        content = _gallery("Highest scores, most worth training on", extremes.highest, targets)
        content += _gallery("Lowest scores", extremes.lowest, targets)
        opened = "" if sections else " open"
        sections.append(f"<details{opened}><summary>{_escape(label)}</summary>{content}</details>")
    if not sections:
        return ""
    return "<h2>What the scores single out</h2>" + "".join(sections)


def _gallery(title: str, images: Sequence[ScoredImage], targets: str) -> str:
    """A grid of images with their labels or captions and scores."""
    wrong = sum(image.true_label is not None for image in images)
    have = "a wrong label (in red, with the true one)"
    if targets == "captions":
        have = "another image's caption (in red)"
    remark = f": {wrong} of {len(images)} have {have}" if wrong else ""
    pictures = "".join(_picture(image, targets) for image in images)
    return f'<p class="small">{title}{remark}</p><div class="images">{pictures}</div>'


def _picture(image: ScoredImage, targets: str) -> str:
    """An image with its label or caption and its score."""
    label, kind = _escape(image.label), ""
    if image.true_label is not None:
        # What a caption should be is another caption, as the gallery says above.
        true = f" is {_escape(image.true_label)}" if targets == "labels" else ""
        label, kind = f"<b>{label}</b>{true}", ' class="wrong"'
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
