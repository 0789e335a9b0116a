"""Checkpoints of a run, through Orbax: one item per model, one for the rest.

Orbax is imported where it is used: it takes seconds, and most processes only
ask which step is the newest.
"""

import pathlib
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from classact.nodes import training

_REST = "optimizers"


class CheckpointError(ValueError):
    """A checkpoint is missing or cannot be read."""


class Checkpointer:
    """Saves train states under `<directory>/<step>/`, in the background."""

    def __init__(self, directory: pathlib.Path, keep: int = 3) -> None:
        """Opens the directory.

        Args:
            directory: made if it does not exist.
            keep: number of newest checkpoints that stay.
        """
        import orbax.checkpoint as ocp

        self._ocp = ocp
        # By default each copy of an array writes a part of it, for which this Orbax
        # needs a newer JAX than this Python has.
        handler = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
        ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: "training.TrainState") -> None:
        """Saves a state; blocks only while it is copied to the host.

        Of several hosts that share the state every one must call it: each writes its
        part, and it blocks until all have called it.
        """
        args = self._ocp.args
        items = {name: args.StandardSave(model.variables) for name, model in state.models.items()}
        rest = {
            "step": state.step,
            "rng": jax.random.key_data(state.rng),
            "opt_states": {name: jax.tree.leaves(model.opt_state) for name, model in state.models.items()},
        }
        self._manager.save(step, args=args.Composite(**items, **{_REST: args.StandardSave(rest)}))

    def wait(self) -> None:
        """Blocks until everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does, and ends Orbax's threads."""
        self._manager.close()


def latest_step(directory: pathlib.Path) -> int | None:
    """The step of the newest complete checkpoint, or None."""
    return max(_steps(directory), default=None)


def load_model(directory: pathlib.Path, name: str = "learner") -> dict[str, Any]:
    """Reads one model's variables from the newest checkpoint.

    Args:
        directory: the run's `checkpoints` directory.
        name: "learner", "online" or "reference".

    Returns:
        `{"params", "state"}` of numpy arrays.

    Raises:
        CheckpointError: if there is none or it is damaged.
    """
    import orbax.checkpoint as ocp

    steps = _steps(directory)
    if not steps:
        raise CheckpointError(f"no complete checkpoint in {directory}")
    path = directory.absolute() / str(max(steps)) / name
    try:
        # Without Orbax's `Checkpointer`, which warns of a file that only whole checkpoints have.
        handler = ocp.PyTreeCheckpointHandler()
        # As numpy: the devices that the arrays were on may not be here.
        whole = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
        restored = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=whole))
        handler.close()
    # Orbax and TensorStore raise many kinds for damaged files; all mean the same here.
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} is damaged or incomplete: {_first_line(error)}") from error
    return {"params": restored["params"], "state": restored.get("state") or {}}


def _steps(directory: pathlib.Path) -> list[int]:
    if not directory.is_dir():
        return []
    # Orbax writes under a temporary name and renames when all is on disk.
    return [int(path.name) for path in directory.iterdir() if path.name.isdigit() and path.is_dir()]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
