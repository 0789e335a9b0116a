"""The run loop: reads examples, has them scored, writes them to replay (A.6)."""

import collections
import contextlib
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, Protocol

import numpy as np

from classact.data.carried.kinds import PIXELS
from classact.data.carried.sealing import Sealer, as_scored
from classact.nodes import activity, divergence, read_ahead, score_summary
from classact.nodes import metrics as metrics_lib
from classact.nodes.extremes import Extremes
from classact.nodes.inference_server import Scores
from classact.nodes.scoring import request
from classact.selection import race

# Batches between two lines of metrics.
LOG_EVERY = 50

Batch = Mapping[str, np.ndarray]
ScoreFn = Callable[[Batch], Scores]


class Writer(Protocol):
    """What a run loop needs of the replay."""

    @property
    def max_pending(self) -> int:
        """Examples that may be unconfirmed when `write` returns."""

    def write(self, batch: Batch, priorities: Callable[[np.ndarray], np.ndarray], keep: np.ndarray) -> int:
        """Inserts the kept examples; may block until the stop signal."""

    def close(self) -> None:
        """Ends writing."""


def scored_here(score: Callable[[Batch], np.ndarray]) -> ScoreFn:
    """Scores that need no model and no server, of `scoring.make_file_scorer`; they never change."""
    return lambda batch: Scores(score(batch), -1)


class RunLoop:
    """Moves one reader's examples into the replay, batch by batch, until stopped."""

    def __init__(
        self,
        stream: read_ahead.Stream,
        score: ScoreFn | None,
        writer: Writer,
        temperature: float,
        stop: threading.Event,
        metrics: metrics_lib.MetricsWriter | None = None,
        max_nonfinite_share: float = 0.01,
        log_every: int = LOG_EVERY,
        extremes_path: pathlib.Path | None = None,
        class_names: Sequence[str] = (),
        decode: Callable[[np.ndarray], list[str]] | None = None,
        report_cursor: Callable[[dict[str, Any]], None] | None = None,
        clock: Callable[[], race.Clock] | None = None,
        rng: np.random.Generator | None = None,
        reference_losses: Callable[[np.ndarray], np.ndarray] | None = None,
        damaged: Callable[[], int] | None = None,
        read_ahead_bytes: int = 0,
        seal: Sealer | None = None,
    ) -> None:
        """Builds the loop; `run` starts it.

        Args:
            stream: batches without end.
            score: asks an inference server; None for IID data (all of one weight).
            writer: of the data set's tables.
            temperature: of the softmax over the scores, above 0.
            stop: ends the loop, also while it is blocked in the writer.
            metrics: where to write `score/*`; None: nowhere.
            max_nonfinite_share: the run fails when more than this share of the
                scores so far, and more than ten, is not finite.
            log_every: batches between two lines of metrics.
            extremes_path: where to leave the examples with the highest and the
                lowest scores among the last ones, as `.npz`, at the end.
            class_names: goes with them, if there are any.
            decode: makes captions of `text`, int32[B, L], to go with them.
            report_cursor: told where the stream was, when all before is in the tables.
            clock: the newest one known of the table that is written to, must not block; None:
                all items race from time 0, as is right where none leaves unsampled.
            rng: of the race; None: a new one.
            reference_losses: gives the reference's losses of ids, which go with what is sent for
                scores, see `scoring.request`; None: a model gives them.
            damaged: how many different damaged images the stream has met, for `data/damaged`.
            read_ahead_bytes: what a thread of its own may read of the stream meanwhile, see
                `read_ahead.ReadAhead`; 0: it is read when nothing else is done.
            seal: makes of a batch what the replay carries; None: pixels.
        """
        self._stream = stream
        self._score = score
        self._writer = writer
        self._temperature = temperature
        self._stop = stop
        self._metrics = metrics
        self._max_nonfinite_share = max_nonfinite_share
        self._log_every = log_every
        self._extremes = None
        if extremes_path is not None and score is not None:
            self._extremes = Extremes(extremes_path, class_names, decode)
        self._report_cursor = report_cursor
        self._clock = clock or race.Clock
        self._rng = rng or np.random.default_rng()
        self._reference_losses = reference_losses
        self._damaged = damaged
        self._read_ahead_bytes = read_ahead_bytes
        self._seal = seal or Sealer(PIXELS)
        # Cursors of which some example may not be in the tables yet, each with how many
        # examples had been written up to it.
        self._unreported: collections.deque[tuple[int, dict[str, Any]]] = collections.deque()
        self._written = 0
        self._examples = 0
        self._nonfinite = 0
        self._saturated = 0

    def run(self) -> None:
        """Runs until the stop signal.

        Raises:
            DivergedError: past the configured share of unusable scores.
        """
        with contextlib.ExitStack() as reading:
            if self._read_ahead_bytes:
                ahead = read_ahead.ReadAhead(self._stream, self._stop, self._read_ahead_bytes)
                self._stream = reading.enter_context(ahead)
            try:
                with activity.part("run loop"):
                    self._move()
            finally:
                self._writer.close()
                if self._extremes is not None:
                    self._extremes.save()

    def _move(self) -> None:
        recent: list[np.ndarray] = []
        for number, batch in enumerate(self._stream, start=1):
            scores = self._scores(batch)
            if scores is None or self._stop.is_set():
                break
            self._insert(batch, scores)
            recent.append(scores.values)
            if number % self._log_every == 0:
                self._log(scores.step, np.concatenate(recent))
                recent = []
            activity.progressed()

    def _scores(self, batch: Batch) -> Scores | None:
        if self._score is None:
            return Scores(np.zeros(len(batch["id"]), np.float32), -1)
        try:
            with activity.waiting("scores"):
                return self._score(request(batch, self._reference_losses))
        except futures.CancelledError:
            return None

    def _insert(self, batch: Batch, scores: Scores) -> None:
        found = race.log_weights(scores.values, self._temperature)
        self._examples += len(found.keep)
        self._saturated += found.saturated
        self._nonfinite += int(np.count_nonzero(~found.keep))
        divergence.check_scores(scores.step, self._nonfinite, self._examples, self._max_nonfinite_share)
        told: dict[str, Any] = {
            "score": scores.values.astype(np.float32),
            "scored_step": np.full(len(found.keep), scores.step, np.int64),
        }
        sealed = self._seal(batch) | told | dict(scores.carried)
        with activity.waiting("room in the replay"):
            self._written += self._writer.write(
                sealed, lambda rows: self._clock().keys(found.values[rows], self._rng), found.keep
            )
        self._report()
        if self._extremes is not None:
            self._extremes.add(as_scored(batch) | told, found.keep)

    def _report(self) -> None:
        # A writer that is stopped leaves examples out.
        if self._report_cursor is None or self._stop.is_set():
            return
        self._unreported.append((self._written, self._stream.cursor))
        confirmed = self._written - self._writer.max_pending
        newest = None
        while self._unreported and self._unreported[0][0] <= confirmed:
            _, newest = self._unreported.popleft()
        if newest is not None:
            self._report_cursor(newest)

    def _log(self, step: int, scores: np.ndarray) -> None:
        if self._metrics is None:
            return
        line: dict[str, float] = {
            "run_loop/examples": self._examples,
            "score/nonfinite": self._nonfinite,
            "score/saturated": self._saturated,
            **self._seal.counts,
        }
        if self._damaged is not None:
            line["data/damaged"] = self._damaged()
        if self._score is not None:
            line |= score_summary.summary(scores)
        self._metrics.write(max(step, 0), line)
