"""Whether score files are of the data that a run trains on, and what they have cost."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from classact.data import classes, score_files
from classact.data.fingerprint import difference
from classact.experiments import curves
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import kept, recorded, sources
from classact.launch.assembly.parts.shapes import DataShape


def check(config: ExperimentConfig, data_set: DataSetConfig, data: DataShape) -> None:
    """Checks that each folder of score files that a data set names has its examples, with their labels.

    What a folder of another tool does not say is not compared.

    Raises:
        ConfigError: if it is missing, damaged, or of other data; says what differs.
    """
    for name, folder in kept.folders(data_set).items():
        field = f"{name}={str(folder)!r}"
        try:
            found = score_files.read(folder)
        except score_files.ScoreFileError as error:
            raise ConfigError(f"{field}: {error}") from None
        said = found.description
        if name == "reference.scores":
            _check_is_reference(field, said, config, data_set)
        task = said.get("task", config.task)
        if task != config.task:
            raise ConfigError(f"{field}: it was scored with task={task!r}, this run has {config.task!r}")
        _check_data(field, recorded.group(said.get("data")), config, data_set, data)
        _check_covers(field, found, config, data_set, data)


def _check_is_reference(
    field: str, said: Mapping[str, Any], config: ExperimentConfig, data_set: DataSetConfig
) -> None:
    if config.task == "contrastive" and config.contrastive.act_loss != "dot":
        raise ConfigError(
            f"contrastive.act_loss={config.contrastive.act_loss!r}: must be 'dot' with reference.scores: it "
            "compares a pair with those that are scored together, and score files know each pair alone"
        )
    run = recorded.group(said.get("model")).get("run")
    checkpoint = data_set.reference.checkpoint
    if checkpoint and run is not None and os.path.realpath(checkpoint) != run:
        raise ConfigError(
            f"{field}: its losses are those of {run}, and reference.checkpoint={checkpoint!r} is another: "
            "leave one of them empty"
        )


def _check_data(
    field: str,
    said: Mapping[str, Any],
    config: ExperimentConfig,
    data_set: DataSetConfig,
    data: DataShape,
) -> None:
    described = recorded.group(said.get("described"))
    changed = difference(recorded.group(described.get("fingerprint")), data.described()["fingerprint"])
    if changed:
        raise ConfigError(f"{field}: {data_set.train_data} is not what was scored: {changed}")
    noise = "label_noise" if config.task == "classification" else "caption_noise"
    for name in (noise, "data_seed"):
        ours = getattr(data_set if name == noise else config, name)
        theirs = said.get(name, ours)
        # Without noise the seed has no part in it.
        if theirs != ours and (name == noise or getattr(data_set, noise)):
            raise ConfigError(
                f"{field}: it was scored with {name}={theirs!r}, this run has {ours!r}: its examples have "
                f"other {'labels' if noise == 'label_noise' else 'captions'} (classact score --{name}={ours})"
            )
    known = classes.Classes.from_json(described)
    if config.task == "classification" and known is not None:
        # What labels are redrawn to goes by their numbers.
        same = (
            known == data.classes
            if data_set.label_noise and known.names
            else classes.same(known, data.classes)
        )
        if not same:
            more = classes.difference(known, "there", data.classes, "in this run")
            raise ConfigError(f"{field}: it was scored with other classes: {more}")


def _check_covers(
    field: str,
    found: score_files.ScoreFile,
    config: ExperimentConfig,
    data_set: DataSetConfig,
    data: DataShape,
) -> None:
    """Of what is trained on all but what scoring found damaged must be there."""
    whole = dataclasses.replace(data_set, policy="uniform")
    opened = sources.open_train_source(config, whole, data.held_out, known=data.classes)
    ids = opened.ids(np.arange(opened.num_examples))
    missing = ids[np.isnan(found.losses(ids))]
    if len(missing) > int(found.description.get("left_out", 0)):
        raise ConfigError(
            f"{field}: {len(missing):,} of the {len(ids):,} examples of {data_set.train_data} have no loss "
            f"there, such as the one with id {missing[0]}"
        )


def identities(data_set: DataSetConfig) -> dict[str, str]:
    """Which scoring pass each folder that a data set names is of, by field; those that say so."""
    named = kept.folders(data_set).items()
    found = {field: score_files.describe(folder).get("identity") for field, folder in named}
    return {field: identity for field, identity in found.items() if identity is not None}


def check_unchanged(config: ExperimentConfig, started: Any) -> None:
    """Checks that a run that goes on has the score files that it began with.

    Args:
        config: of the run.
        started: of its `config.json`; None if it begins.

    Raises:
        ConfigError: if a folder has other ones.
    """
    before = recorded.group(recorded.group(started).get("scores"))
    for name, data_set in config.data_sets.items():
        for field, identity in identities(data_set).items():
            if recorded.group(before.get(name)).get(field, identity) != identity:
                folder = str(kept.folders(data_set)[field])
                raise ConfigError(
                    f"{field}={folder!r}: it holds other scores than when the run began: restore them, or "
                    "name another workdir"
                )


def reference_config(data_set: DataSetConfig) -> Mapping[str, Any]:
    """The `config.json` of the run whose losses `reference.scores` has; empty if it does not say.

    Raises:
        score_files.ScoreFileError: if it cannot be read.
    """
    said = score_files.describe(pathlib.Path(data_set.reference.scores))
    return recorded.group(recorded.group(said.get("model")).get("config"))


def cost(data_set: DataSetConfig) -> dict[str, float]:
    """What was computed before a run for a data set's selection, in MACs, by what it was.

    What several data sets use has the same key: it was computed once.
    """
    spent: dict[str, float] = {}
    for folder in kept.folders(data_set).values():
        costs = recorded.group(score_files.describe(folder).get("cost"))
        spent |= {name: float(macs) for name, macs in recorded.group(costs.get("training")).items()}
        spent[f"scores {os.path.realpath(folder)}"] = float(costs.get("scoring_macs", 0.0))
    checkpoint = "" if data_set.reference.scores else data_set.reference.checkpoint
    for run in (checkpoint, _record_run(data_set.curriculum.record)):
        spent |= run_cost(pathlib.Path(run)) if run else {}
    return spent


def run_cost(run: pathlib.Path) -> dict[str, float]:
    """What a run has cost, in MACs: itself, and by what it was what had been computed before it.

    Of one that has no result yet nothing is known.
    """
    if not (run / "result.json").exists():
        return {}
    found = curves.load_run(run)
    before = recorded.group(found.result.get("computed_before"))
    itself = found.ledger.get("total_macs", 0.0) - sum(before.values())
    return {f"run {os.path.realpath(run)}": float(itself), **before}


def _record_run(record: str) -> str:
    """The run directory of a recorded order; empty if it is a file by itself."""
    path = pathlib.Path(record)
    run = path if path.is_dir() else path.parent
    return str(run) if record and (run / "config.json").is_file() else ""
