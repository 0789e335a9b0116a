"""Configurations, what runs have cost and reached, and what is made of many of them.

- `base.py`, `config.py`, `resolution.py`, `configs/`: a run's fields, checked and resolved.
- `ledger.py`, `planning/`: what a run costs, afterwards and before.
- `curves.py`, `compare/`, `report/`: run directories, held against each other, on a page.
- `sweeps.py`, `records.py`, `figures/`: many runs, what is kept of them, the paper's figures.

May import `models`, `selection` and `data`; `launch` imports it.
"""
