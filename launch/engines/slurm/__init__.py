"""Nodes as steps of a Slurm job, which the launcher submits or is a part of."""

from classact.launch.engines import registry

registry.register("slurm", "classact.launch.engines.slurm.engine:Slurm")
