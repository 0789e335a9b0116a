"""Data sets that TensorFlow Datasets has prepared, by the files that describe them.

Written from what its version 4.9 writes: `dataset_info.json`, `features.json`, names of classes in
`FEATURE.labels.txt`, and shards whose names follow a template. Neither it nor TensorFlow is needed.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from classact.data.class_names import GivenClasses, read_class_names
from classact.data.records.table import Described
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tables.parts import reason, split_of

_INFO, _FEATURES = "dataset_info.json", "features.json"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
# What it calls formats, and what the readers are called here.
_FORMATS = {"tfrecord": "tfrecord", "array_record": "arrayrecord"}


class Prepared(NamedTuple):
    """A split of a prepared data set.

    Attributes:
        kind: of its shards, "tfrecord" or "arrayrecord".
        paths: the shards.
        described: what it says of itself.
        has_splits: whether those of "train" and of "eval" are different ones.
    """

    kind: str
    paths: list[str]
    described: Described
    has_splits: bool


def prepared(argument: str, use: str, split: Optional[str], folder: Optional[str]) -> Prepared:
    """Finds a split of a prepared data set.

    Args:
        argument: the data set's name, with `:` and its configuration if it has several, or its version; or
            a directory.
        use: "train" or "eval".
        split: the split to take for both; None: "train", and one to measure on if there is one.
        folder: where data sets by name are; None: `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`.

    Raises:
        DataError: if there is no such data set, split or shard, or a description cannot be read.
    """
    where = f"tfds:{argument}"
    found = _version_of(_directory(argument, folder), where)
    info = _object(found / _INFO)
    kind = str(info.get("fileFormat") or "tfrecord")
    if kind not in _FORMATS:
        raise DataError(
            f"{shown(str(found))}: prepared as {kind}, expected {' or '.join(_FORMATS)}: prepare it with "
            "file_format='array_record'"
        )
    try:
        splits = {each["name"]: each for each in info.get("splits", ())}
        lengths_of = {name: list(map(int, each.get("shardLengths", ()))) for name, each in splits.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{shown(str(found / _INFO))}: its splits are described in another way than TFDS does"
        ) from error
    # A split may have no examples at all.
    names = [name for name, lengths in lengths_of.items() if sum(lengths)]
    if not names:
        raise DataError(f"{shown(str(found / _INFO))}: it has no split with examples")
    wanted, has_splits = split_of(where, names, use, split)
    lengths = lengths_of[wanted]
    template = str(splits[wanted].get("filepathTemplate") or _TEMPLATE)
    paths = [
        os.path.join(found, _shard(template, info.get("name"), wanted, kind, number, len(lengths)))
        for number in range(len(lengths))
    ]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{shown(missing[0])}: no such file, though {_INFO} says that split {wanted!r} has "
            f"{len(paths)} shards ({len(missing)} are missing)"
        )
    described = _described(found)._replace(lengths=lengths)
    return Prepared(_FORMATS[kind], paths, described, has_splits)


def _directory(argument: str, folder: Optional[str]) -> pathlib.Path:
    """Where all versions or configurations of a data set are, or one."""
    if not argument:
        raise DataError(
            "data source 'tfds' needs a name or a directory: tfds:NAME, tfds:NAME:CONFIG, tfds:DIR"
        )
    base = pathlib.Path(folder or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    name, _, config = argument.partition(":")
    places = [base / name / config]
    if folder is None:
        places.append(pathlib.Path(argument).expanduser())
    for place in places:
        if place.is_dir():
            return place
    if not base.is_dir():
        there = "which is no directory" if base.exists() else "which does not exist"
    else:
        near = base if not (base / name).is_dir() else base / name
        listed = sorted(each.name for each in near.iterdir() if each.is_dir() and each.name[0] != ".")
        there = f"which has {', '.join(listed[:8]) or 'none'}{', …' if len(listed) > 8 else ''}"
        base = near
    raise DataError(
        f"tfds:{argument}: no prepared data set of this name in {shown(str(base))}, {there}; ?folder=DIR "
        f"names another place; `tfds build {name}` prepares it, where tensorflow-datasets is installed"
    )


def _version_of(folder: pathlib.Path, where: str) -> pathlib.Path:
    """The newest version below a directory, or itself; DataError if there are configurations."""
    if (folder / _INFO).is_file():
        return folder
    inner = [each for each in folder.iterdir() if each.is_dir()]
    versions = [each for each in inner if _VERSION.fullmatch(each.name) and (each / _INFO).is_file()]
    if versions:
        return max(versions, key=lambda each: tuple(map(int, each.name.split("."))))
    configs = sorted(each for each in inner if any(each.glob(f"*/{_INFO}")))
    if len(configs) == 1:
        return _version_of(configs[0], where)
    if configs:
        raise DataError(
            f"{where}: which configuration? say tfds:NAME:CONFIG with one of "
            f"{', '.join(each.name for each in configs)}"
        )
    raise DataError(
        f"{shown(str(folder))}: no {_INFO} there, nor in a version such as 1.0.0 below: expected a data set "
        "that tensorflow-datasets has prepared; bare shards are tfrecord:PATTERN or arrayrecord:PATTERN"
    )


def _shard(template: str, name: Any, split: str, kind: str, number: int, count: int) -> str:
    values = {
        "DATASET": str(name),
        "SPLIT": split,
        "FILEFORMAT": kind,
        "SHARD_INDEX": f"{number:05d}",
        "NUM_SHARDS": f"{count:05d}",
        "SHARD_X_OF_Y": f"{number:05d}-of-{count:05d}",
    }
    return re.sub(r"\{([A-Z_]+)\}", lambda found: values.get(found[1], found[0]), template)


def _described(folder: pathlib.Path) -> Described:
    """What `features.json` and files beside it say; nothing for versions that wrote none."""
    path = folder / _FEATURES
    if not path.is_file():
        return Described()
    features = _object(path).get("featuresDict", {}).get("features", {})
    kinds = {
        name: str(each.get("pythonClassName", "")).rpartition(".")[2]
        for name, each in features.items()
        if isinstance(each, Mapping)
    }
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    names: dict[str, list[str]] = {}
    classes: dict[str, GivenClasses] = {}
    for name in labels:
        file = folder / f"{name}.labels.txt"
        number = str(features[name].get("classLabel", {}).get("numClasses", ""))
        if file.is_file():
            names[name] = read_class_names(file)
        elif number.isdecimal() and int(number):
            classes[name] = GivenClasses(int(number), None, shown(str(path)))
    known = {"image": [name for name, kind in kinds.items() if kind == "Image"], "label": labels}
    return Described(known, names, classes)


def _object(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{shown(str(path))}: cannot be read ({reason(error)})") from error
    except ValueError as error:
        raise DataError(f"{shown(str(path))}: no JSON ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{shown(str(path))}: expected an object, as TFDS writes it")
    return found
