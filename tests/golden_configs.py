"""Every shipped configuration, resolved, as text that a review can read.

`make golden` writes the files of `tests/golden/` anew: one of each file of
`experiments/configs/`, with a line a field. What is the same in all of its parts
stands once.
"""

import importlib
import json
import pathlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from classact.experiments import configs, resolution

FOLDER = pathlib.Path(__file__).resolve().parent / "golden"
# Of a configuration without parts, and of what all parts of one have in common.
WHOLE, COMMON = "the configuration", "in every part"


def names() -> list[str]:
    """The files of `experiments/configs/`, without their suffix."""
    return sorted(module.name for module in pkgutil.iter_modules(configs.__path__))


def parts(name: str) -> tuple[str, ...]:
    """The parts of a file, as they stand after the colon; none of a file without."""
    return getattr(_module(name), "PARTS", ())


def resolved(name: str, part: str = "") -> resolution.ExperimentConfig:
    """A configuration as a run would record it."""
    get_config = _module(name).get_config
    return resolution.resolve((get_config(part) if part else get_config()).to_dict())


def text(name: str) -> str:
    """What the golden file of a configuration file has to hold."""
    found = {part: _flat(resolved(name, part).to_dict()) for part in parts(name)}
    if not found:
        return _json({WHOLE: _flat(resolved(name).to_dict())})
    first, *others = found.values()
    common = {
        field: value
        for field, value in first.items()
        if all(field in other and other[field] == value for other in others)
    }
    own = {
        f"{name}.py:{part}": {field: value for field, value in fields.items() if field not in common}
        for part, fields in found.items()
    }
    return _json({COMMON: common, **own})


def path(name: str) -> pathlib.Path:
    """The golden file of a configuration file."""
    return FOLDER / f"{name}.json"


def _module(name: str) -> Any:
    return importlib.import_module(f"classact.experiments.configs.{name}")


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under their full names, as `--config.` takes them; empty groups are kept."""
    flat: dict[str, Any] = {}
    for field, value in fields.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{field}.")
        else:
            flat[f"{prefix}{field}"] = value
    return flat


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        old.unlink()
    for each in names():
        path(each).write_text(text(each))
