"""Traces a run's models and policies once, with the real shapes, before anything starts.

Nothing is computed. A mistake in a user's own code shows in a second here, as one
line that names it; in the nodes it would show after half a minute, and in one of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from classact import user_code
from classact.experiments.config import ConfigError, DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import learning, networks, shapes
from classact.models import registry
from classact.nodes import scoring
from classact.nodes.scoring import scoring_fields
from classact.replay import records
from classact.selection import policies


def check_models(config: ExperimentConfig, data: shapes.DataShape) -> None:
    """Traces the forward pass of each model of a user's own, as in training and as in scoring.

    Raises:
        ConfigError: naming the model and what is wrong, with the line in the user's file.
    """
    batch = _batch(data, config.batch_size)
    for field, model in _users_models(config, data):
        with user_code.reported_as(ConfigError, field):
            variables = _variables(model)
            for train in (True, False):
                outputs, _ = jax.eval_shape(_forward(model, train), variables, batch)
                _check_outputs(field, outputs, config, data)


def _users_models(config: ExperimentConfig, data: shapes.DataShape) -> Iterator[tuple[str, registry.Model]]:
    """The models of a user's own, each with the field that names it."""
    trained = networks.make_models(config, data)
    if user_code.is_name(config.learner.model):
        yield f"learner.model={config.learner.model!r}", trained["learner"]
    references = [
        own
        for own in config.data_sets.values()
        if policies.get(own.policy).reference and not own.reference.scores
    ]
    with_scorer = "online" in trained or any(not own.reference.model for own in references)
    if user_code.is_name(config.scorer.model) and with_scorer:
        yield f"scorer.model={config.scorer.model!r}", networks.scorer(config, data)
    for own in references:
        if user_code.is_name(own.reference.model):
            yield f"reference.model={own.reference.model!r}", networks.reference(config, own, data)


def _forward(model: registry.Model, train: bool) -> Any:
    def forward(variables: Any, batch: Mapping[str, Any]) -> Any:
        return model.apply(variables, batch, train=train, rng=jax.random.key(0))

    return forward


def _check_outputs(
    field: str, outputs: Mapping[str, Any], config: ExperimentConfig, data: shapes.DataShape
) -> None:
    if config.task == "contrastive":
        expected = {"image_embedding": config.contrastive.embedding_size}
    else:
        expected = {"logits": data.num_classes}
    for name, width in expected.items():
        found = outputs.get(name)
        if found is None or found.shape != (config.batch_size, width):
            gave = "nothing" if found is None else _described(found)
            raise ConfigError(f"{field}: {name!r} is {gave}, expected float32[{config.batch_size}, {width}]")


def check_scores(config: ExperimentConfig, data_set: DataSetConfig, data: shapes.DataShape) -> None:
    """Traces a data set's policy.

    Raises:
        ConfigError: naming the policy and what is wrong, with the line in the user's file.
    """
    policy = policies.get(data_set.policy)
    if not policy.scores:
        return
    models = networks.role_models(config, data_set, data)
    score = scoring.make_scorer(
        policy,
        learning.make_task(config),
        models,
        learning.online_weight(config, data_set),
        bool(data_set.reference.scores),
    )
    size = data_set.inference.batch_size
    # As an inference server pads it.
    batch = {**_batch(data, size), "valid": jax.ShapeDtypeStruct((size,), np.dtype(bool))}
    if data_set.reference.scores:
        batch[scoring.REFERENCE_LOSS] = jax.ShapeDtypeStruct((size,), np.dtype(np.float32))
    field = f"policy={data_set.policy!r}"
    try:
        variables = {role: _variables(model) for role, model in models.items()}
        found = jax.eval_shape(score, variables, batch, np.int32(0))
    # Of a user's function, which may fail in any way.
    except Exception as error:
        said = user_code.blamed(error, of_the_machine=True)
        if said is None:
            raise
        # JAX's name for it, and it says so at length.
        numpy = "Tracer" in type(error).__name__
        hint = "; a score is traced by JAX: use jax.numpy in place of numpy, if and float()" if numpy else ""
        if isinstance(error, KeyError) and data_set.reference.scores:
            hint = "; with reference.scores the reference gives its `loss` alone: name its checkpoint instead"
        raise ConfigError(f"{field}: {said}{hint}") from error
    # With a joint policy among what records carry.
    found = found["score"] if isinstance(found, dict) and policy.joint else found
    if getattr(found, "shape", None) != (size,) or not np.issubdtype(found.dtype, np.floating):
        raise ConfigError(
            f"{field}: its score is {_described(found)}, expected float32[{size}], one number an example"
        )


def _variables(model: registry.Model) -> Any:
    return jax.eval_shape(lambda: model.init(jax.random.key(0)))


def _batch(data: shapes.DataShape, size: int) -> dict[str, Any]:
    """What models and losses read of a batch, as shapes."""
    example = scoring_fields(data.examples(1))
    added = {name for name, _ in records.SCORE_FIELDS}
    return {
        name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype)
        for name, array in example.items()
        if name not in added
    }


def _described(found: Any) -> str:
    shape = getattr(found, "shape", None)
    return f"{found.dtype}{list(shape)}" if shape is not None else f"a {type(found).__name__}"
