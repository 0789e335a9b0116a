"""One scoring pass from its arguments to a complete folder of score files."""

import contextlib
import pathlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from classact.data import score_files, specs
from classact.experiments.config import ConfigError
from classact.launch.assembly import joined_run
from classact.launch.assembly.parts import score_pass
from classact.launch.assembly.parts.score_pass import ScoringPass
from classact.launch.commands import counting, run_files, score_processes
from classact.launch.engines import folders


@specs.opened_once()
def prepare(
    run: pathlib.Path, folder: pathlib.Path, fields: Mapping[str, Any], batch_size: int
) -> ScoringPass:
    """Checks all that can be checked before any process starts; writes nothing.

    Args:
        run: directory of the run whose model scores.
        folder: where the files are to be; what is there already of the same pass stays.
        fields: see `score_pass.prepare`.
        batch_size: likewise.

    Raises:
        joined_run.AttachError: if it is no run directory.
        ConfigError, source.DataError: as `score_pass.prepare`; also if the folder holds something else.
        score_files.ScoreFileError: if the description in the folder cannot be read.
    """
    scoring = score_pass.prepare(run, joined_run.read_config(run), fields, batch_size)
    there = score_files.description_in(folder)
    if there is not None and there.get("identity") != scoring.identity:
        raise ConfigError(
            f"out={str(folder)!r} holds other scores ({_said(there)}; asked for: "
            f"{_said(scoring.description)}): name another folder, or remove it"
        )
    if there is None and folder.exists() and (not folder.is_dir() or list(folder.glob("*.parquet"))):
        raise ConfigError(f"out={str(folder)!r}: something else is there; name another folder")
    return scoring


def score(scoring: ScoringPass, folder: pathlib.Path, processes: int, stop: threading.Event) -> bool:
    """Computes what is missing of a pass; blocks until all is there, or `stop`.

    Args:
        scoring: of `prepare`.
        folder: where the files are.
        processes: how many to use; 0: `score_processes.default_count`.
        stop: ends it within some seconds; what is whole stays.

    Returns:
        Whether all is there.

    Raises:
        LaunchError: if another process does the same.
        ConfigError: if the folder cannot be made.
        score_processes.WorkerError: if a process has failed.
        OSError: if the folder cannot be written.
    """
    with _locked(folder):
        score_files.remove_unfinished(folder)
        missing = _missing(scoring, folder)
        if not missing and (score_files.description_in(folder) or {}).get("complete"):
            return True
        run_files.write_json(folder / score_files.DESCRIPTION, dict(scoring.description))
        every = scoring.parts
        done = sum(part.examples for part in every if part.number not in set(missing))
        if done:
            print(f"classact: {done:,} examples are there already", file=sys.stderr, flush=True)
        started = time.monotonic()
        if missing:
            count = processes or score_processes.default_count()
            with counting.Counting("examples", scoring.shape.num_examples, done) as shown:
                if not score_processes.compute(folder.absolute(), missing, count, stop, shown.add):
                    return False
        _complete(scoring, folder, time.monotonic() - started)
    return True


def _complete(scoring: ScoringPass, folder: pathlib.Path, seconds: float) -> None:
    """Says in the description that all is there; not if a file was damaged meanwhile."""
    missing = _missing(scoring, folder)
    if missing:
        raise score_processes.WorkerError(f"{score_files.part_path(folder, missing[0])} is damaged", False)
    rows = sum(score_files.rows(score_files.part_path(folder, part.number)) for part in scoring.parts)
    said = {
        **scoring.description,
        "examples": rows,
        "left_out": scoring.shape.num_examples - rows,
        "seconds": seconds,
        "complete": True,
    }
    run_files.write_json(folder / score_files.DESCRIPTION, said)


def _missing(scoring: ScoringPass, folder: pathlib.Path) -> Sequence[int]:
    return [
        part.number
        for part in scoring.parts
        if not score_files.part_is_whole(score_files.part_path(folder, part.number), part.described())
    ]


def _said(description: Mapping[str, Any]) -> str:
    """A pass in a few words."""
    model, data = description.get("model") or {}, description.get("data") or {}
    noise = data.get("label_noise") or data.get("caption_noise") or 0
    return (
        f"step {model.get('step')} of {model.get('run')} on {data.get('train_data')}, noise {noise:g}, "
        f"data_seed {data.get('data_seed')}, batch_size {description.get('batch_size')}"
    )


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    busy = f"out={str(folder)!r}: a `classact score` is writing it; wait for its end, or stop it"
    with contextlib.ExitStack() as lock:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.enter_context(folders.held(folder / ".score.lock", busy))
        except OSError as error:
            said = f"cannot be written ({error.strerror}): name another"
            raise ConfigError(f"out={str(folder)!r}: {said}") from None
        yield
