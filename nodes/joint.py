"""Joint selection with models: who draws a sub-batch of a super-batch, here and ahead of the learner."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from classact.nodes import mesh as mesh_lib
from classact.nodes.batches import Sampled
from classact.nodes.joint_fields import PREFIX, scale_field
from classact.selection import policies
from classact.selection.joint import Embedded, JointScore

Batch = Mapping[str, np.ndarray]


class Chosen(NamedTuple):
    """A sub-batch that was chosen jointly.

    Attributes:
        batch: arrays [b, ...] by field, without what is there for the choice alone.
        measured: of the choice, by name as it comes after "selection/": `score_mean` of the sub-batch and
            `score_mean_super_batch`, of what examples are worth alone; `joint_mean`, with what
            they add to each other; `joint_own_share`, the part of the former in the latter.
    """

    batch: dict[str, np.ndarray]
    measured: dict[str, float]


class Chooser:
    """Draws sub-batches of super-batches, on this process's devices.

    Each device computes its rows of the matrix, and exchanges nothing with the others for it; the
    first one takes them all, and draws. So a thread may do this while others use the devices.
    """

    def __init__(
        self,
        policy: policies.Policy,
        loss: str,
        *,
        size: int,
        chunks: int,
        temperature: float,
        mesh: jax.sharding.Mesh | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Computes nothing yet.

        Args:
            policy: one that is joint.
            loss: ℓ_learn.
            size: b.
            chunks: n.
            temperature: of the softmax.
            mesh: this process's devices; None: its first one.
            rng: of the seeds of each draw; None: a new one.
        """
        self._score = score = JointScore(policy, loss)
        self._mesh = mesh
        self._rng = rng or np.random.default_rng()

        def draw(own: jax.Array, blocks: list[jax.Array], seed: jax.Array) -> Any:
            terms = jnp.concatenate(blocks)[: len(own)]
            return score.draw(own, terms, seed, size=size, chunks=chunks, temperature=temperature)

        # The whole matrix has its transpose; rows of it do not.
        self._terms = jax.jit(score.terms) if mesh is None else mesh_lib.by_rows(mesh, score.terms)
        self._draw = jax.jit(draw)

    def __call__(self, batch: Batch) -> Chosen:
        """Draws; blocks until the devices have done so.

        Args:
            batch: arrays [B, ...] by field, with `score`, `scored_step` and the fields of this module.
        """
        own = np.asarray(batch["score"], np.float32)
        embedded = {role: self._embedded(batch, role) for role in self._score.roles}
        if self._mesh is None:
            blocks = [self._terms(embedded)]  # type: ignore[call-arg]
        else:
            # Rows that are missing for all devices to have as many are the first ones again.
            rows = np.arange(mesh_lib.fill_up(self._mesh, len(own)), dtype=np.int32) % len(own)
            terms = self._terms(mesh_lib.everywhere(self._mesh, embedded), rows)
            blocks = mesh_lib.on_first_device(terms)
        drawn = jax.device_get(self._draw(own, blocks, np.uint32(self._rng.integers(2**32))))
        rows = drawn.rows
        chosen = {name: array[rows] for name, array in batch.items() if not name.startswith(PREFIX)}
        return Chosen(chosen, _measured(own, drawn.own, drawn.added))

    def _embedded(self, batch: Batch, role: str) -> Embedded:
        both = batch[PREFIX + role]
        # Of records of several ages the similarities are those of the newest parameters.
        newest = int(np.argmax(batch["scored_step"]))
        scale, bias = np.asarray(batch[scale_field(role)][newest])
        # Records lie among each other, and are no arrays that a device takes as they are.
        image, text = (np.ascontiguousarray(both[:, place]) for place in range(2))
        return Embedded(image, text, np.asarray(scale), np.asarray(bias))


class JointTransfer:
    """Chooses a sub-batch of each super-batch of a table and moves it, in the thread that reads it.

    Images are made of the chosen alone.
    """

    def __init__(self, choose: Callable[[Batch], Chosen], transfer: Callable[[Batch], Sampled]) -> None:
        """Takes what chooses, such as a `Chooser`, and what moves a batch."""
        self._choose = choose
        self._transfer = transfer

    def __call__(self, batch: Batch) -> Sampled:
        """Blocks as both do; raises what moving raises."""
        chosen = self._choose(batch)
        return self._transfer(chosen.batch)._replace(measured=chosen.measured)


def _measured(all_own: np.ndarray, own: np.ndarray, added: np.ndarray) -> dict[str, float]:
    parts = np.abs(own).sum(), np.abs(added).sum()
    whole = float(sum(parts))
    finite = all_own[np.isfinite(all_own)]
    return {
        "score_mean": float(own.mean()),
        "score_mean_super_batch": float(finite.mean()) if finite.size else 0.0,
        "joint_mean": float((own + added).mean()),
        "joint_own_share": float(parts[0]) / whole if whole else 1.0,
    }
