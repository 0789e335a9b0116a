"""Checkpoints of a run, through Orbax: one item per model, one for the rest.

`<directory>/<step>/` appears whole or not at all: Orbax writes under a temporary name
and renames. What was damaged later is found on reading; `restore` then sets it aside, as
`damaged-<step>`, and takes the one before it.

Orbax is imported where it is used: it takes seconds, and most processes only
ask which step is the newest.
"""

import dataclasses
import json
import logging
import pathlib
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from classact.data.classes import Classes
from classact.selection import race

if TYPE_CHECKING:
    from classact.nodes import training

_REST = "optimizers"
# Of the wall clock, which may jump by hours; and a file system that hangs may come back.
_SAVE_SECONDS = 7 * 24 * 3600
# Where each data set's stream was, as JSON.
_CURSORS = "cursors"
# Records that were read of the tables and not yet trained on.
_READ_AHEAD = "read_ahead"
# The time of each table's race, as JSON.
_CLOCKS = "clocks"
# What was trained on, as arrays.
_SELECTED = "selected"
# What the labels mean that the models learned, as JSON; not there without a class head.
_CLASSES = "classes"


class CheckpointError(ValueError):
    """A checkpoint is missing or cannot be read."""


@dataclasses.dataclass(frozen=True)
class DataState:
    """How far the data had been used when a state was saved.

    Attributes:
        cursors: of every run loop that reported one, by data set.
        read_ahead: packed records that had left a table but were not yet trained on, or
            of which the learner keeps a window: uint8[n, bytes] by "<data set>.<table>".
        clocks: of the tables by data set and shard, see `selection.race`.
        selected: what was trained on, of `selected.Selected.state`.
    """

    cursors: Mapping[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    read_ahead: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    clocks: Mapping[str, list[race.Clock]] = dataclasses.field(default_factory=dict)
    selected: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Checkpointer:
    """Saves train states under `<directory>/<step>/`, in the background, and reads them back."""

    def __init__(self, directory: pathlib.Path, keep: int = 3, classes: Classes | None = None) -> None:
        """Opens the directory, and removes what an earlier process left unfinished there.

        Args:
            directory: made if it does not exist.
            keep: number of newest checkpoints that stay.
            classes: what the outputs of the models mean, saved with each checkpoint; None:
                they have no classes.
        """
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._directory = directory.absolute()
        self._keep = keep
        self._classes = classes
        # By default each copy of an array writes a part of it, for which this Orbax
        # needs a newer JAX than this Python has.
        handler = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
        ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)
        # Orbax leaves these where they are.
        for unfinished in self._directory.glob("*.orbax-checkpoint-tmp*") if jax.process_index() == 0 else ():
            shutil.rmtree(unfinished, ignore_errors=True)
        self._manager = self._open()

    def _open(self) -> Any:
        options = self._ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=True,
            async_options=self._ocp.AsyncOptions(timeout_secs=_SAVE_SECONDS),
        )
        return self._ocp.CheckpointManager(self._directory, options=options)

    def save(self, step: int, state: "training.TrainState", data: DataState | None = None) -> None:
        """Saves a state; blocks only while it is copied to the host, and for the save before it.

        Of several hosts that share the state every one must call it: each writes its
        part, and it blocks until all have called it.

        Raises:
            OSError, ValueError: if the disk refused this checkpoint or the one before it.
        """
        args = self._ocp.args
        items = {name: args.StandardSave(model.variables) for name, model in state.models.items()}
        items[_REST] = args.StandardSave(_rest(state))
        data = data or DataState()
        items[_CURSORS] = args.JsonSave({name: list(cursors) for name, cursors in data.cursors.items()})
        items[_CLOCKS] = args.JsonSave(
            {name: [clock.to_json() for clock in clocks] for name, clocks in data.clocks.items()}
        )
        if self._classes is not None:
            items[_CLASSES] = args.JsonSave(self._classes.as_json())
        # Orbax saves neither empty trees nor empty arrays.
        for item, arrays in ((_READ_AHEAD, data.read_ahead), (_SELECTED, data.selected)):
            filled = {name: array for name, array in arrays.items() if array.size}
            if filled:
                items[item] = args.StandardSave(filled)
        self._manager.save(step, args=args.Composite(**items))

    def restore(self, state: "training.TrainState") -> "tuple[training.TrainState, DataState] | None":
        """Reads the newest sound checkpoint; a damaged one is set aside, with a warning.

        Args:
            state: of the same models, on the devices where the restored one shall be;
                its values do not matter.

        Returns:
            The state and what it had used of the data; None if there is no checkpoint.

        Raises:
            CheckpointError: if there are checkpoints, and all are damaged or of other models.
        """
        steps = sorted(_steps(self._directory), reverse=True)
        for step in steps:
            try:
                return self._restore(step, state)
            # Orbax and TensorStore raise many kinds for damaged files; all mean the same here.
            except Exception as error:
                logging.warning("checkpoint %d cannot be restored: %s", step, _first_line(error))
                set_aside(self._directory, step)
                # It remembers the steps that it has seen.
                self._manager.close()
                self._manager = self._open()
        if steps:
            raise CheckpointError(f"none of the checkpoints {steps} in {self._directory} can be restored")
        return None

    def _restore(self, step: int, state: "training.TrainState") -> "tuple[training.TrainState, DataState]":
        args = self._ocp.args
        items = {name: args.StandardRestore(_shapes(model.variables)) for name, model in state.models.items()}
        items[_REST] = args.StandardRestore(_shapes(_rest(state)))
        items[_CURSORS] = args.JsonRestore()
        found = self._manager.restore(step, args=args.Composite(**items))
        rest = found[_REST]
        models = {
            name: dataclasses.replace(
                model,
                params=found[name]["params"],
                state=found[name]["state"],
                opt_state=jax.tree.unflatten(jax.tree.structure(model.opt_state), rest["opt_states"][name]),
            )
            for name, model in state.models.items()
        }
        restored = dataclasses.replace(
            state, step=rest["step"], rng=jax.random.wrap_key_data(rest["rng"]), models=models
        )
        folder = self._directory / str(step)
        return restored, DataState(
            found[_CURSORS] or {}, _arrays(folder / _READ_AHEAD), _clocks(folder), _arrays(folder / _SELECTED)
        )

    def kept(self) -> list[int]:
        """Steps of the checkpoints that are there, the one that is being written included."""
        return list(self._manager.all_steps())

    def wait(self) -> None:
        """Blocks until everything saved is on disk.

        Raises:
            OSError, ValueError: if the disk refused it.
        """
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does, and ends Orbax's threads."""
        self._manager.close()


def on_host(state: "training.TrainState") -> "training.TrainState":
    """Copies a state to the host, so that it can be saved when the devices hold a later one.

    Blocks until it is copied. All of it must be on devices of this process.
    """
    for array in jax.tree.leaves((state.step, state.models)):
        if isinstance(array, jax.Array):
            array.copy_to_host_async()

    def copied(array: Any) -> Any:
        # Of a CPU's memory it would be a view, and the next update writes there.
        return np.array(array) if _is_on_cpu(array) else np.asarray(array)

    rng = jax.random.wrap_key_data(jnp.array(jax.random.key_data(state.rng)))
    return dataclasses.replace(
        state, step=copied(state.step), rng=rng, models=jax.tree.map(copied, state.models)
    )


def _is_on_cpu(array: Any) -> bool:
    return not isinstance(array, jax.Array) or next(iter(array.devices())).platform == "cpu"


def _rest(state: "training.TrainState") -> dict[str, Any]:
    return {
        "step": state.step,
        "rng": jax.random.key_data(state.rng),
        "opt_states": {name: jax.tree.leaves(model.opt_state) for name, model in state.models.items()},
    }


def _shapes(tree: Any) -> Any:
    """What to restore, and on which devices."""
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding), tree
    )


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    return _load(path) if path.exists() else {}


def _clocks(folder: pathlib.Path) -> dict[str, list[race.Clock]]:
    path = folder / _CLOCKS
    found = _load_json(path) if path.exists() else {}
    return {name: [race.Clock.from_json(text) for text in clocks] for name, clocks in found.items()}


def latest_step(directory: pathlib.Path) -> int | None:
    """The step of the newest complete checkpoint, or None."""
    return max(_steps(directory), default=None)


def has_clocks(directory: pathlib.Path, step: int) -> bool:
    """Whether a checkpoint tells its tables' clocks; those of older versions were not races."""
    return (directory / str(step) / _CLOCKS).exists()


def set_aside(directory: pathlib.Path, step: int) -> None:
    """Renames a checkpoint so that nobody takes it, to `damaged-<step>`, or with a number after it."""
    number, aside = 0, directory / f"damaged-{step}"
    while aside.exists():
        number, aside = number + 1, directory / f"damaged-{step}-{number + 1}"
    # Another host may have been faster.
    if (directory / str(step)).exists():
        (directory / str(step)).rename(aside)


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
    steps = _steps(directory)
    if not steps:
        raise CheckpointError(f"no complete checkpoint in {directory}")
    path = directory.absolute() / str(max(steps)) / name
    try:
        restored = _load(path)
    # Orbax and TensorStore raise many kinds for damaged files; all mean the same here.
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} is damaged or incomplete: {_first_line(error)}") from error
    return {"params": restored["params"], "state": restored.get("state") or {}}


def load_classes(directory: pathlib.Path) -> Classes | None:
    """Reads what the models' outputs mean, of the newest checkpoint; None if it does not say.

    Args:
        directory: the run's `checkpoints` directory.
    """
    step = latest_step(directory)
    if step is None:
        return None
    try:
        return Classes.from_json(json.loads((directory / str(step) / _CLASSES / "metadata").read_text()))
    # Damaged, or of a version that did not save it: the run's config.json may still say it.
    except (OSError, ValueError, RecursionError):
        return None


def check(directory: pathlib.Path, step: int) -> None:
    """Reads a whole checkpoint, item after item, and forgets it.

    Raises:
        CheckpointError: if something in it is damaged.
    """
    folder = directory.absolute() / str(step)
    try:
        for item in sorted(path for path in folder.iterdir() if path.is_dir()):
            if item.name in (_CURSORS, _CLOCKS, _CLASSES):
                _load_json(item)
            else:
                _load(item)
    # As in `load_model`.
    except Exception as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {_first_line(error)}") from error


def _load_json(path: pathlib.Path) -> Any:
    return json.loads((path / "metadata").read_text())


def _load(path: pathlib.Path) -> Any:
    """Reads one item as numpy arrays: the devices that they were on may not be here."""
    import orbax.checkpoint as ocp

    # Without Orbax's `Checkpointer`, which warns of a file that only whole checkpoints have.
    handler = ocp.PyTreeCheckpointHandler()
    whole = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
    restored = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=whole))
    handler.close()
    return restored


def _steps(directory: pathlib.Path) -> list[int]:
    if not directory.is_dir():
        return []
    # Orbax writes under a temporary name and renames when all is on disk.
    return [int(path.name) for path in directory.iterdir() if path.name.isdigit() and path.is_dir()]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
