"""A work directory that holds a run already: whether and from where it can go on."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from classact.experiments import initial_models
from classact.experiments.config import ConfigError, ExperimentConfig
from classact.experiments.model_config import MODEL_FIELDS
from classact.experiments.run_config import INIT
from classact.launch.assembly.parts import recorded
from classact.launch.engines import folders as engine_folders
from classact.launch.engines.outcome import LaunchError
from classact.nodes import checkpoints
from classact.replay import folders

# What may be another when a run goes on: where and how fast it runs, not what it computes.
_FREE = {
    "mesh", "cluster", "resources", "threads", "log_every", "checkpoint_every", "record_examples",
    "no_data_seconds", "restarts_per_hour", "hung_seconds", "stop_notice_seconds",
}  # fmt: skip
_FREE_OF_DATA_SET = {"inference", "pretraining_macs"}
_FREE_OF_SERVING = {("serve", "listen"), ("serve", "ahead"), ("serve", "kept")}
# What runs did before there was a field, by its group and name.
_BEFORE: dict[tuple[str, ...], object] = {
    ("selection", "online_weight"): 1.0,
    ("selection", "online_weight_end"): 1.0,
    ("selection", "learning_rate_factor"): 1.0,
    ("selection", "chunks"): 16,
    ("reference", "scores"): "",
    ("top_share", "share"): 0.5,
    ("top_share", "by"): "hard",
    ("top_share", "scores"): "",
    ("top_share", "reference_scores"): "",
    ("curriculum", "record"): "",
    ("curriculum", "data_set"): "",
    ("augment",): "none",
    ("replay", "images"): "pixels",
    ("replay", "read_ahead"): 1,
    **{(role, "image_size"): 0 for role in ("learner", "scorer", "reference")},
    **{(role, "patch_size"): 0 for role in ("learner", "scorer", "reference")},
    **{(role, "interpolation"): "" for role in ("learner", "scorer", "reference")},
    ("contrastive", "negatives"): "part",
    ("contrastive", "similarity_precision"): "default",
    ("learner", "init"): "",
    ("learner", "freeze"): "",
    ("learner", "layer_decay"): 1.0,
    ("optimizer", "name"): "adamw",
    ("optimizer", "schedule"): "cosine",
    ("optimizer", "cooldown_steps"): 0,
    ("optimizer", "beta1"): 0.9,
    ("optimizer", "beta2"): 0.999,
    ("optimizer", "epsilon"): 1e-8,
    ("optimizer", "decayed"): "matrices",
    ("optimizer", "decay_times_rate"): True,
    ("scorer", "init"): "",
    ("reference", "model"): "",
    ("reference", "text_model"): "",
    ("reference", "options"): {},
    ("reference", "head"): "",
    **{(role, "text_options"): {} for role in ("learner", "scorer", "reference")},
    ("serve", "on"): False,
}


@dataclasses.dataclass(frozen=True)
class Earlier:
    """What earlier sessions of a run have left.

    Attributes:
        completed: whether it has reached its last step.
        wall_seconds: how long those took that have left a result.
        cpu_seconds: processor time of these.
        cpu_seconds_by_kind: the same by what it was spent on, as far as they have told.
        started: what the first of them has recorded of what it was started with.
    """

    completed: bool = False
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    cpu_seconds_by_kind: Mapping[str, float] = dataclasses.field(default_factory=dict)
    started: Any = None


def earlier(config: ExperimentConfig, workdir: pathlib.Path) -> Earlier | None:
    """Reads what is in a work directory; None if there is no run in it.

    Raises:
        ConfigError: if it cannot be read, or is a run of another configuration.
    """
    theirs = _read(workdir / "config.json")
    if theirs is None:
        return None
    _check_same(json.loads(json.dumps(config.to_dict())), theirs, workdir)
    result = _read(workdir / "result.json") or {}
    by_kind = result.get("cpu_seconds_by_kind")
    return Earlier(
        result.get("status") == "completed",
        float(result.get("wall_seconds", 0.0)),
        float(result.get("cpu_seconds", 0.0)),
        by_kind if isinstance(by_kind, dict) else {},
        theirs.get("started"),
    )


def with_known_models(fields: Mapping[str, Any], workdir: pathlib.Path) -> dict[str, Any]:
    """The fields of a configuration with the models that a run in its directory has, where they say "init".

    What these started from need not be there any more.

    Raises:
        ConfigError: if the run's `config.json` cannot be read.
    """
    found = dict(fields)
    asking = [role for role in ("learner", "scorer") if recorded.group(fields.get(role)).get("model") == INIT]
    theirs = recorded.group(_read(workdir / "config.json")) if asking else {}
    for role in asking:
        own, there = recorded.group(fields.get(role)), recorded.group(theirs.get(role))
        if not there or there.get("init") != own.get("init"):
            continue
        found[role] = {**own, **{name: there[name] for name in MODEL_FIELDS if name in there}}
        texts = recorded.group(theirs.get("contrastive"))
        known = {name: texts[name] for name in initial_models.OF_TEXTS if name in texts}
        if fields.get("task") == "contrastive":
            found["contrastive"] = {**recorded.group(fields.get("contrastive")), **known}
    return found


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read, so its run cannot go on: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JSON object, so its run cannot go on")
    return found


def _check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], workdir: pathlib.Path) -> None:
    # A run that was made before there was this field held nothing out: `identity.check` compares.
    found = {("eval_share",): ours["eval_share"], **dict(_flat(theirs))}
    if (served := found.get(("serve", "on"), False)) != ours["serve"]["on"]:
        command, other = ("serve", "train") if served else ("train", "serve")
        raise ConfigError(
            f"workdir={str(workdir)!r} holds a run of `classact {command}`, with which `classact {other}` "
            "cannot go on: name another workdir"
        )
    for names, value in _flat(ours):
        if names[0] in _FREE or names in _FREE_OF_SERVING or _FREE_OF_DATA_SET & {*names}:
            continue
        if found.get(names, _BEFORE.get(names[-2:], _BEFORE.get(names[-1:]))) == value:
            continue
        if recorded.may_have_moved(theirs.get("started"), names, found.get(names), value):
            continue
        raise ConfigError(
            f"{'.'.join(names)}={value!r}: workdir={str(workdir)!r} holds a run with "
            f"{found.get(names)!r}; give that to let it go on, or name another workdir"
        )


def _flat(value: Mapping[str, Any], names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields the fields of nested groups, each with its names."""
    for name, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flat(item, (*names, name))
        else:
            yield (*names, name), item


def locked(workdir: pathlib.Path) -> AbstractContextManager[None]:
    """Keeps other launchers out of a work directory; raises a LaunchError if one is in it."""
    said = f"workdir={str(workdir)!r}: a launcher is running it; wait for its end, or stop it"
    return engine_folders.held(workdir / "launcher.lock", said)


def prepare_files(config: ExperimentConfig, workdir: pathlib.Path) -> int:
    """Makes a work directory ready for the run to go on; returns the step from which it does.

    Damaged checkpoints are set aside, and tables that were saved after the one that is
    taken are removed. Reads the whole checkpoint, and blocks so long.

    Raises:
        LaunchError: if there are checkpoints, and all are damaged.
    """
    (workdir / "result.json").unlink(missing_ok=True)
    (workdir / "endpoints.json").unlink(missing_ok=True)
    checkpoint_folder = workdir / "checkpoints"
    step = _newest_sound(checkpoint_folder)
    kept = () if step is None else (step,)
    if kept and not checkpoints.has_clocks(checkpoint_folder, kept[0]):
        print(
            "classact: the tables were saved by an older version, which ordered them otherwise; the run goes "
            "on with empty ones, without the examples that they held",
            file=sys.stderr,
            flush=True,
        )
        kept = ()
    for data_set in config.data_sets:
        for folder in folders.shard_folders(workdir, data_set, config.data_sets[data_set].replay.shards):
            folders.keep(folder, kept)
    return step or 0


def _newest_sound(directory: pathlib.Path) -> int | None:
    damaged = []
    while (step := checkpoints.latest_step(directory)) is not None:
        try:
            checkpoints.check(directory, step)
        except checkpoints.CheckpointError as error:
            print(f"classact: {error}; taking the one before it", file=sys.stderr, flush=True)
            checkpoints.set_aside(directory, step)
            damaged.append(step)
        else:
            return step
    if damaged:
        raise LaunchError(
            f"all checkpoints in {directory} are damaged ({', '.join(map(str, damaged))}); "
            "restore one, or name another workdir"
        )
    return None


def forget(workdir: pathlib.Path) -> None:
    """Removes what a run that could not be started has written."""
    for name in ("config.json", "launcher.lock"):
        (workdir / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # Something else is in it.
        workdir.rmdir()


def remove_tables(workdir: pathlib.Path) -> None:
    """Removes what a run that is completed has saved of its tables."""
    shutil.rmtree(workdir / "replay", ignore_errors=True)
