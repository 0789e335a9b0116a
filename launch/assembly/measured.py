"""How fast each part of a run is on this machine, alone: for `classact plan --measure`.

Each function works for about so many seconds, after what it needs to begin (compiling, opening
data, starting a server), and writes nothing but into a temporary directory of its own.
"""

import itertools
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from classact import environments
from classact.data import shard_stream
from classact.data.carried.kinds import EPOCH, FILE
from classact.data.carried.sealing import Sealer
from classact.data.decoding import pool
from classact.experiments.config import DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import learning, networks, shapes, sources
from classact.nodes import batches as batches_lib
from classact.nodes import mesh as mesh_lib
from classact.nodes import scoring, training
from classact.replay import dataset, server_process, tables, writer
from classact.replay.config import EXAMPLES_TABLE, TableConfig
from classact.selection import policies, race

_NEXT_SECONDS = 1.0

Batch = dict[str, np.ndarray]


def learner(config: ExperimentConfig, data: Mapping[str, shapes.DataShape], seconds: float) -> float:
    """Seconds of an update of all models that the learner trains, with this process's devices."""
    trained = learning.trained_models(config, next(iter(data.values())))
    mesh = mesh_lib.make_mesh(config.mesh.fsdp)
    update = learning.make_update(config, trained, mesh)
    state = training.init_state(trained, config.seed, mesh)

    def placed(name: str, size: int) -> Mapping[str, jax.Array]:
        return batches_lib.to_device(_examples(data[name], size), mesh).batch

    sets = config.data_sets.items()
    sub = {name: placed(name, own.batch_size) for name, own in sets}
    whole = {name: placed(name, own.reference.super_batch) for name, own in sets if own.reference.super_batch}

    def step() -> None:
        nonlocal state
        state, metrics = update(state, sub, whole)
        jax.block_until_ready(metrics)

    return 1 / _per_second(step, seconds)


def scorings(config: ExperimentConfig, data: Mapping[str, shapes.DataShape], seconds: float) -> float:
    """Examples per second of one inference server's computation, of the first data set that is scored."""
    name, own = _scored(config)
    mesh = mesh_lib.local_mesh()
    policy = policies.get(own.policy)
    # The reference need not be there yet.
    models = networks.role_models(config, own, data[name], in_order=False)
    weight = learning.online_weight(config, own)
    from_file = bool(own.reference.scores)
    score = scoring.make_scorer(policy, learning.make_task(config), models, weight, from_file)
    variables = {role: jax.jit(model.init)(jax.random.key(0)) for role, model in models.items()}
    variables = mesh_lib.everywhere(mesh, jax.device_get(variables))
    devices = mesh.size if mesh is not None else 1
    size = -(-own.inference.batch_size // devices) * devices
    fields = batches_lib.device_fields(_examples(data[name], size))
    batch = {**fields, "valid": np.ones(size, bool)}
    if from_file:
        batch[scoring.REFERENCE_LOSS] = np.zeros(size, np.float32)

    def answer() -> None:
        jax.device_get(score(variables, mesh_lib.place(mesh, batch), np.int32(0)))

    return size * _per_second(answer, seconds)


def reads(config: ExperimentConfig, data: Mapping[str, shapes.DataShape], seconds: float) -> float:
    """Examples per second that one run loop reads, decodes and turns into tokens, of the slowest data set.

    Raises:
        source.DataError: if data cannot be read.
    """
    found = []
    for name, own in config.data_sets.items():
        opened = sources.open_train_source(config, own, known=data[name].classes)
        # What is planned is counted in processors.
        pool.use_threads(1)
        size = min(own.inference.request_size, opened.num_examples)
        examples = shard_stream.make_stream(opened, size, config.seed)
        found.append(size * _per_second(examples.__next__, seconds / len(config.data_sets)))
    return min(found)


def inserts(config: ExperimentConfig, data: Mapping[str, shapes.DataShape], seconds: float) -> float:
    """Inserts per second of one replay server, with a writer and a reader in this process.

    Raises:
        EnvironmentMissingError: if there is no Python with Reverb.
        ReplayServerError: if the server does not begin.
    """
    name, own = _scored(config)
    codec = data[name].codec
    table = TableConfig(
        batch_size=own.drawn_size,
        samples_per_insert=own.drawn_size / own.super_batch_size,
        capacity=4 * own.super_batch_size,
    )
    batch = _records(data[name], own.super_batch_size, own.carried)
    keep, weights = np.ones(own.super_batch_size, bool), np.zeros(own.super_batch_size)
    clock, rng, stop = race.Clock((0.0,)), np.random.default_rng(0), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        socket = pathlib.Path(folder) / "socket"
        made = tables.make_tables(table, codec.num_bytes)
        spec = server_process.ServerSpec(made, socket, pathlib.Path(folder) / "tables")
        with server_process.ServerProcess(
            server_process.command(spec, environments.replay_python())
        ) as process:
            process.wait_ready()
            address = f"unix:{socket}"
            reading = threading.Thread(target=_read, args=(address, codec, own.drawn_size, stop), daemon=True)
            reading.start()
            out = writer.ReplayWriter(
                address, codec, (EXAMPLES_TABLE,), stop, compression=own.replay.compression
            )

            def insert() -> None:
                out.write(batch, lambda rows: clock.keys(weights[rows], rng), keep)

            rate = own.super_batch_size * _per_second(insert, seconds)
            stop.set()
            out.close()
            reading.join(timeout=10.0)
    return rate


def _read(address: str, codec: object, batch_size: int, stop: threading.Event) -> None:
    """Takes what the rate limiter gives, until `stop`."""
    source = dataset.ReplayDataset([address], EXAMPLES_TABLE, codec, batch_size, stop)  # type: ignore[arg-type]
    while not stop.is_set():
        try:
            source.next(_NEXT_SECONDS)
        except dataset.ReplayTimeoutError:
            continue
    source.close()


def _scored(config: ExperimentConfig) -> tuple[str, DataSetConfig]:
    return next((name, own) for name, own in config.data_sets.items() if policies.get(own.policy).scores)


def _examples(data: shapes.DataShape, size: int) -> Batch:
    """Examples of a data set's shapes; random pixels, label 0 and empty texts."""
    examples = data.examples(size)
    rng = np.random.default_rng(0)
    return {**examples, "image": rng.integers(0, 256, examples["image"].shape, np.uint8)}


def _records(data: shapes.DataShape, size: int, images: str) -> Batch:
    """Such examples as the replay carries them, with files of the average size."""
    rng = np.random.default_rng(0)
    examples = _examples(data, size)
    unsent = data.codec.num_bytes - round(data.sent_bytes)
    file = rng.bytes(max(0, examples["image"][0].nbytes - unsent))
    files = np.full(size, file, object)
    return Sealer(images)({**examples, FILE: files, EPOCH: np.zeros(size, np.int64)})


def _per_second(work: Callable[[], object], seconds: float) -> float:
    """How often something is done in a second, after three times to begin with."""
    for _ in range(3):
        work()
    began = time.monotonic()
    for number in itertools.count(1):
        work()
        elapsed = time.monotonic() - began
        if elapsed >= seconds:
            return number / elapsed
    raise AssertionError("unreachable")
