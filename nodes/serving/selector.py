"""The learner of `classact serve`: it trains the scorer alone, and hands every sub-batch on to a trainer."""

from collections.abc import Callable, Mapping
from typing import Any

from classact.client.protocol import Values
from classact.nodes import batches, learner, training
from classact.nodes.batches import Sampled
from classact.nodes.metrics import MetricsWriter
from classact.nodes.serving import server as server_lib
from classact.nodes.serving import shelf as shelf_lib


class HandedOn:
    """Draws sub-batches as `batches.Batches` does, and puts each on the shelf before it is trained on."""

    def __init__(
        self,
        inner: learner.Drawing,
        handing: Mapping[str, Callable[[Sampled], Mapping[str, Values]]],
        shelf: shelf_lib.Shelf,
        server: server_lib.Server,
        reports: server_lib.Reports,
        metrics: MetricsWriter,
        log_every: int,
    ) -> None:
        """Draws nothing yet.

        Args:
            inner: what is drawn from.
            handing: by data set what makes of a sub-batch what trainers get.
            shelf: where that goes.
            server: gives it to trainers; not started.
            reports: of trainers.
            metrics: where to write `serve/*`.
            log_every: sub-batches between two lines of metrics.
        """
        self._inner, self._handing, self._reports = inner, handing, reports
        self.shelf, self.server = shelf, server
        self._metrics, self._log_every = metrics, log_every

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return self._inner.data_sets

    def draw(self, waited: Callable[[str, float], None] = lambda *_: None) -> batches.Drawn | None:
        """What the next update is made from, once trainers have room for it; None when stopped.

        Blocks as long as no trainer takes what there is. Errors: of `Batches.draw`, and OSError if
        the disk refuses it.
        """
        if not self.shelf.wait_for_room():
            return None
        drawn = self._inner.draw(waited)
        if drawn is not None:
            number = self.shelf.put(
                {
                    f"{name}/{field}": values
                    for name, sampled in drawn.sub_batches.items()
                    for field, values in self._handing[name](sampled).items()
                }
            )
            if (number + 1) % self._log_every == 0:
                self.write_metrics()
        return drawn

    def write_metrics(self) -> None:
        """Writes a line of `serve/*`; its step is the number of sub-batches that were handed on."""
        found = {**self.shelf.counts(), **self._reports.counts()}
        self._metrics.write(int(found["serve/handed"]), found)

    def close(self) -> None:
        """Ends the threads of what is drawn from."""
        self._inner.close()


class Selector(learner.Learner):
    """A learner whose sub-batches a trainer gets, that ends when it has got the last."""

    def __init__(
        self,
        config: learner.LearnerConfig,
        trained: Mapping[str, training.TrainedModel],
        update: Callable[..., Any],
        state: training.TrainState,
        handed_on: HandedOn,
        *others: Any,
    ) -> None:
        """Builds it; `run` starts it. Arguments as the learner's, but for what it draws from."""
        super().__init__(config, trained, update, state, handed_on, *others)
        self._steps, self._handed_on = config.steps, handed_on

    def run(self) -> None:
        """As the learner's, and then waits until trainers have taken all, or until stopped.

        Raises:
            OSError: if nothing can listen where it should, or the disk refuses a sub-batch.
        """
        handed_on = self._handed_on
        handed_on.server.start()
        try:
            super().run()
            if self.get_step() == self._steps and handed_on.shelf.end():
                handed_on.write_metrics()
                handed_on.server.say_ended(handed_on.shelf.number)
                handed_on.shelf.clear()
        finally:
            handed_on.server.stop()
