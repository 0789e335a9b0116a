"""`classact plan`: what a run will cost, from when on it pays, and what it needs. Begin with `plan.py`."""
