"""The report's page: one HTML file that loads nothing, and reads well on a phone."""

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import Optional

from classact.experiments import charts, page_template, table
from classact.experiments.comparison import Comparison
from classact.experiments.differences import Difference
from classact.experiments.groups import Group, shared_fields
from classact.experiments.scored_images import Extremes, ScoredImage

# Characters from which on a label in the table may take several lines.
_LONG_LABEL = 24

_ABOUT_TABLE = """<p class="small">A run is held against the baseline run of its own seed. “Paper's formula”
is Appendix A.1: it leaves out the training of the online model, and takes the reference to be trained for as
long as the baseline; “full” compares what the runs have really spent. Staleness is how many updates old a
score was when its example was trained on.</p>"""


def render(
    comparisons: Sequence[Comparison],
    headline: Sequence[str],
    notes: Sequence[str],
    differences: Mapping[str, Sequence[Difference]],
    images: Sequence[tuple[str, Extremes]],
) -> str:
    """Renders the page.

    Args:
        comparisons: what to show, one for each metric, of the same groups.
        headline: what makes figures worthless, or unlike what they seem.
        notes: what a reader must know besides.
        differences: from the baseline, by the label of a group.
        images: the extremes of the runs that have scored images, each with its label.
    """
    first = comparisons[0]
    policies = dict.fromkeys(group.policy for group in first.groups)
    sections = (
        _heading(first.groups),
        _notes(headline, "headline"),
        *(_one_metric(first, notes) if len(comparisons) == 1 else _several_metrics(comparisons, notes)),
        _differences(differences),
        _images(images, first.targets),
        _configuration(first.groups),
    )
    return page_template.PAGE.substitute(
        title=f"classact: {_escape(', '.join(policies))}", body="\n".join(part for part in sections if part)
    )


def _one_metric(compared: Comparison, notes: Sequence[str]) -> list[str]:
    """The results, with all charts side by side."""
    charts = _charts(compared.groups, [*_curves(compared), *_costs([compared])])
    return [
        _cards(compared),
        _notes(notes),
        f"<h2>Learning curves</h2>\n{charts}\n{_about_charts(compared.measure)}" if charts else "",
        f"<h2>Every run</h2>\n{_table(compared)}\n{_ABOUT_TABLE}",
    ]


def _several_metrics(comparisons: Sequence[Comparison], notes: Sequence[str]) -> list[str]:
    """The results by each metric, then what does not depend on it."""
    sections = [_notes(notes)]
    for compared in comparisons:
        name = charts.long_name(compared.metric)
        sections += [
            f"<h2>{_escape(name[0].upper() + name[1:])} <small>{_escape(compared.metric)}</small></h2>",
            _cards(compared),
            _charts(compared.groups, _curves(compared)),
            _table(compared),
        ]
    costs = _charts(comparisons[0].groups, _costs(comparisons))
    measures = " or ".join(dict.fromkeys(compared.measure for compared in comparisons))
    return [
        *sections,
        f"<h2>Compute and training data</h2>\n{costs}" if costs else "",
        f"{_about_charts(measures)}\n{_ABOUT_TABLE}",
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
    colours = charts.colours(compared.groups)
    cards = []
    for group in compared.groups:
        words = _result(group, compared.measure)
        if words is not None:
            big, small = words
            cards.append(
                f'<div class="card" style="--colour: {colours[group.label]}">'
                f'<div class="name">{_escape(group.label)}</div><div class="big">{big}</div>'
                f'<div class="small">{small}</div>{_unlike(group)}</div>'
            )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


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
        return "not reached", f"the baseline's {table.percent(target)}; {ends}"
    direction = "fewer" if fewer >= 0 else "more"
    compute = "" if saved is None else f"; compute saved, all included: {table.signed_percent(saved)}"
    return (
        f"{abs(100 * fewer):.0f} % <small>{direction} updates</small>",
        f"{updates:,.0f} to the baseline's {table.percent(target)}; {ends}{compute}",
    )


def _notes(notes: Sequence[str], kind: str = "small") -> str:
    """What a reader must know before comparing."""
    lines = "".join(f"<p>{_escape(note)}</p>" for note in notes)
    return f'<div class="notes {kind}">{lines}</div>' if lines else ""


def _curves(compared: Comparison) -> list[Optional[str]]:
    """The metric against what it took, where there is data."""
    return [charts.metric_against_updates(compared), charts.metric_against_macs(compared)]


def _costs(comparisons: Sequence[Comparison]) -> list[Optional[str]]:
    """What reaching each baseline's final value was spent on, and the noise in the training data."""
    parts = _legend(dict(charts.LEDGER_PARTS.values()), "parts")
    several = len(comparisons) > 1
    bars = [
        charts.compute_bars(compared, charts.short_name(compared.metric) if several else "")
        for compared in comparisons
    ]
    return [*(chart and chart + parts for chart in bars), charts.corrupted_against_updates(comparisons[0])]


def _charts(groups: Sequence[Group], each: Sequence[Optional[str]]) -> str:
    """The charts that there is data for, below what their colours mean."""
    drawn = "".join(f"<div>{chart}</div>" for chart in each if chart)
    return f'{_legend(charts.colours(groups))}\n<div class="charts">{drawn}</div>' if drawn else ""


def _about_charts(measure: str) -> str:
    """How the numbers in the charts are made."""
    return f"""<p class="small">Every point is the mean of the last three evaluations, for every run alike,
and a run has reached the baseline's final {measure} (the dashed line) where the line through these points
first crosses it (the dots). Bands span the seeds. Compute is counted in multiply-accumulates, with a training
step as three forward passes: the training of the learner and of the scoring models, every example scored, and
the pretraining of the reference, with which a curve begins.</p>"""


def _legend(colours: dict[str, str], kind: str = "") -> str:
    """Names beside their colours."""
    items = "".join(
        f'<span style="--colour: {colour}"><i></i>{_escape(name)}</span>' for name, colour in colours.items()
    )
    return f'<div class="legend {kind}">{items}</div>'


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
