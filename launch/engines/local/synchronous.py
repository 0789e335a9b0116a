"""`--launch=synchronous`: the same training without nodes, as one loop of this process."""

from __future__ import annotations

from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.engines.interface import Engine, Job
from classact.launch.engines.outcome import Outcome


class Synchronous(Engine):
    """Has no nodes: assembly gives the loop."""

    one_process = True
    has_nodes = False
    resumes = False

    def check(self, config: ExperimentConfig) -> None:
        """See `Engine.check`."""
        if config.mesh.fsdp > 1:
            raise ConfigError(
                f"mesh.fsdp={config.mesh.fsdp}: must be 1 with --launch=synchronous, for one device"
            )

    def run(self, job: Job) -> Outcome:
        """See `Engine.run`."""
        return job.in_one_loop()
