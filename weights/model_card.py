"""The model card: what a model has learned from, how, with which results, and what that cost."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from classact.weights.architecture import Checkpoint

_BY_US = "Trained by classact on the part of its data that it could learn most from."
_BY_OTHERS = "Converted by classact; where it was published is more to read about it."
_LICENSE = "Weights carry the terms of the data that they were trained on, which this card names."


def card(
    title: str,
    checkpoint: Checkpoint,
    kind: str,
    load: str,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
) -> str:
    """Writes a card.

    Args:
        title: what the model is called.
        checkpoint: the model.
        kind: the format that it is written in.
        load: lines of code that load it.
        config: the run's `config.json`; empty: it is no run's model.
        result: the run's `result.json`; empty: it has none yet.

    Returns:
        Markdown, with the lines of YAML that a hub reads in front.
    """
    task = "zero-shot-image-classification" if checkpoint.architecture.text else "image-classification"
    libraries = {"hf": "transformers", "open_clip": "open_clip", "timm": "timm"}
    lines = [
        "---",
        f"library_name: {libraries.get(kind, 'classact')}",
        f"pipeline_tag: {task}",
        "tags: [classact, data-selection]",
        "---",
        f"# {title}",
        "",
        _BY_US if config else _BY_OTHERS,
        "",
        *_model(checkpoint),
        "",
        *(_of_run(config, result) if config else ()),
        "## Loading",
        "",
        "```python",
        load,
        "```",
        "",
        _LICENSE,
    ]
    return "\n".join(lines) + "\n"


def _of_run(config: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    for heading, lines in (
        ("Training", _training(config, result)),
        ("Results", _results(result)),
        ("What it cost", _cost(result)),
    ):
        yield from (f"## {heading}", "", *lines, "")


def _model(checkpoint: Checkpoint) -> Iterator[str]:
    architecture, own = checkpoint.architecture, checkpoint.input
    image, size = architecture.image, architecture.image.size
    yield "## Model"
    yield ""
    yield (
        f"- images: a vision transformer of {size.depth} blocks, {size.width} channels, {size.heads} heads, "
        f"patches of {image.patch_size} pixels"
    )
    if architecture.text:
        text = architecture.text.size
        yield f"- texts: a transformer of {text.depth} blocks, {text.width} channels, {text.heads} heads"
        yield f"- common space: {image.outputs} channels"
    elif image.variant.head:
        yield f"- outputs: {image.outputs} classes" + (
            f": {', '.join(checkpoint.class_names[:20])}{', …' if len(checkpoint.class_names) > 20 else ''}"
            if checkpoint.class_names
            else ""
        )
    height, width = own.image_size
    how = "cropped from the centre" if own.crop else "stretched"
    yield f"- input: {height}×{width} pixels, {own.channels} channels, {own.interpolation}, {how}"
    yield f"- mean {_numbers(own.mean)}, standard deviation {_numbers(own.std)}, of pixels from 0 to 1"
    if own.tokenizer:
        yield (
            f"- tokenizer: {own.tokenizer.kind} {own.tokenizer.name}".rstrip()
            + f", {own.context_length} tokens, filled up with {own.tokenizer.end_id}"
        )


def _training(config: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    sets = config.get("data_sets")
    sets = sets if isinstance(sets, Mapping) else {}
    several = len(sets) > 1
    for name, data in sets.items():
        if isinstance(data, Mapping):
            yield from _data_set(f"{name}: " if several else "", data)
    steps, wanted = result.get("steps"), config.get("steps")
    if steps is None:
        yield f"- updates: {wanted} planned; the run has not ended"
    else:
        yield f"- updates: {steps:,} of {wanted}, {result.get('status')}"
    for name in ("batch_size", "super_batch_size", "learning_rate", "weight_decay", "seed", "data_seed"):
        if name in config:
            yield f"- {name}: {config[name]}"
    if config.get("git_commit"):
        yield f"- classact at commit {config['git_commit']}"
    versions = config.get("versions")
    if isinstance(versions, Mapping):
        yield f"- versions: {', '.join(f'{name} {value}' for name, value in versions.items())}"


def _data_set(name: str, data: Mapping[str, Any]) -> Iterator[str]:
    noise = data.get("label_noise") or data.get("caption_noise")
    said = (
        f"; {noise:.0%} of its labels or captions were redrawn" if isinstance(noise, float) and noise else ""
    )
    yield f"- {name}data: `{data.get('train_data')}`{said}"
    yield f"- {name}selection policy: {data.get('policy')}"
    reference = data.get("reference")
    checkpoint = reference.get("checkpoint") if isinstance(reference, Mapping) else None
    if checkpoint:
        yield f"- {name}reference: `{checkpoint}`"


def _results(result: Mapping[str, Any]) -> Iterator[str]:
    final = {name: value for name, value in (result.get("final") or {}).items() if name.startswith("eval/")}
    if not final:
        yield "None was measured."
        return
    yield "| metric | value |"
    yield "|---|---|"
    for name, value in sorted(final.items()):
        yield f"| {name} | {value:.4g} |"


def _cost(result: Mapping[str, Any]) -> Iterator[str]:
    ledger = {name: value for name, value in (result.get("ledger") or {}).items() if _is_number(value)}
    if not ledger:
        yield "Not known: the run has no `result.json` yet."
        return
    yield "Multiply-accumulates by what they were spent on:"
    yield ""
    yield "| part | MACs |"
    yield "|---|---|"
    for name, value in ledger.items():
        yield f"| {name} | {value:.3g} |"
    yield ""
    yield (
        f"{result.get('wall_seconds', math.nan):,.0f} s, {result.get('cpu_seconds', math.nan):,.0f} s of "
        f"processors, {result.get('gpu_seconds', 0.0):,.0f} s of GPUs."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value != 0


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
