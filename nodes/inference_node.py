"""An inference server with its run loops as threads of one node (Appendix A.6)."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from classact.calls import exposed
from classact.nodes import inference_server, run_loop


class InferenceNode:
    """Lives until the stop signal or the first failure of one of its parts."""

    def __init__(
        self,
        server: inference_server.InferenceServer,
        run_loops: Sequence[run_loop.RunLoop],
        stop: threading.Event,
    ) -> None:
        """Builds the node; `run` starts the run loops.

        Args:
            server: already serving; its `stop` is the same as this node's.
            run_loops: of this process, may be empty.
            stop: ends the node; set by the node itself when a part fails.
        """
        self._server = server
        self._run_loops = tuple(run_loops)
        self._stop = stop

    @exposed
    def score_arrays(self, batch: inference_server.Batch) -> tuple[np.ndarray, int, dict[str, np.ndarray]]:
        """RPC: `InferenceServer.score`, as float32[B], the step, and what else its records carry."""
        scores = self._server.score(batch)
        return scores.values, scores.step, dict(scores.carried)

    def run(self) -> None:
        """Runs until stopped.

        Raises:
            Exception: the first failure of the server or of a run loop.
        """
        parts = [("server", self._server.wait)]
        parts += [(f"run loop {index}", loop.run) for index, loop in enumerate(self._run_loops)]
        run_together(parts, self._stop)


def run_together(parts: Sequence[tuple[str, Callable[[], None]]], stop: threading.Event) -> None:
    """Runs each part in a thread until `stop`, or until one fails.

    Blocks until all have ended; each must end soon after `stop` is set.

    Args:
        parts: name and function of each.
        stop: set by the caller to end them; set here when one fails.

    Raises:
        Exception: the first failure of a part.
    """
    failures: list[BaseException] = []

    def run(part: Callable[[], None]) -> None:
        try:
            part()
        # Any failure of a part is the node's failure: kept, and raised below.
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(part,), name=name, daemon=True) for name, part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
