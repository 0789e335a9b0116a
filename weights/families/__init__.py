"""One module for each tool that checkpoints come from and go to.

Each says how such a checkpoint is described (`read`), how its arrays are named
(a list of `entries.Entry`), and what of ours it can hold (`written`).
"""
