"""The page of `classact inspect`: one HTML file that loads nothing, with pictures of a data set."""

import html
from collections.abc import Mapping, Sequence

from classact.data.inspected import Inspected, Picture
from classact.experiments.report import page_template
from classact.experiments.report.scored_images import data_url

_LONGEST = 120
_CLASSES = 60


def render(found: Inspected, pictures: Sequence[Picture]) -> str:
    """Renders the page.

    Args:
        found: what the source holds.
        pictures: some of its examples.
    """
    sections = (
        f"<h1>{_escape(found.name)}</h1>",
        f'<p class="sub">{_sub(found)}</p>',
        _notes(found),
        _facts(found),
        _bars("Classes", found.classes or {}, _CLASSES),
        _bars("Sizes of files that were opened", found.sizes, _CLASSES) if len(found.sizes) > 1 else "",
        _gallery(pictures),
    )
    body = "\n".join(section for section in sections if section)
    return page_template.PAGE.substitute(title=f"classact: {_escape(found.name)}", body=body)


def _sub(found: Inspected) -> str:
    height, width, channels = found.image_shape
    what = (
        f"{found.examples:,} images"
        if found.captions is None
        else f"{found.examples:,} pairs of {found.images:,} images"
    )
    return f"{what}, {height}×{width}×{channels}; split: {found.split}"


def _notes(found: Inspected) -> str:
    """What is left out, and what is damaged."""
    told = [
        f"left out: {count:,} {reason}: {', '.join(names)}{', …' if count > len(names) else ''}"
        for reason, count, names in found.left_out
    ]
    told += [f"damaged: {count:,} {kind}" for kind, count in found.damaged.items()]
    told += found.remarks
    return f'<div class="notes">{"".join(f"<p>{_escape(line)}</p>" for line in told)}</div>' if told else ""


def _facts(found: Inspected) -> str:
    most = f"{100 * found.accepted_damage:g} %"
    facts = {
        "examples that were read": f"{found.read:,}"
        + (f" of {found.read_shards:,} of {found.shards:,} shards" if found.shards else ""),
        "damaged ones": f"{sum(found.damaged.values()):,}; a run ends above {most}",
        "split of its own to measure on": "yes" if found.has_splits else "no: a run holds some out",
        "digest": found.digest or "not known",
    }
    if len(found.sizes) == 1:
        facts["size of the files that were opened"] = next(iter(found.sizes))
    if found.captions is not None:
        told = found.captions
        facts["words a caption"] = str(told.words)
        facts["characters a caption"] = str(told.characters)
        facts["different captions"] = f"{told.different:,} of {told.read:,} that were read"
    if found.classes is not None:
        facts["classes"] = f"{len(found.classes):,}, counted over {found.counted:,} examples"
    rows = "".join(f"<dt>{_escape(name)}</dt><dd>{_escape(value)}</dd>" for name, value in facts.items())
    return f"<h2>What it holds</h2><dl>{rows}</dl>"


def _bars(title: str, counts: Mapping[str, int], most: int) -> str:
    """A table of counts, each with a bar."""
    if not counts:
        return ""
    top = max(1, *counts.values())
    rows = "".join(
        f"<tr><td>{_escape(name)}</td><td>{count:,}</td>"
        f'<td><svg width="{200 * count / top:.0f}" height="10"><rect width="100%" height="10" '
        'fill="var(--c0)"/></svg></td></tr>'
        for name, count in list(counts.items())[:most]
    )
    more = f" <small>the {most} most frequent of {len(counts):,}</small>" if len(counts) > most else ""
    return f'<h2>{title}{more}</h2><div class="table"><table class="left">{rows}</table></div>'


def _gallery(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f'<figure><img src="{data_url(picture.image)}" alt="{_escape(picture.text)}" loading="lazy">'
        f"<figcaption>{_escape(_short(picture.text))}</figcaption></figure>"
        for picture in pictures
    )
    return f'<h2>Examples <small>evenly over all</small></h2><div class="images">{figures}</div>'


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _escape(text: str) -> str:
    return html.escape(text)
