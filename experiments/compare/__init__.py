"""What runs say when they are held against each other: groups of seeds, targets, intervals, chance.

Begin with `comparison.py`. Numbers only; `report/` shows them. Imports `ledger`, `curves` and what
reads run directories beside them; `report/`, `sweeps.py` and `launch` import it.
"""
