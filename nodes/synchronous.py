"""Algorithm 1 and 2 as one loop in one process: the oracle of the asynchronous system.

The same mathematics (`scoring`, `training`) without nodes, replay or delay: each
update scores a super-batch of each data set with the current parameters and draws
its sub-batch by Gumbel-top-k. Tests compare the program with it, and the benchmark
measures the program's overhead against it.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from classact.models import registry
from classact.nodes import divergence, joint, scoring, starting, training
from classact.nodes.batches import device_fields
from classact.nodes.errors import DivergedError
from classact.nodes.scoring import scoring_fields
from classact.selection import losses, policies, race
from classact.selection.contrastive import Contrastive
from classact.selection.weighting import OnlineWeight

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One of the data sets to train on.

    Attributes:
        policy: its selection policy.
        stream: super-batches X of B examples (of b for a policy that does not
            score).
        batch_size: b, examples of a sub-batch.
        temperature: of the softmax over the scores.
        fixed: model and variables by role, of those that never change.
        max_nonfinite_share: share of the scores so far that may be NaN or infinite; such
            examples are not drawn.
        online_weight: α of a score with two terms; None: 1.
        reference_losses: gives the reference's losses of ids, see `scoring.request`; None: a
            model does.
        chunks: of a sub-batch that is chosen jointly.
    """

    policy: policies.Policy
    stream: Iterator[Batch]
    batch_size: int
    temperature: float
    fixed: Mapping[str, tuple[registry.Model, Any]] = dataclasses.field(default_factory=dict)
    max_nonfinite_share: float = 0.01
    online_weight: OnlineWeight | None = None
    reference_losses: Callable[[np.ndarray], np.ndarray] | None = None
    chunks: int = 16


def train(
    data_sets: Mapping[str, DataSet],
    task: losses.Task,
    trained: Mapping[str, training.TrainedModel],
    *,
    steps: int,
    seed: int,
    accumulation: int = 1,
    whole_loss: bool = False,
    start: Mapping[str, Mapping[str, Any]] | None = None,
    on_step: Callable[
        [int, training.TrainState, Mapping[str, jax.Array], Mapping[str, Batch]], None
    ] = lambda *_: None,
    on_scored: Callable[[int, str, Batch, np.ndarray], None] = lambda *_: None,
) -> training.TrainState:
    """Trains synchronously.

    Args:
        data_sets: by name.
        task: the losses.
        trained: models to train, by name.
        steps: updates.
        seed: of the initial parameters and the sampling.
        accumulation: micro-batches of a batch, see `training.make_update`.
        whole_loss: whether the loss is of the whole batch, see there.
        start: weights that models start from, see `starting.start_from`; None: random ones.
        on_step: called after each update with its number, the state, the metrics
            (still on the device; of sub-batches that were chosen jointly also `selection/...` of
            `joint.Chosen`) and the sub-batches. The state's buffers are donated to the next update.
        on_scored: called before it, for each data set whose policy scores, with the number of
            updates made, the data set's name, its super-batch and the scores float32[B].

    Returns:
        The final state, which is finite.

    Raises:
        DivergedError: if a loss, the scores or the final state are not finite, as the nodes do.
    """
    rng = np.random.default_rng(seed)
    select = {name: _selector(name, item, task, trained, rng, on_scored) for name, item in data_sets.items()}
    update = training.make_update(trained, task, accumulation=accumulation, whole_loss=whole_loss)
    state = starting.start_from(training.init_state(trained, seed), start or {})
    in_flight: collections.deque[tuple[int, training.Metrics]] = collections.deque()
    for step in range(1, steps + 1):
        read = {name: next(item.stream) for name, item in data_sets.items()}
        found = {name: select[name](step - 1, state, batch) for name, batch in read.items()}
        chosen = {name: item.batch for name, item in found.items()}
        state, metrics = update(
            state,
            {name: device_fields(batch) for name, batch in chosen.items()},
            {name: scoring_fields(batch) for name, batch in read.items()},
        )
        in_flight.append((step, metrics))
        # One update behind: the device always has work while the host waits.
        if len(in_flight) > 1:
            divergence.checked_metrics(*in_flight.popleft())
        if step == steps:
            divergence.checked_metrics(*in_flight.popleft())
            divergence.check_state(step, state)
        on_step(step, state, {**metrics, **_measured(found)}, chosen)
    return state


def _measured(found: Mapping[str, joint.Chosen]) -> dict[str, Any]:
    """Of all data sets on average, and of each if there are several."""
    metrics: dict[str, Any] = {}
    values = collections.defaultdict(list)
    for data_set, item in found.items():
        for name, value in item.measured.items():
            values[f"selection/{name}"].append(value)
            if len(found) > 1:
                metrics[f"selection/{data_set}/{name}"] = value
    return metrics | {name: float(np.mean(every)) for name, every in values.items()}


def _selector(
    name: str,
    data_set: DataSet,
    task: losses.Task,
    trained: Mapping[str, training.TrainedModel],
    rng: np.random.Generator,
    on_scored: Callable[[int, str, Batch, np.ndarray], None],
) -> Callable[[int, training.TrainState, Batch], joint.Chosen]:
    """Builds the function that draws a sub-batch from a super-batch, after so many updates."""
    policy = data_set.policy
    if not policy.scores:
        return lambda step, state, batch: joint.Chosen(batch, {})
    models = {role: model for role, (model, _) in data_set.fixed.items()}
    for role in ("online", "reference"):
        published = scoring.published_name(policy, role)
        if role not in models and published in policy.published_models:
            models[role] = trained[published].model
    losses_of = data_set.reference_losses
    score = scoring.make_scorer(policy, task, models, data_set.online_weight, losses_of is not None)
    fixed = {role: jax.device_put(variables) for role, (_, variables) in data_set.fixed.items()}

    draw = _drawer(data_set, task, rng)
    examples = nonfinite = 0

    def select(step: int, state: training.TrainState, batch: Batch) -> joint.Chosen:
        nonlocal examples, nonfinite
        variables = {**state.variables(), **fixed}
        if policy.online == "learner":
            variables["online"] = variables["learner"]
        needed = {role: variables[role] for role in models}
        scored = score(needed, scoring.request(batch, losses_of), state.step)
        fields = {name: np.asarray(array) for name, array in _by_field(scored).items()}
        scores = fields["score"]
        usable = np.flatnonzero(np.isfinite(scores))
        unusable = len(scores) - len(usable)
        examples, nonfinite = examples + len(scores), nonfinite + unusable
        if unusable:
            divergence.check_scores(step, nonfinite, examples, data_set.max_nonfinite_share)
            if len(usable) < data_set.batch_size:
                why = f"{unusable} of the {len(scores)} scores of a super-batch are NaN or infinite"
                raise DivergedError(step, f"{why}, too many to draw {data_set.batch_size} from it")
        on_scored(step, name, batch, scores)
        return draw({name: array[usable] for name, array in {**batch, **fields}.items()}, step)

    return select


def _by_field(scored: Any) -> Mapping[str, jax.Array]:
    return scored if isinstance(scored, dict) else {"score": scored}


def _drawer(
    data_set: DataSet, task: losses.Task, rng: np.random.Generator
) -> Callable[[Batch, int], joint.Chosen]:
    """Builds the function that draws among examples with finite scores, after so many updates."""
    size, temperature = data_set.batch_size, data_set.temperature
    if not data_set.policy.joint:

        def draw(batch: Batch, step: int) -> joint.Chosen:
            del step
            drawn = race.gumbel_top_k(batch["score"], size, temperature, rng)
            return joint.Chosen({name: array[drawn] for name, array in batch.items()}, {})

        return draw
    if not isinstance(task, Contrastive):
        raise ValueError(f"policy {data_set.policy.name!r} is joint: it compares the embeddings of pairs")
    choose = joint.Chooser(
        data_set.policy, task.learn, size=size, chunks=data_set.chunks, temperature=temperature, rng=rng
    )
    # All are of the parameters that this update begins with.
    return lambda batch, step: choose({**batch, "scored_step": np.full(len(batch["id"]), step)})
