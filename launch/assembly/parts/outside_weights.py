"""Which checkpoints of other tools a run uses: recorded when it begins, and compared when it goes on."""

import re
from collections.abc import Iterator
from typing import Any

from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.assembly.parts import recorded
from classact.selection import policies
from classact.weights import as_run, opening

_OF_REFERENCE = re.compile(r"data_sets\.[^.]+\.reference\.checkpoint")


def described(config: ExperimentConfig, started: Any) -> dict[str, Any]:
    """What `config.json` says of them under `started.weights`, by field; reads their files once more.

    Of a run that goes on, what its models began with need not be there any more: that is as it was recorded.

    Args:
        config: of the run.
        started: of its `config.json`; None if it begins.

    Raises:
        ConfigError: if a reference is not what the run began with.
    """
    before = recorded.group(recorded.group(started).get("weights"))
    found: dict[str, Any] = {}
    for field, spec in _named(config):
        known, fixed = before.get(field), _OF_REFERENCE.fullmatch(field)
        found[field] = known if known and not fixed else as_run.provenance(spec)
        if known and recorded.group(known).get("digest") != found[field]["digest"]:
            raise ConfigError(
                f"{field}={spec!r}: its files are others than when the run began: restore them, or name "
                "another workdir"
            )
    return found


def _named(config: ExperimentConfig) -> Iterator[tuple[str, str]]:
    for field, spec in (("learner.init", config.learner.init), ("scorer.init", config.scorer.init)):
        if opening.is_outside(spec):
            yield field, spec
    for name, own in config.data_sets.items():
        fixed = policies.get(own.policy).reference == "fixed" and not own.reference.scores
        if fixed and opening.is_outside(own.reference.checkpoint):
            yield f"data_sets.{name}.reference.checkpoint", own.reference.checkpoint
