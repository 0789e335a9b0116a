"""An actor that joined an experiment, in its own process: it ends when the experiment does."""

import pathlib
import threading
import time
from collections.abc import Callable, Sequence

from classact.launch.assembly import joined_learner, joined_run
from classact.launch.assembly.inference_node import make_inference_node
from classact.launch.assembly.launchpad import lp
from classact.launch.assembly.run_loop_node import Reader, make_run_loop
from classact.launch.assembly.run_spec import RunSpec

_POLL_SECONDS = 1.0
_GREETING_SECONDS = 2.0
# How long a failed actor waits for the run's result while the learner is there. A
# server that it used may be gone because the run ends, and the result comes last.
_END_SECONDS = 30.0


def make(
    spec: RunSpec,
    data_set: str,
    name: str,
    readers: Sequence[Reader],
    learner: str,
    replays: Sequence[str],
) -> "JoinedActor":
    """Builds an actor in the main thread of its process.

    Args:
        spec: what its parts are built from, as the experiment's own.
        data_set: whose stream it reads.
        name: of its metrics.
        readers: one for each of its run loops; a single one if nothing is scored.
        learner: the learner's address.
        replays: addresses of the replay servers, in the order in which its run loops
            take turns over them.
    """
    stop = lp.stop_event()

    def run() -> None:
        if spec.config.data_sets[data_set].has_servers:
            client = joined_learner.Learner(spec.workdir, stop)
            make_inference_node(spec, data_set, name, client, replays, readers, stop).run()
        else:
            (reader,) = readers
            make_run_loop(spec, data_set, replays, None, reader, stop).run()

    return JoinedActor(run, Experiment(spec.workdir, learner), stop)


class Experiment:
    """Whether the experiment that an actor joined goes on. Asks the disk and a socket, no node."""

    def __init__(self, workdir: pathlib.Path, learner: str) -> None:
        """Takes the run directory and the learner's address."""
        self._workdir = workdir
        self._learner = learner
        self._answered = time.monotonic()
        self._answers = True

    def is_over(self) -> bool:
        """Whether the run has a result, or its learner has been gone for three minutes.

        Blocks for two seconds at most.
        """
        self._answers = joined_learner.greets(self._workdir, self._learner, _GREETING_SECONDS)
        now = time.monotonic()
        if self._answers:
            self._answered = now
        return joined_run.has_ended(self._workdir) or now - self._answered > joined_run.SILENT_SECONDS

    def watch(self, stop: threading.Event) -> None:
        """Blocks until the experiment is over, then sets `stop`; or until `stop`."""
        while not stop.wait(_POLL_SECONDS):
            if self.is_over():
                stop.set()

    def is_ending(self) -> bool:
        """Whether the experiment is over soon: within half a minute, if the learner is still there."""
        since = time.monotonic()
        pause = threading.Event()
        while not self.is_over():
            if self._answers and time.monotonic() - since > _END_SECONDS:
                return False
            pause.wait(_POLL_SECONDS)
        return True


class JoinedActor:
    """An actor with a watch on its experiment."""

    def __init__(self, run: Callable[[], None], experiment: Experiment, stop: threading.Event) -> None:
        """Builds the node.

        Args:
            run: builds the actor and runs it; ends soon after `stop` is set.
            experiment: what it joined.
            stop: ends the node; set by the node itself when the experiment is over.
        """
        self._run = run
        self._experiment = experiment
        self._stop = stop

    def run(self) -> None:
        """Runs until the experiment is over or `stop` is set.

        Raises:
            Exception: the actor's failure, up to half a minute later, unless it was the
                experiment's end that broke its connections.
        """
        from classact.nodes import inference_node

        parts = [("actor", self._run), ("experiment", lambda: self._experiment.watch(self._stop))]
        try:
            inference_node.run_together(parts, self._stop)
        # When the servers go, what is under way fails in many ways, none of which counts then.
        except Exception as error:
            if not self._experiment.is_ending():
                raise
            print(f"the experiment has ended; at last: {error!r}")
