"""`classact inspect`: what a data source holds, before a run is made of it."""

import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from absl import flags

from classact.launch.commands import arguments

if TYPE_CHECKING:
    from classact.data.inspected import Inspected

USAGE = """\
  inspect   SPEC [--split=train|eval] [--read=N] [--json] [--page=FILE.html]
            says what a data source holds: examples, classes, captions, what is left out and why;
            writes a page with pictures
"""
MORE_HELP = """SPEC is what --config.train_data takes: docs/data.md has a table of them
"""
_SHOWN = 10
_PICTURES = 60


def main(argv: Sequence[str]) -> int:
    """Prints what a source holds; see `cli.main`."""
    from classact.data import inspected, specs
    from classact.data.source import DataError

    split = flags.DEFINE_enum("split", "train", specs.SPLITS, "Which part of a source that has two.")
    read = flags.DEFINE_integer(
        "read", 1000, "How many images to decode, to see whether they are damaged; 0: all.", lower_bound=0
    )
    as_json = flags.DEFINE_bool("json", False, "Print JSON in place of text.")
    page = flags.DEFINE_string("page", None, "Write a page with pictures to this file.")
    rest = arguments.parse(argv)
    if len(rest) != 1:
        raise arguments.UsageError(f"inspect: expected one SPEC, got {' '.join(rest) or 'nothing'}")
    try:
        source = specs.open_source(rest[0], split.value)
        found, pictures = inspected.inspect(
            source, split.value, read.value or source.num_examples, _PICTURES if page.value else 0
        )
    except DataError as error:
        raise arguments.UsageError(str(error)) from None
    if as_json.value:
        print(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(found)))
    if page.value:
        from classact.experiments.report import inspected_page

        _write(pathlib.Path(page.value), inspected_page.render(found, pictures))
        print(f"page: {page.value}", file=sys.stderr if as_json.value else sys.stdout)
    return 0


def lines(found: "Inspected") -> Iterator[str]:
    """An account as a person reads it."""
    height, width, channels = found.image_shape
    what = f"{found.examples:,} images"
    if found.captions is not None:
        what = f"{found.examples:,} pairs of {found.images:,} images"
    other = "the other split holds others" if found.has_splits else "no split of its own to measure on"
    yield f"{found.name} ({found.split}): {what}, {height}×{width}×{channels}; {other}"
    if found.sizes:
        yield f"sizes of {sum(found.sizes.values()):,} files that were opened: {_counted(found.sizes)}"
    if found.classes is not None:
        of = "" if found.counted == found.examples else f", by {found.counted:,} examples that were read"
        none = sum(not count for count in found.classes.values())
        yield f"{len(found.classes):,} classes{of}: {_counted(found.classes)}" + (
            f"; {none:,} have none" if none else ""
        )
    if found.captions is not None:
        told = found.captions
        of = "captions" if told.read == found.examples else f"of {told.read:,} captions"
        yield f"{of}: {told.words} words; {told.characters} characters; {told.different:,} different ones"
    of = f" of {found.read_shards:,} of {found.shards:,} shards" if found.shards else ""
    yield f"read: {found.read:,} examples{of}; damaged: {_counted(found.damaged) or 'none'}"
    for reason, count, names in found.left_out:
        yield f"left out: {count:,} {reason}: {', '.join(names)}{', …' if count > len(names) else ''}"
    yield from found.remarks


def _counted(counts: Mapping[str, int]) -> str:
    listed = [f"{name} {count:,}" for name, count in list(counts.items())[:_SHOWN]]
    return ", ".join(listed) + (f", … ({len(counts):,} in all)" if len(counts) > _SHOWN else "")


def _write(path: pathlib.Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise arguments.UsageError(
            f"--page={path}: cannot be written ({error.strerror}): name another"
        ) from None
