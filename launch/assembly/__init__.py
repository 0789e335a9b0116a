"""From a configuration to sources, models, tasks and node objects; starts no process."""
