"""The part of the configuration that says how sub-batches are handed on to a trainer that is not ours.

In such a run the learner is the selector: the online model itself, which trains on what the trainer gets.
"""

import dataclasses
import ipaddress

from classact.experiments.checks import ConfigError, require
from classact.experiments.model_config import LearnerConfig, ModelConfig
from classact.selection.policies import Policy


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """See `experiments/base.py`. Runs that were made before there was one handed nothing on."""

    on: bool = False
    listen: str = "127.0.0.1:0"
    ahead: int = 4
    kept: int = 64

    def __post_init__(self) -> None:
        require(self.ahead >= 1, "serve.ahead", self.ahead, "at least 1 sub-batch")
        require(self.kept >= 0, "serve.kept", self.kept, "at least 0 sub-batches")
        accepted = (
            "NUMBER:PORT with an IP address's number (port 0: any that is free), or unix:/absolute/path"
        )
        require(_is_address(self.listen), "serve.listen", self.listen, accepted)


def _is_address(text: str) -> bool:
    if text.startswith("unix:"):
        return text.startswith("unix:/")
    host, _, port = text.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return port.isdigit() and int(port) < 2**16


def check(hosts: int, policies: dict[str, Policy]) -> None:
    """Checks that a selector can select.

    Args:
        hosts: of the learner.
        policies: by data set.

    Raises:
        ConfigError: naming the field.
    """
    require(hosts == 1, "mesh.hosts", hosts, "1 with `classact serve`: one selector hands all sub-batches on")
    for name, policy in policies.items():
        if policy.online == "learner":
            raise ConfigError(
                f"policy={policy.name!r} of {name}: scores with the learner's own parameters, and with "
                "`classact serve` the learner is a trainer that is not ours; choose a policy whose online "
                "model is a small one of its own, such as 'classact' or 'classact_online'"
            )


def selector(scorer: ModelConfig) -> LearnerConfig:
    """The selector's model: the scorer's."""
    return LearnerConfig(**{field.name: getattr(scorer, field.name) for field in dataclasses.fields(scorer)})


def with_selector(policy: Policy) -> Policy:
    """A policy as a run has it whose learner is the selector: this one is the online model."""
    return dataclasses.replace(policy, online="learner") if policy.online == "proxy" else policy
