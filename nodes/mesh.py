"""The learner's devices as a mesh, and what lies where on it.

Two axes: over `data` the parameters are repeated, over `fsdp` they are split. A
batch is split over both: every device trains on its own examples, and gathers the
parameters from the devices of its row. Rows lie within a host, so that each host
holds a whole copy of the parameters.

A mesh of None stands for one device, which needs none of this.
"""

import atexit
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"
FSDP_AXIS = "fsdp"
AXES = (DATA_AXIS, FSDP_AXIS)
# Smaller arrays are repeated: gathering them costs more time than splitting them
# saves memory.
MIN_SPLIT_ELEMENTS = 4096

# Of arrays, or of what has their shapes.
Tree = Any


def join_hosts(coordinator: str, hosts: int, host: int) -> None:
    """Makes this process one of several that see each other's devices.

    Call it in the main thread before anything is computed. Blocks until all have
    called it, five minutes at most. A host that dies takes the others with it: by an
    error in what they exchange, or after about 100 s without a sign of life.

    Args:
        coordinator: "host:port" at which the first host listens for the others.
        hosts: their number.
        host: which one this is, from 0.

    Raises:
        RuntimeError: if the others do not come.
    """
    # The exchange between CPUs of several processes; other devices have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    on_stop = signal.getsignal(signal.SIGTERM)
    # Nothing is guessed from the environment: under Slurm JAX would take one device a task.
    # Unless it is told so, the coordinator listens on every interface, even if all are on one machine.
    bound = coordinator if coordinator.startswith("127.") else None
    jax.distributed.initialize(
        coordinator, hosts, host, cluster_detection_method="deactivate", coordinator_bind_address=bound
    )
    # JAX listens to this signal for preemptions, and nobody else would hear it any more.
    signal.signal(signal.SIGTERM, on_stop)
    atexit.register(_leave_after_an_error)


def _leave_after_an_error() -> None:
    """Ends a process that an exception has ended.

    JAX's own exit, which comes after this one, waits five minutes for the other hosts,
    and they wait for this one. So they see that it is gone, and the engine too.
    """
    if getattr(sys, "last_value", None) is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def make_mesh(fsdp: int = 1) -> Optional[Mesh]:
    """Builds the mesh of all devices of all hosts; None if it is one device.

    Args:
        fsdp: devices over which the parameters are split.

    Raises:
        ValueError: see `check_fsdp`.
    """
    check_fsdp(fsdp, jax.local_device_count(), jax.process_count(), jax.default_backend())
    # In the order of the hosts, and those of one host together.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices).reshape(-1, fsdp), AXES) if len(devices) > 1 else None


def check_fsdp(fsdp: int, local: int, hosts: int, backend: str) -> None:
    """Checks over how many devices the parameters can be split.

    Args:
        fsdp: devices over which they would be.
        local: how many each host has.
        hosts: their number.
        backend: JAX's name of the devices' kind, such as "cpu".

    Raises:
        ValueError: if `fsdp` does not divide the number of a host's devices, or is above
            1 on the CPUs of several hosts. XLA's CPU client runs exchanges that do not
            depend on each other in any order (0.6.2); where they are between other
            groups of devices, hosts wait for each other for ever: every other run did.
    """
    if local % fsdp:
        raise ValueError(f"mesh.fsdp={fsdp}: must divide the number of the learner's devices, {local} a host")
    if fsdp > 1 and hosts > 1 and backend == "cpu":
        raise ValueError(f"mesh.fsdp={fsdp}: must be 1 on the CPUs of several hosts, which may wait for ever")


def local_mesh() -> Optional[Mesh]:
    """Builds the mesh of this process's devices, all of them data parallel; None if it is one."""
    devices = jax.local_devices()
    return Mesh(np.array(devices).reshape(-1, 1), AXES) if len(devices) > 1 else None


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The first axis split over all devices: that of a batch."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def split(mesh: Mesh, tree: Tree) -> Tree:
    """How parameters, and the optimiser's moments of them, are split over `fsdp`.

    Each array along the largest axis that can be divided evenly; one with less than
    `MIN_SPLIT_ELEMENTS`, or without such an axis, is repeated.

    Returns:
        A tree of shardings.
    """
    parts = mesh.shape[FSDP_AXIS]

    def of(array: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(array.shape) if size % parts == 0]
        if parts == 1 or not axes or array.size < MIN_SPLIT_ELEMENTS:
            return replicated(mesh)
        largest = max(axes, key=lambda axis: array.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, FSDP_AXIS))

    return jax.tree.map(of, tree)


def place(mesh: Optional[Mesh], batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Starts moving a host's share of a batch to its devices; exchanges nothing between hosts.

    Args:
        mesh: of the devices.
        batch: arrays [b, ...], the same b on every host.

    Returns:
        Arrays [hosts · b, ...], each host's rows after those of the hosts before it.
    """
    if mesh is None:
        return jax.device_put(dict(batch))
    sharding = rows(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def everywhere(mesh: Optional[Mesh], tree: Tree) -> Tree:
    """Starts copying a tree of arrays to each of this process's devices.

    Args:
        mesh: of this process's devices; None: its first one.
        tree: of numpy arrays.
    """
    return jax.device_put(tree, None if mesh is None else replicated(mesh))


def by_rows(mesh: Optional[Mesh], function: Callable[[Tree, Tree], Tree]) -> Callable[[Tree, Tree], Tree]:
    """Compiles a function so that each of this process's devices applies it to rows of its own.

    Devices exchange nothing: so several threads of a process may call such functions at once, which
    exchanges between the same devices could make wait for each other for ever.

    Args:
        mesh: of this process's devices; None: its first one.
        function: of a tree of variables and one of arrays [B, ...], to a tree of arrays [R, ...].

    Returns:
        The compiled function: of variables that are `everywhere`, and numpy arrays [devices · B, ...],
        to arrays [devices · R, ...].
    """
    if mesh is None:
        return jax.jit(function)
    spec = rows(mesh).spec
    of_rows = jax.jit(
        # Models need not know of it: their scans may begin with what is the same everywhere.
        jax.shard_map(function, mesh=mesh, in_specs=(PartitionSpec(), spec), out_specs=spec, check_vma=False)
    )
    return lambda variables, arrays: of_rows(variables, jax.device_put(arrays, rows(mesh)))


def on_first_device(array: jax.Array) -> list[jax.Array]:
    """Starts copying what `by_rows` gave to this process's first device, in blocks of rows."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [jax.device_put(shard.data, shards[0].device) for shard in shards]


def fill_up(mesh: Optional[Mesh], size: int) -> int:
    """The smallest number of rows from `size` on that the devices of a mesh can share evenly."""
    devices = 1 if mesh is None else mesh.size
    return -(-size // devices) * devices


def gather(mesh: Optional[Mesh], params: Tree) -> Tree:
    """Inside a jitted function: the whole parameters on every device, for one model's update.

    Between updates a device holds only its part of them and of the optimiser's moments.
    """
    if mesh is None or mesh.shape[FSDP_AXIS] == 1:
        return params
    return jax.lax.with_sharding_constraint(params, replicated(mesh))


def scatter(mesh: Optional[Mesh], gradients: Tree) -> Tree:
    """Inside a jitted function: the gradients, split as their parameters are."""
    if mesh is None or mesh.shape[FSDP_AXIS] == 1:
        return gradients
    return jax.lax.with_sharding_constraint(gradients, split(mesh, gradients))


def micro_batches(mesh: Optional[Mesh], batches: Tree, parts: int) -> Tree:
    """Inside a jitted function: cuts arrays [B, ...] into [parts, B / parts, ...].

    Every `parts`-th example goes together: on a mesh each device then cuts its own
    rows, and nothing is exchanged.
    """

    def cut(array: jax.Array) -> jax.Array:
        found = array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)
        if mesh is None:
            return found
        return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec(None, AXES)))

    return jax.tree.map(cut, batches)


def concatenator(mesh: Optional[Mesh]) -> Callable[[list[Tree]], Tree]:
    """Builds the jitted concatenation of batches along their first axis.

    On a mesh each device joins its own rows: the examples of the result are those of
    the batches, but device by device.
    """

    def concatenate(chunks: list[Tree]) -> Tree:
        return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *chunks)

    if mesh is None:
        return jax.jit(concatenate)
    spec = rows(mesh).spec
    return jax.jit(jax.shard_map(concatenate, mesh=mesh, in_specs=(spec,), out_specs=spec))


def first_copy(mesh: Optional[Mesh], tree: Tree) -> Tree:
    """This host's first copy of parameters that are spread over the mesh.

    Nothing is copied or exchanged: the result's arrays are the shards on the host's
    first row of devices, and live as long as those do.
    """
    if mesh is None:
        return tree
    local = mesh.local_mesh
    row = Mesh(local.devices[:1], AXES)

    def of(array: jax.Array) -> jax.Array:
        shards = {shard.device: shard.data for shard in array.addressable_shards}
        sharding = NamedSharding(row, array.sharding.spec)  # type: ignore[attr-defined]
        return jax.make_array_from_single_device_arrays(
            array.shape, sharding, [shards[device] for device in row.devices.flat]
        )

    return jax.tree.map(of, tree)


def any_host(mesh: Mesh) -> Callable[[bool], jax.Array]:
    """Builds a function with which all hosts find out whether one of them says yes.

    Every host must call it equally often. It does not wait; reading its result, bool[],
    waits until all have called it.
    """
    sharding = rows(mesh)
    found = jax.jit(jnp.any, out_shardings=replicated(mesh))

    def ask(own: bool) -> jax.Array:
        said = np.full(mesh.local_mesh.size, own)
        return found(jax.make_array_from_process_local_data(sharding, said))

    return ask
