"""Tasks as Ray actors."""
