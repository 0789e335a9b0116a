"""The learner's update, compiled while its state is made and its first batch is scored.

A run's first batch comes when its scorers have compiled, so the learner, which knows the
shapes of its batches, need not compile after them.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from classact.nodes import activity, batches, training
from classact.nodes import mesh as mesh_lib

Shapes = dict[str, dict[str, jax.ShapeDtypeStruct]]


def batch_shapes(
    record: Mapping[str, np.ndarray], size: int, mesh: jax.sharding.Mesh | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """What a batch of a table is on the devices.

    Args:
        record: arrays `[n, ...]` with the fields of the table.
        size: examples of a batch, of all hosts together.
        mesh: of the devices that it is on; None: one.
    """
    sharding = mesh_lib.rows(mesh) if mesh is not None else None
    return {
        name: jax.ShapeDtypeStruct(
            (size, *array.shape[1:]), jax.dtypes.canonicalize_dtype(array.dtype), sharding=sharding
        )
        for name, array in batches.device_fields(record).items()
    }


class CompiledAhead:
    """An update of `training.make_update` whose compilation begins at once, in a thread."""

    def __init__(
        self, update: Any, state: training.TrainState, sub_batches: Shapes, super_batches: Shapes
    ) -> None:
        """Begins to compile.

        Args:
            update: jitted; it takes a state, sub-batches and super-batches.
            state: shapes of what it will take, of `training.state_shapes`.
            sub_batches: shapes by data set, of `batch_shapes`.
            super_batches: likewise.
        """
        self._found: Future[Callable[..., Any]] = Future()
        self._update: Callable[..., Any] | None = None
        arguments = (update, state, sub_batches, super_batches)
        threading.Thread(target=self._compile, args=arguments, name="compile", daemon=True).start()

    def __call__(self, state: training.TrainState, sub_batches: Any, super_batches: Any) -> Any:
        """Updates; the first call waits for the compilation, however long it takes.

        Raises:
            Exception: of the first call, what the compilation raised.
        """
        if self._update is None:
            with activity.waiting("the compilation of the update"):
                self._update = self._found.result()
        return self._update(state, sub_batches, super_batches)

    def _compile(self, update: Any, state: training.TrainState, *shapes: Shapes) -> None:
        try:
            # A model of a user's is traced here, and may hang.
            with activity.part("compilation"):
                lowered = update.lower(state, *shapes)
                # It may give another type of state than it takes, too: jit then compiles anew.
                same = _types(state) == _types(lowered.out_info[0])
                self._found.set_result(lowered.compile() if same else update)
        except BaseException as error:  # Raised where the update is called.
            self._found.set_exception(error)


def _types(tree: Any) -> list[Any]:
    return [(path, leaf.shape, leaf.dtype) for path, leaf in jax.tree.leaves_with_path(tree)]
