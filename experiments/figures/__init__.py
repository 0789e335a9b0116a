"""One file for each figure and table: which runs it needs, and how they are drawn.

    classact sweep experiments/figures/<name>.py --out=runs/figures

makes the runs that `records.jsonl` does not have (the one here, or the one in that directory), and
writes `<name>.csv`, `<name>.svg` and `<name>.png` there. With
`--records=experiments/figures/records.jsonl` what is known of new runs goes to the file here, which is
committed. `parts.py` makes the configurations, so that a run that two figures need is made once.
"""
