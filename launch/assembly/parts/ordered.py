"""A recorded order as a run goes by it: found, compared with the run's data, and replayed."""

import json
import pathlib
from typing import Any

from classact.data import recorded_order
from classact.data.fingerprint import difference
from classact.data.source import DataError, Source
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig, require
from classact.launch.assembly.parts import recorded, sources
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.assembly.parts.shapes import DataShape


def check(
    config: ExperimentConfig, name: str, data_set: DataSetConfig, data: DataShape, said: FirstLines
) -> None:
    """Checks that a recorded order is long enough, of this batch size, and of these examples.

    Args:
        config: of the run.
        name: of the data set.
        data_set: it; nothing is done if its policy goes by no order.
        data: its shape.
        said: is told if it is not known which data the order is of.

    Raises:
        ConfigError: if it is not.
    """
    if data_set.has_replay:
        return
    field = f"curriculum.record={data_set.curriculum.record!r}"
    try:
        order = open_order(name, data_set)
    except recorded_order.RecordError as error:
        raise ConfigError(f"{field}: {error}") from None
    theirs = _run_of(order.path)
    _check_sizes(field, order, theirs, config, data_set)
    started = recorded.group(recorded.group(theirs.get("started")).get("data"))
    fingerprint = recorded.group(recorded.group(started.get(order.data_set)).get("fingerprint"))
    changed = difference(fingerprint, data.described()["fingerprint"])
    if changed:
        raise ConfigError(f"{field}: {data_set.train_data} is not what that run trained on: {changed}")
    if not fingerprint:
        said.warn(f"{field}: no config.json beside it says of which data it is: its ids are taken for ours")
    places = recorded_order.Places(open_source(config, data_set, data))
    for update, ids in zip(range(config.steps), order, strict=False):
        missing = ids[places(ids) < 0]
        if len(missing):
            where = f"{data_set.train_data}, or eval_share or train_split leave it out"
            raise ConfigError(
                f"{field}: update {update + 1} has the example with id {missing[0]}, which this run "
                f"does not train on: it is not in {where}"
            )


def _check_sizes(
    field: str,
    order: recorded_order.RecordedOrder,
    theirs: Any,
    config: ExperimentConfig,
    data_set: DataSetConfig,
) -> None:
    hosts = recorded.group(theirs.get("mesh")).get("hosts", 1)
    if hosts > 1:
        raise ConfigError(
            f"{field}: it was recorded on {hosts} hosts, and has the first one's examples alone: record an "
            "order with mesh.hosts=1"
        )
    accepted = f"{order.batch_size} with {field}: as many examples as each of its updates has"
    require(data_set.batch_size == order.batch_size, "batch_size", data_set.batch_size, accepted)
    accepted = f"at most {order.updates}: {field} has no more updates of {order.data_set}"
    require(config.steps <= order.updates, "steps", config.steps, accepted)


def open_order(name: str, data_set: DataSetConfig) -> recorded_order.RecordedOrder:
    """Opens the order that a data set goes by; reads its file once.

    Raises:
        recorded_order.RecordError: if it cannot be read.
    """
    path = pathlib.Path(data_set.curriculum.record)
    wanted = data_set.curriculum.data_set
    if wanted:
        return recorded_order.RecordedOrder(path, wanted)
    try:
        return recorded_order.RecordedOrder(path)
    except recorded_order.RecordError:
        # It may have several, and one of this name.
        return recorded_order.RecordedOrder(path, name)


def open_stream(
    config: ExperimentConfig,
    name: str,
    data_set: DataSetConfig,
    data: DataShape,
    first: int = 0,
    rows: slice | None = None,
) -> recorded_order.RecordedStream:
    """Opens the data of a data set in its recorded order.

    Args:
        config: of the run.
        name: of the data set.
        data_set: it.
        data: its shape.
        first: the update to begin with, from 0.
        rows: which examples of each update; None: all.

    Raises:
        source.DataError: if data or record cannot be opened.
    """
    source = open_source(config, data_set, data)
    try:
        order = open_order(name, data_set)
    except recorded_order.RecordError as error:
        raise DataError(str(error)) from None
    return recorded_order.RecordedStream(source, order, first, rows)


def open_source(config: ExperimentConfig, data_set: DataSetConfig, data: DataShape) -> Source:
    """Opens the data as the run knows them."""
    return sources.open_train_source(config, data_set, data.held_out, known=data.classes)


def host_rows(batch_size: int, hosts: int, host: int) -> slice | None:
    """Which examples of each update one of several hosts trains on; None: all."""
    share = batch_size // hosts
    return None if hosts == 1 else slice(host * share, (host + 1) * share)


def _run_of(record: pathlib.Path) -> dict[str, Any]:
    """The `config.json` beside a record; empty if there is none."""
    try:
        found = json.loads((record.parent / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
