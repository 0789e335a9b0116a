"""`--launch=slurm`: submits a job, or runs in the one that this process is part of."""

from __future__ import annotations

from classact.experiments.config import ConfigError, ExperimentConfig
from classact.launch.engines.interface import Engine, Job
from classact.launch.engines.outcome import Outcome
from classact.launch.engines.slurm.info import own_job_id
from classact.launch.engines.slurm.job import run_job
from classact.launch.engines.slurm.run import run_steps

_KINDS = ("learner", "inference", "evaluator", "replay", "run_loop")


class Slurm(Engine):
    """Every node is a step of a job."""

    several_hosts = True
    # Slurm ends a job's steps first and then signals their launcher, which has its
    # result still to write.
    holds_signals = True

    def check(self, config: ExperimentConfig) -> None:
        """Refuses shares of GPUs, which a step cannot be given."""
        for kind in _KINDS:
            gpus = getattr(config.on_cluster, kind).gpus
            if gpus != int(gpus):
                raise ConfigError(
                    f"resources.{kind}.gpus={gpus:g}: must be a whole number with --launch=slurm, which "
                    "gives a step whole GPUs; in a job of one host --launch=processes divides them"
                )

    def submits(self) -> bool:
        """Outside of a job."""
        return own_job_id() is None

    def submit(self, job: Job) -> Outcome:
        """See `run_job`."""
        return run_job(job)

    def run(self, job: Job) -> Outcome:
        """See `run_steps`."""
        job_id = own_job_id()
        assert job_id is not None, "outside of a job the run is submitted"
        return run_steps(job, job_id)
