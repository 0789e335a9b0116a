"""Tasks as steps of a Slurm job."""
