"""α, the weight of the online model's loss in a score: α · ℓ_act(x; online) − ℓ_act(x; reference)."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class OnlineWeight:
    """α by the learner's step, linear from the first step to the last.

    1 is the paper's learnability (Eq. 5), 0 easy reference (Eq. 3). Less than 1 keeps
    the order of what the reference finds easy, and takes away only part of what the online
    model knows by now.

    Attributes:
        begin: α at step 0.
        end: α at step `steps`.
        steps: updates of the run.
    """

    begin: float = 1.0
    end: float = 1.0
    steps: int = 1

    @property
    def is_one(self) -> bool:
        """Whether the score is the paper's, unweighted."""
        return self.begin == self.end == 1.0

    def at(self, step: jax.Array) -> jax.Array:
        """α at a step.

        Args:
            step: int32[], the learner's step whose parameters score; below 0 it counts as 0.

        Returns:
            float32[].
        """
        done = jnp.clip(step.astype(jnp.float32) / jnp.float32(self.steps), 0.0, 1.0)
        return jnp.float32(self.begin) + jnp.float32(self.end - self.begin) * done
