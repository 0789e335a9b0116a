"""An inference server's examples per second against a bare jitted forward pass.

Both score the demo's data with the demo's models (the online and the reference
model, with fixed parameters), at the same batch size, in the same process, with
one compute thread. They take turns, so that a change of the machine's speed meets
each of them:

- bare: a loop that calls the jitted function on batches that lie ready;
- null writer: the server, fed by its two run loops, which read a real stream and
  throw the scored examples away;
- replay: the same with the real writer, into a Reverb server in another process,
  from which a third one takes what the learner would take.

The first two compare the server; the third adds what the run loops do beside it,
and on a machine with few cores also the other processes' share of them: the CPU
time of the inference process per example tells the two apart.

Command:
    python benchmarks/inference_server.py
"""

import argparse
import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import figures
import numpy as np
import replay_client
import replay_server
from figures import Figure

from classact.launch.engines import resources

_TARGET = 0.8
_RUN_LOOPS = 2
# Of the learner, whose parameters score.
_STEP = np.int32(0)
# A rate is taken over the time between the first and the last batch of a window.
Rates = dict[str, list[tuple[float, float]]]


class _NullWriter:
    """A replay that forgets."""

    def write(self, batch: Mapping[str, Any], priorities: Any, keep: Any) -> int:
        """Returns the number of kept examples."""
        del batch
        return len(priorities(np.flatnonzero(keep)))

    def close(self) -> None:
        """Nothing to close."""


class _Counter:
    """Counts the examples that pass through a score function, from any thread."""

    def __init__(self, score: Callable[[Any], Any]) -> None:
        self._score = score
        self._lock = threading.Lock()
        self.examples = 0

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        scores = self._score(batch)
        with self._lock:
            self.examples += len(scores.values)
        return scores


def measure(options: argparse.Namespace) -> list[Figure]:
    """Measures; see the module's docstring."""
    # Read by XLA when JAX starts, so nothing above may import it.
    os.environ.update(resources.thread_limits(1))
    seconds, rounds = (1.5, 1) if options.quick else (options.seconds, options.rounds)
    setting = _Setting(options)
    rates: Rates = {"bare": [], "null writer": [], "replay": []}
    for _ in range(rounds):
        rates["bare"].append(setting.bare(seconds))
        rates["null writer"].append(setting.served(lambda stop, index: _NullWriter(), seconds))
        with setting.replay() as make_writer:
            rates["replay"].append(setting.served(make_writer, seconds))
    return _figures(rates, setting.batch_size)


def _figures(rates: Rates, batch_size: int) -> list[Figure]:
    speed = {name: statistics.median(rate for rate, _ in some) for name, some in rates.items()}
    cpu = {name: statistics.median(used for _, used in some) for name, some in rates.items()}
    found = [
        Figure(
            "inference server, null writer / bare", speed["null writer"] / speed["bare"], "", None, _TARGET
        ),
        Figure("inference server, replay / bare", speed["replay"] / speed["bare"], "", None, _TARGET),
    ]
    for name in rates:
        found.append(Figure(f"  {name}, batch {batch_size}", speed[name], "examples/s"))
        found.append(Figure("    CPU of its process", 1e6 * cpu[name], "us/example"))
    return found


class _Setting:
    """Data, models and the jitted score function; shared by all variants."""

    def __init__(self, options: argparse.Namespace) -> None:
        import jax

        from classact.data import stream
        from classact.experiments import resolution
        from classact.experiments.configs import demo
        from classact.launch.assembly.parts import learning, networks, shapes, sources
        from classact.nodes import scoring
        from classact.nodes.scoring import scoring_fields
        from classact.selection import policies

        fields = demo.get_config("classact")
        fields.train_data = options.train_data or fields.train_data
        fields.patch_size = options.patch_size or fields.patch_size
        self._config = resolution.resolve(fields.to_dict())
        (own,) = self._config.data_sets.values()
        self._source = sources.open_train_source(self._config, own)
        self._data = shapes.data_shape(self._config, self._source)
        models = networks.role_models(self._config, own, self._data)
        self._variables = {role: model.init(jax.random.key(0)) for role, model in models.items()}
        policy = policies.get(self._config.policy)
        self._score = scoring.make_scorer(policy, learning.make_task(self._config), models)
        self.batch_size = self._config.inference.batch_size
        batches = stream.IIDStream(self._source, self.batch_size, seed=0)
        self._ready = [scoring_fields(next(batches)) for _ in range(16)]

    def bare(self, seconds: float) -> tuple[float, float]:
        """Returns examples/s and CPU-seconds per example of the function alone."""
        np.asarray(self._score(self._variables, self._ready[0], _STEP))
        examples = 0
        started, used = time.monotonic(), time.process_time()
        while time.monotonic() - started < seconds:
            for batch in self._ready:
                examples += len(np.asarray(self._score(self._variables, batch, _STEP)))
        elapsed, used = time.monotonic() - started, time.process_time() - used
        return examples / elapsed, used / examples

    def served(
        self, make_writer: Callable[[threading.Event, int], Any], seconds: float
    ) -> tuple[float, float]:
        """Returns the same of a server with its run loops, once it is under way."""
        from classact.data import stream
        from classact.nodes import inference_node, inference_server, run_loop

        config, stop = self._config, threading.Event()
        server = inference_server.InferenceServer(
            self._score,
            self._variables,
            None,
            {},
            self.batch_size,
            stop,
            None,
            config.inference.max_wait_seconds,
        )
        count = _Counter(server.score)
        loops = [
            run_loop.RunLoop(
                stream.IIDStream(self._source, config.inference.request_size, 0, index, _RUN_LOOPS),
                count,
                make_writer(stop, index),
                config.temperature,
                stop,
            )
            for index in range(_RUN_LOOPS)
        ]
        node = inference_node.InferenceNode(server, loops, stop)
        thread = threading.Thread(target=node.run, name="inference node", daemon=True)
        thread.start()
        # One window to get under way: the replay's tables fill.
        stop.wait(seconds / 2)
        examples, started, used = count.examples, time.monotonic(), time.process_time()
        stop.wait(seconds)
        examples = count.examples - examples
        elapsed, used = time.monotonic() - started, time.process_time() - used
        failed = stop.is_set()
        stop.set()
        thread.join()
        if failed or not examples:
            raise RuntimeError(f"the inference node ended early or scored nothing ({examples} examples)")
        return examples / elapsed, used / examples

    @contextlib.contextmanager
    def replay(self) -> Iterator[Callable[[threading.Event, int], Any]]:
        """A Reverb server and its reader in other processes; gives writers to it."""
        from classact.replay import config as table_config
        from classact.replay import tables, writer

        config, codec = self._config, self._data.codec
        own = table_config.TableConfig(config.batch_size, 1.0 - config.filter_ratio, config.replay.capacity)
        with replay_server.serving(tables.make_tables(own, codec.num_bytes)) as served:
            side = self._data.image_shape[0]
            load = replay_client.Load(
                [served.address], table_config.EXAMPLES_TABLE, side, batch_size=own.batch_size
            )
            with replay_server.running(replay_server.client("read", load)):
                yield lambda stop, index: writer.ReplayWriter(served.address, codec, own.table_names, stop)


def parser() -> argparse.ArgumentParser:
    """The benchmark's own options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--train-data", default="", help="source; default: the demo's")
    made.add_argument("--patch-size", type=int, default=0, help="default: the demo's")
    made.add_argument("--seconds", type=float, default=8.0, help="length of a window")
    made.add_argument("--rounds", type=int, default=3, help="windows of each kind, taken in turns")
    return made


if __name__ == "__main__":
    figures.run("inference_server", parser(), measure)
