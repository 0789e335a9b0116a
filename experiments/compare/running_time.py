"""For how long a run has run, which its clock does not say: it may have been stopped and resumed."""

from typing import Optional

import numpy as np

from classact.experiments.curves import Curve, Run

# What a learner's time is made of, in its records.
_PARTS = ("train/step_seconds", "train/data_wait_seconds", "train/save_seconds")


def times(run: Run) -> Curve:
    """(step, seconds) of the learner's records; empty if one does not say."""
    total, found = 0.0, []
    for record in run.learner:
        if _PARTS[0] not in record:
            return ()
        total += sum(float(record.get(name, 0.0)) for name in _PARTS)
        found.append((float(record["step"]), total))
    return tuple(found)


def seconds_at(run: Run, step: float) -> Optional[float]:
    """For how long a run's learner had run at a step: what its updates and its waits for data took.

    The time between a stop and the resumption is none of it, nor what was done and undone
    by a crash, nor evaluations, nor the start before the learner waits for its first batch.

    Returns:
        Seconds, or None if the run's records do not reach so far, or do not say.
    """
    found = times(run)
    if not found or step > found[-1][0]:
        return None
    steps, seconds = zip((0.0, 0.0), *found, strict=True)
    return float(np.interp(step, steps, seconds))
