"""Algorithm 1 and 2 as one loop in one process: the oracle of the asynchronous system.

The same mathematics (`scoring`, `training`) without nodes, replay or delay: each
update scores a super-batch with the current parameters and draws its sub-batch
by Gumbel-top-k. Tests compare the program with it, and the benchmark measures
the program's overhead against it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from classact.models import registry
from classact.nodes import scoring, training
from classact.nodes.inference_server import scoring_fields
from classact.selection import losses, policies, priorities

Batch = dict[str, np.ndarray]


def train(
    policy: policies.Policy,
    task: losses.Task,
    trained: Mapping[str, training.TrainedModel],
    fixed: Mapping[str, tuple[registry.Model, Any]],
    stream: Iterator[Batch],
    *,
    batch_size: int,
    temperature: float,
    steps: int,
    seed: int,
    on_step: Callable[[int, training.TrainState, Mapping[str, jax.Array], Batch], None],
) -> training.TrainState:
    """Trains synchronously.

    Args:
        policy: the selection policy.
        task: the losses.
        trained: models to train, by name.
        fixed: model and variables by role, of those that never change.
        stream: super-batches X of B examples (of b for a policy that does not
            score).
        batch_size: b, examples of a sub-batch.
        temperature: of the softmax over the scores.
        steps: updates.
        seed: of the initial parameters and the sampling.
        on_step: called after each update with its number, the state, the metrics
            (still on the device) and the sub-batch. The state's buffers are
            donated to the next update.

    Returns:
        The final state.
    """
    models = {role: model for role, (model, _) in fixed.items()}
    for role in ("online", "reference"):
        name = scoring.published_name(policy, role)
        if role not in models and name in policy.published_models:
            models[role] = trained[name].model
    score = scoring.make_scorer(policy, task, models) if policy.scores else None
    constant = {role: jax.device_put(variables) for role, (_, variables) in fixed.items()}
    update = training.make_update(trained, task)
    state = training.init_state(trained, seed)
    rng = np.random.default_rng(seed)
    for step in range(1, steps + 1):
        batch = next(stream)
        chosen = batch
        if score is not None:
            variables = {**state.variables(), **constant}
            if policy.online == "learner":
                variables["online"] = variables["learner"]
            scores = np.asarray(score({r: variables[r] for r in models}, scoring_fields(batch)))
            indices = priorities.gumbel_top_k(scores, batch_size, temperature, rng)
            chosen = {name: array[indices] for name, array in batch.items()}
        state, metrics = update(state, scoring_fields(chosen), scoring_fields(batch))
        on_step(step, state, metrics, chosen)
    return state
