"""Nodes on this machine alone: as processes, as threads of the launcher, or none at all."""

from classact.launch.engines import registry

registry.register("processes", "classact.launch.engines.local.processes:Processes")
registry.register("threads", "classact.launch.engines.threads:Threads")
registry.register("synchronous", "classact.launch.engines.local.synchronous:Synchronous")
