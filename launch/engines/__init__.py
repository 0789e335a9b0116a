"""How tasks are started, watched, restarted and ended."""
