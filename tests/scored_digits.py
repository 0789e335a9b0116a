"""A small model on digits that has been saved, and what it scores, for the tests of score files."""

import contextlib
import json
import threading

from on_digits import only, open_train, resolved

from classact.launch.assembly import joined_run
from classact.launch.assembly.parts import learning, score_pass, shapes
from classact.launch.commands import score_run
from classact.nodes import checkpoints, training


def digits_shape(**changes):
    return shapes.data_shape(resolved(**changes), open_train(**changes))


def save_run(folder, total_macs=1000.0, **changes):
    """A run of vit_mu_1_1 on digits that has saved its first state, and says what it has cost."""
    folder.mkdir(parents=True)
    chosen, shape = resolved(**changes), digits_shape(**changes)
    started = {"data": {"digits": shape.described()}}
    (folder / "config.json").write_text(json.dumps({**chosen.to_dict(), "started": started}))
    (folder / "result.json").write_text(
        json.dumps({"status": "completed", "ledger": {"total_macs": total_macs}})
    )
    checkpointer = checkpoints.Checkpointer(folder / "checkpoints", classes=shape.classes)
    checkpointer.save(1, training.init_state(learning.trained_models(chosen, shape), chosen.seed))
    checkpointer.close()
    return folder


def in_process(folder, parts, count, stop, told):
    """In the place of `score_processes.compute`: the same parts without a process."""
    description = json.loads((folder / "_scores.json").read_text())
    scoring = score_pass.again(joined_run.read_config(_run_of(description)), description)
    opened, score = scoring.open(), score_pass.make_scorer(scoring)
    for part in scoring.parts:
        if part.number in parts:
            if stop.is_set():
                return False
            score_pass.score_part(scoring, part, opened, score, folder, told)
    return True


def _run_of(description):
    import pathlib

    return pathlib.Path(description["model"]["run"])


@contextlib.contextmanager
def without_processes(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(score_run.score_processes, "compute", in_process)
        yield


def score(run, out, monkeypatch, batch_size=64, **fields):
    """Scores digits by a run; returns the folder."""
    with without_processes(monkeypatch):
        scoring = score_run.prepare(run, out, fields, batch_size)
        assert score_run.score(scoring, out, 1, threading.Event())
    return out


def check(check_function, data, **changes):
    chosen = resolved(**changes)
    return check_function(chosen, only(chosen), data)
