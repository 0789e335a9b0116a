"""Nodes as Ray actors."""

from classact.launch.engines import registry

registry.register("ray", "classact.launch.engines.ray.run:Ray")
