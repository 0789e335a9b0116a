"""Data and sizes that no useful run can come of are refused; others that a user may not mean, warned of."""

import numpy as np
import psutil

from classact.data.carried import kinds
from classact.data.shown import shown
from classact.data.source import Source
from classact.experiments.config import ConfigError, DataSetConfig
from classact.launch.assembly.parts.first_lines import FirstLines

# How often an update may read all the data; more helps nobody, and ends out of memory.
_MOST_PASSES = 1000
_NAMED = 5
# Above this part of the bytes of pixels, files are not worth their second decoding.
_SAVES = 0.8
_GIB = 1 << 30


def check_labels(train: Source, said: FirstLines) -> None:
    """Warns of classes without an example, as far as labels are known without reading images.

    Raises:
        ConfigError: if there is one class only: no answer can be wrong.
    """
    if not train.num_classes:
        return
    found = np.array([train.num_classes == 1])
    if train.label_of is not None:
        found = np.bincount(train.label_of, minlength=train.num_classes) > 0
    if train.num_classes == 1 or (train.label_of is not None and found.sum() == 1):
        only = _class(train, int(np.argmax(found)))
        raise ConfigError(
            f"train_data={train.name!r}: every example is of one class, {only}: there is nothing to learn; "
            "expected two classes at least"
        )
    if train.label_of is None:
        return
    missing = np.flatnonzero(~found)
    if len(missing) == 1 and missing[0] == 0:
        first = f"0, {_class(train, 0)}," if train.class_names else "0"
        said.warn(
            f"{train.name}: labels begin at 1, so class {first} never occurs: the model has "
            f"{train.num_classes} classes, one too many (labels count from 0)"
        )
    elif len(missing):
        named = ", ".join(_class(train, int(label)) for label in missing[:_NAMED])
        more = ", …" if len(missing) > _NAMED else ""
        verb, which = ("has", "it") if len(missing) == 1 else ("have", "them")
        said.warn(
            f"{train.name}: {len(missing):,} of {train.num_classes:,} classes {verb} no example to train on, "
            f"and the model will not learn {which}: {named}{more}"
        )


def check_sizes(
    name: str,
    own: DataSetConfig,
    train: Source,
    example_bytes: int,
    said: FirstLines,
    *,
    sent_bytes: float,
    nodes: bool,
    memory: int | None = None,
    call_bytes: int | None = None,
) -> None:
    """Warns of a super-batch larger than the data set, and refuses one that is many times as large.

    Args:
        name: of the data set.
        own: the data set.
        train: what is trained on.
        example_bytes: of an example with its pixels.
        said: takes the warning.
        sent_bytes: of an example in the replay.
        nodes: whether there is a replay; not with `--launch=synchronous`.
        memory: of this machine in bytes, if all nodes run here.
        call_bytes: what a call between two nodes carries; None: any number.

    Raises:
        ConfigError: if the super-batches and the replay alone need more memory than that,
            each update would read all data more than `_MOST_PASSES` times, or a run loop could
            not send its request to an inference server.
    """
    examples = own.super_batch_size
    request = own.inference.request_size
    if call_bytes and own.inference.run_loops_as_nodes and request * example_bytes > call_bytes:
        raise ConfigError(
            f"inference.request_size={request} of {name}: {request:,} examples of {example_bytes:,} bytes do "
            f"not fit a call between nodes, {call_bytes / _GIB:.0f} GiB: must be at most "
            f"{call_bytes // example_bytes}, or inference.run_loops_as_nodes=False, so that inference "
            "servers have their run loops with them"
        )
    if memory is not None:
        _check_memory(name, own, train.num_classes, example_bytes, sent_bytes, nodes, memory)
    passes = examples / train.num_examples
    if passes > _MOST_PASSES:
        field, value = _asked(own)
        raise ConfigError(
            f"{field}={value!r} of {name}: asks for {examples:,} examples for each update, "
            f"{passes:,.0f} times all of {train.name}: must be at most {_MOST_PASSES} times"
        )
    if examples > train.num_examples:
        kind = "super-batch, batch_size / (1 - filter_ratio)," if own.filter_ratio else "batch"
        said.warn(
            f"{train.name}: a {kind} of {examples:,} is larger than its {train.num_examples:,} examples: "
            f"each comes about {passes:,.1f} times in it"
        )


def say_what_is_carried(carried: str, sent_bytes: float, example_bytes: int, said: FirstLines) -> None:
    """Says how large an example is in the replay if that has no pixels, and warns if it saves little.

    Args:
        carried: of `kinds.IMAGES`.
        sent_bytes: of an example in the replay.
        example_bytes: of an example with its pixels.
        said: takes the lines.
    """
    if carried == kinds.PIXELS:
        return
    said.say(
        f"  the replay carries {carried}: {sent_bytes:,.0f} bytes an example on average, in place of the "
        f"{example_bytes:,} with its pixels"
    )
    if carried == kinds.ENCODED and sent_bytes > _SAVES * example_bytes:
        said.warn(
            "replay.images=encoded: files are hardly smaller than the pixels of the run's size, and those "
            "that are not go as pixels: pixels cost less time, ids carry less"
        )


def machine_memory() -> int:
    """This machine's memory in bytes."""
    return int(psutil.virtual_memory().total)


def _check_memory(
    name: str,
    own: DataSetConfig,
    num_classes: int,
    example_bytes: int,
    sent_bytes: float,
    nodes: bool,
    memory: int,
) -> None:
    """Adds up what is certain: examples, and scores; neither models nor their activations."""
    readers = own.inference.servers * own.inference.run_loops if nodes else 1
    read = own.inference.request_size if nodes else own.super_batch_size
    scored = own.inference.batch_size if nodes else own.super_batch_size
    # A run loop has the request in its hands, its copy as records for the replay, and the next request.
    copies = 3 if nodes else 1
    sizes = {
        f"{readers} × {read:,} examples that are read": readers * read * example_bytes * copies,
        f"logits of {scored:,} examples": 4 * scored * num_classes * own.has_servers,
    }
    if nodes:
        held = own.replay.capacity + own.reference.super_batch
        sizes[f"{held:,} examples in the replay"] = round(held * sent_bytes)
    if sum(sizes.values()) <= memory:
        return
    chosen = nodes and own.replay.capacity > 8 * own.super_batch_size
    field, value = ("replay.capacity", own.replay.capacity) if chosen else _asked(own)
    listed = ", ".join(f"{what} {size / _GIB:,.1f} GiB" for what, size in sizes.items() if size)
    raise ConfigError(
        f"{field}={value!r} of {name}: needs more memory than the {memory / _GIB:,.1f} GiB of this machine: "
        f"{listed} (an example takes {example_bytes:,} bytes)"
    )


def _asked(own: DataSetConfig) -> tuple[str, float]:
    filtered = own.super_batch_size > 4 * own.batch_size
    return ("filter_ratio", own.filter_ratio) if filtered else ("batch_size", own.batch_size)


def _class(source: Source, label: int) -> str:
    return f"'{shown(source.class_names[label])}'" if source.class_names else str(label)
