"""A Reverb server, and readers that empty its tables, each in a process of its own.

Three processes, as in a run: a sampler in the server's own process would not go
through gRPC at all.
"""

import contextlib
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from classact.launch.engines import ports
from classact.replay.config import TableConfig

_READY_SECONDS = 180.0
_STOP_SECONDS = 30.0

# What a table holds: packed records of so many bytes, or an example whose fields
# become columns.
Schema = int | Mapping[str, np.ndarray]


class Served(NamedTuple):
    """A server that answers.

    Attributes:
        address: `host:port`.
        pid: of its process.
    """

    address: str
    pid: int


@contextlib.contextmanager
def serving(tables: Mapping[str, tuple[TableConfig, Schema]]) -> Iterator[Served]:
    """Serves tables like a run's filtering table until the block ends.

    Args:
        tables: by name, sizes and ratio, and what they hold.

    Raises:
        TimeoutError: if the server does not answer.
    """
    with ports.LoopbackPorts() as free, tempfile.TemporaryDirectory() as folder:
        port = free()
        with process_of(_serve, port, folder, dict(tables)) as pid:
            yield Served(f"{ports.LOOPBACK}:{port}", pid)


@contextlib.contextmanager
def reading(addresses: Sequence[str], tables: Mapping[str, Any], batch_size: int) -> Iterator[int]:
    """Takes batches of tables as the learner would until the block ends.

    Args:
        addresses: of the server of each shard.
        tables: name to codec: read through `ReplayDataset`; name to None: through
            Reverb's own data set, from the first shard.
        batch_size: examples of a batch, and most items in flight.

    Yields:
        The reader's process id.
    """
    with process_of(_read, list(addresses), dict(tables), batch_size) as pid:
        yield pid


@contextlib.contextmanager
def process_of(target: Callable[..., None], *arguments: Any) -> Iterator[int]:
    """Runs a function in a process of its own until the block ends; yields its process id.

    Args:
        target: called with a pipe, for `until_closed`, and the arguments.
        *arguments: can be pickled.

    Raises:
        TimeoutError: if it is not ready in time.
    """
    # Spawned: Reverb and TensorFlow must not be forked. A pipe and not an event: it
    # also tells each side that the other one has died.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        if process.pid is None or not ours.poll(_READY_SECONDS):
            raise TimeoutError(f"{target.__name__}: not ready in {_READY_SECONDS} s")
        try:
            ours.recv()
        except EOFError:
            raise RuntimeError(f"{target.__name__}: died before it was ready") from None
        yield process.pid
    finally:
        ours.close()
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def until_closed(link: Connection) -> None:
    """Tells the other side that all is ready; blocks until it closes the pipe."""
    link.send("ready")
    with contextlib.suppress(EOFError, ConnectionResetError):
        link.recv()


def _serve(
    link: Connection, port: int, folder: str, tables: Mapping[str, tuple[TableConfig, Schema]]
) -> None:
    import reverb

    checkpointer = reverb.checkpointers.DefaultCheckpointer(folder)
    made = [_table(name, config, schema) for name, (config, schema) in tables.items()]
    server = reverb.Server(made, port=port, checkpointer=checkpointer)
    reverb.Client(f"{ports.LOOPBACK}:{port}").server_info(timeout=int(_READY_SECONDS))
    until_closed(link)
    server.stop()


def _table(name: str, config: TableConfig, schema: Schema) -> Any:
    """The table that `make_tables` makes, under another name and with another signature."""
    import reverb
    import tensorflow as tf

    from classact.replay import tables

    model = tables.make_tables(config, 1)[0].info
    limiter = model.rate_limiter_info
    signature = (
        tf.TensorSpec((schema,), tf.uint8)
        if isinstance(schema, int)
        else {field: tf.TensorSpec(array.shape, array.dtype) for field, array in schema.items()}
    )
    return reverb.Table(
        name=name,
        sampler=reverb.selectors.MinHeap(),
        remover=reverb.selectors.Fifo(),
        max_size=model.max_size,
        max_times_sampled=model.max_times_sampled,
        rate_limiter=reverb.rate_limiters.RateLimiter(
            limiter.samples_per_insert, limiter.min_size_to_sample, limiter.min_diff, limiter.max_diff
        ),
        signature=signature,
    )


def _read(link: Connection, addresses: Sequence[str], tables: Mapping[str, Any], batch_size: int) -> None:
    from classact.replay import dataset

    ended = threading.Event()
    for name, codec in tables.items():
        if codec is None:
            arguments: tuple[Any, ...] = (addresses[0], name, batch_size)
            threading.Thread(target=_read_bare, args=arguments, daemon=True).start()
        else:
            source = dataset.ReplayDataset(addresses, name, codec, batch_size, ended)
            threading.Thread(target=_read_classact, args=(source, ended), daemon=True).start()
    until_closed(link)
    ended.set()
    # The bare readers' threads stand inside C++: they end with the process.
    os._exit(0)


def _read_classact(source: Any, ended: threading.Event) -> None:
    while not ended.is_set():
        # Before the writer begins, and after it has ended, nothing comes.
        with contextlib.suppress(TimeoutError):
            source.next(1.0)


def _read_bare(address: str, table: str, batch_size: int) -> None:
    import reverb

    samples = reverb.TrajectoryDataset.from_table_signature(
        address, table, max_in_flight_samples_per_worker=batch_size, num_workers_per_iterator=1
    )
    for _ in samples.map(lambda sample: sample.data).batch(batch_size).as_numpy_iterator():
        pass
