"""From nested dicts, as configuration files give them, to a checked `ExperimentConfig`."""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from classact.data import specs
from classact.data.augment import recipe
from classact.experiments import importable, policy_checks, serving
from classact.experiments.config import (
    NAME,
    ConfigError,
    ContrastiveConfig,
    DataSetConfig,
    EvaluationConfig,
    EvaluatorConfig,
    ExperimentConfig,
    ModelConfig,
    ReferenceConfig,
    SelectionConfig,
    require,
)
from classact.selection import policies

_DATA_SET = re.compile(r"data_sets\.[^.]+\.")
_CAPACITY = 4  # Of a replay table by default, in super-batches.
# Examples that a run loop has in its hands at once: memory and age of scores grow with them.
_LARGEST_REQUEST = 512
# The icons' vocabulary was made from the captions of these sources alone.
_ICONS = {"icons", "icon_pairs"}
_ICONS_TOKENS, _CLIP_TOKENS = 16, 77


def resolve(fields: Mapping[str, Any]) -> ExperimentConfig:
    """Builds the configuration from nested dicts, and fills in what is left open.

    Args:
        fields: every field of `experiments/base.py`.

    Raises:
        ConfigError: for a missing or unknown field or a value that cannot be run.
    """
    config: ExperimentConfig = _build(ExperimentConfig, fields, "")
    config = dataclasses.replace(
        config,
        learner=importable.model("learner", config.learner),
        scorer=importable.model("scorer", config.scorer),
    )
    grouped = config.task == "contrastive" and config.contrastive.act_loss != "dot"
    if config.data_sets:
        data_sets = {}
        for name, data_set in sorted(config.data_sets.items()):
            require(bool(NAME.fullmatch(name)), "data_sets", name, "named by a-z, 0-9 and _")
            own, of_run = data_set.selection.learning_rate_factor, config.selection.learning_rate_factor
            one = f"the run's own, selection.learning_rate_factor={of_run}: one online model learns from all"
            require(own in (1.0, of_run), f"data_sets.{name}.selection.learning_rate_factor", own, one)
            try:
                data_sets[name] = _resolve_data_set(data_set, config.task, grouped)
                policy_checks.check_one_reference(config.reference, data_sets[name])
            except ConfigError as error:
                raise ConfigError(f"data_sets.{name}.{error}") from None
        summary = _summary(data_sets)
    else:
        only = _resolve_data_set(_part(config), config.task, grouped)
        data_sets = {specs.short_name(only.train_data): only}
        summary = {field.name: getattr(only, field.name) for field in dataclasses.fields(DataSetConfig)}
    for name, data_set in data_sets.items():
        prefix = f"data_sets.{name}." if config.data_sets else ""
        _check_shares(config, prefix, data_set)
        _check_pairs(config, prefix, data_set)
    if config.serve.on:
        serving.check(config.mesh.hosts, {name: policies.get(own.policy) for name, own in data_sets.items()})
        config = dataclasses.replace(config, learner=serving.selector(config.scorer))
    evaluation = _with_evaluators(config, data_sets)
    warmup_steps = config.warmup_steps if config.warmup_steps >= 0 else config.steps // 10
    return dataclasses.replace(
        config,
        **summary,
        data_sets=data_sets,
        eval_share=config.eval_share if _measures_on_training_data(config, evaluation, data_sets) else 0.0,
        warmup_steps=warmup_steps,
        optimizer=config.optimizer.resolved(config.steps, warmup_steps),
        learner=_with_text_model("learner", config.learner, config.task),
        scorer=_with_text_model("scorer", config.scorer, config.task),
        contrastive=_with_tokenizer(config, data_sets),
        evaluation=evaluation,
    )


def _check_shares(config: ExperimentConfig, prefix: str, data_set: DataSetConfig) -> None:
    """Each host reads an equal share of every batch, and trains on it in equal parts."""
    hosts, parts = config.mesh.hosts, config.gradient_accumulation
    batches = {"batch_size": data_set.batch_size}
    if data_set.reference.super_batch:
        batches["reference.super_batch"] = data_set.reference.super_batch
        # The stream is read in whole super-batches of what is scored.
        require(
            data_set.super_batch_size % hosts == 0,
            f"{prefix}batch_size / (1 - filter_ratio)",
            data_set.super_batch_size,
            f"divisible by mesh.hosts={hosts}",
        )
    for name, size in batches.items():
        require(
            size % (hosts * parts) == 0,
            f"{prefix}{name}",
            size,
            f"divisible by mesh.hosts={hosts} times gradient_accumulation={parts}",
        )
    shards = data_set.replay.shards
    read = {"batch_size": data_set.batch_size}
    if data_set.reference.super_batch or data_set.drawn_size > data_set.batch_size:
        read["batch_size / (1 - filter_ratio)"] = data_set.super_batch_size
    for name, size in read.items():
        accepted = f"divisible by mesh.hosts={hosts} times replay.shards={shards}: each host reads of each"
        require(size % (hosts * shards) == 0, f"{prefix}{name}", size, accepted)


def _check_pairs(config: ExperimentConfig, prefix: str, data_set: DataSetConfig) -> None:
    """A pair learns from the other pairs of what goes through the device at once."""
    parts = 1 if config.in_two_passes else config.gradient_accumulation
    each = "" if parts == 1 else f" in each of the {parts} parts (gradient_accumulation)"
    require(
        config.task != "contrastive" or data_set.batch_size // parts >= 2,
        f"{prefix}batch_size",
        data_set.batch_size,
        f"at least two pairs with task='contrastive'{each}: one alone has nothing to be told from",
    )


def _part(config: ExperimentConfig) -> DataSetConfig:
    """The run's own fields of a data set."""
    return DataSetConfig(**{f.name: getattr(config, f.name) for f in dataclasses.fields(DataSetConfig)})


def _summary(data_sets: Mapping[str, DataSetConfig]) -> dict[str, Any]:
    """What the run's own fields say of several data sets."""
    every = list(data_sets.values())
    batch_size = sum(item.batch_size for item in every)
    return {
        "policy": "+".join(dict.fromkeys(item.policy for item in every)),
        "train_data": "+".join(item.train_data for item in every),
        "batch_size": batch_size,
        "filter_ratio": 1.0 - batch_size / sum(item.super_batch_size for item in every),
    }


def _resolve_data_set(config: DataSetConfig, task: str, grouped: bool) -> DataSetConfig:
    """Fills in what is left open; `grouped`: whether scores compare the examples of a request."""
    policy = policy_checks.checked_policy(config)
    policy_checks.check_joint(config, policy, task)
    reference = importable.model("reference", config.reference)
    if reference.model or task == "classification":
        reference = _with_text_model("reference", reference, task)
    config = dataclasses.replace(
        config,
        policy=policies.importable_name(config.policy),
        train_data=importable.source_spec("train_data", config.train_data),
        reference=reference,
    )
    try:
        recipe.parse(config.augment)
    except recipe.AugmentError as error:
        raise ConfigError(f"augment={config.augment!r}: {error}; expected {recipe.ACCEPTED}") from None
    if not policy.scores:
        # Nothing to filter by: every example that is read is trained on.
        config = dataclasses.replace(config, filter_ratio=0.0)
    examples = config.super_batch_size
    shards = config.replay.shards
    # What a super-batch takes: each shard's part of it, rounded up.
    room = shards * math.ceil(examples / shards)
    capacity = config.replay.capacity or _CAPACITY * room
    # While one thread beside a server writes, the other's batch is scored.
    as_nodes = config.inference.run_loops_as_nodes or not config.has_servers
    run_loops = config.inference.run_loops or (1 if as_nodes else 2)
    request = config.inference.request_size or (examples if grouped else min(examples, _LARGEST_REQUEST))
    server_batch = config.inference.batch_size or request
    super_batch = 0
    if policy.reference == "trained":
        # Whole reads of the stream make up a super-batch.
        wanted = config.reference.super_batch or 10 * config.batch_size
        super_batch = math.ceil(wanted / examples) * examples
    require(capacity >= 2 * room, "replay.capacity", capacity, f"at least two super-batches, {2 * room}")
    _check_shards(config, capacity, config.inference.servers * run_loops, bool(super_batch))
    least = f"at least one request, inference.request_size={request} (0: just that)"
    require(server_batch >= request, "inference.batch_size", server_batch, least)
    return dataclasses.replace(
        config,
        replay=dataclasses.replace(config.replay, capacity=capacity),
        inference=dataclasses.replace(
            config.inference,
            request_size=request,
            batch_size=server_batch,
            run_loops=run_loops,
            run_loops_as_nodes=as_nodes,
        ),
        reference=dataclasses.replace(reference, super_batch=super_batch),
        selection=_selection(config.selection, policy),
    )


def _selection(selection: SelectionConfig, policy: policies.Policy) -> SelectionConfig:
    if policy.online != "proxy":
        selection = dataclasses.replace(selection, learning_rate_factor=1.0)
    if not policy.joint:
        selection = dataclasses.replace(selection, chunks=SelectionConfig().chunks)
    if policy.online is None or policy.reference is None:
        # One term alone: to weigh it would be another temperature.
        return dataclasses.replace(selection, online_weight=1.0, online_weight_end=1.0)
    end = selection.online_weight_end
    return dataclasses.replace(selection, online_weight_end=selection.online_weight if end < 0 else end)


def _check_shards(config: DataSetConfig, capacity: int, run_loops: int, streamed: bool) -> None:
    """Checks that every shard gets its part of all that is written and read."""
    shards, examples = config.replay.shards, config.super_batch_size
    if shards == 1:
        return
    require(
        shards <= run_loops,
        "replay.shards",
        shards,
        f"at most {run_loops}, as many as there are run loops (inference.servers · inference.run_loops): "
        "each writes to one shard",
    )
    require(
        config.batch_size % shards == 0,
        "batch_size",
        config.batch_size,
        f"a multiple of replay.shards={shards}: a batch has equally many examples of each",
    )
    require(
        capacity % shards == 0,
        "replay.capacity",
        capacity,
        f"a multiple of replay.shards={shards}: it is that of all shards together",
    )
    streamed = streamed or policies.get(config.policy).joint
    require(
        not streamed or examples % shards == 0,
        "replay.shards",
        shards,
        f"a divisor of the {examples} examples that are read per update, batch_size / (1 − filter_ratio): "
        f"policy {config.policy!r} takes equally many of each shard's stream",
    )


def _with_text_model[Config: ModelConfig | ReferenceConfig](field: str, model: Config, task: str) -> Config:
    if task == "classification":
        require(not model.text_model, f"{field}.text_model", model.text_model, f"empty with task={task!r}")
    elif not model.text_model:
        require(
            model.model.startswith("vit_"),
            f"{field}.text_model",
            model.text_model,
            f"the name of a text tower, such as 'text_mu_6_1': {model.model} is no ViT to take its size from",
        )
        return dataclasses.replace(model, text_model=model.model.replace("vit_", "text_", 1))
    return model


def _with_tokenizer(config: ExperimentConfig, data_sets: Mapping[str, DataSetConfig]) -> ContrastiveConfig:
    """The vocabulary and the length that fit the data, where none is named."""
    own = config.contrastive
    icons = {specs.short_name(item.train_data) for item in data_sets.values()} <= _ICONS
    # A classification has none: what it records must not differ from data set to data set.
    icons = icons or config.task == "classification"
    tokenizer = own.tokenizer or ("icons" if icons else "clip")
    length = own.context_length or (_ICONS_TOKENS if tokenizer == "icons" else _CLIP_TOKENS)
    return dataclasses.replace(own, tokenizer=tokenizer, context_length=length)


def _with_evaluators(config: ExperimentConfig, data_sets: Mapping[str, DataSetConfig]) -> EvaluationConfig:
    first = next(iter(data_sets.values())).train_data
    evaluators = dict(config.evaluation.evaluators)
    if not evaluators:
        name, kind = ("test", "accuracy") if config.task == "classification" else ("retrieval", "retrieval")
        evaluators[name] = EvaluatorConfig(kind, config.eval_data)
    evaluators = {
        name: dataclasses.replace(
            item, data=importable.source_spec("eval_data", item.data or config.eval_data or first)
        )
        for name, item in evaluators.items()
    }
    return dataclasses.replace(config.evaluation, evaluators=evaluators)


def _measures_on_training_data(
    config: ExperimentConfig, evaluation: EvaluationConfig, data_sets: Mapping[str, DataSetConfig]
) -> bool:
    """Whether an evaluator's data are training data, and nobody has asked for just that by `eval_data`."""
    trained = {data_set.train_data for data_set in data_sets.values()}
    return not config.eval_data and any(item.data in trained for item in evaluation.evaluators.values())


def _build(kind: type, fields: Mapping[str, Any], prefix: str) -> Any:
    """Builds a dataclass from a dict, and the dataclasses in it."""
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{prefix.rstrip('.')}={fields!r}: must be a group of fields")
    hints = get_type_hints(kind)
    optional = {f.name for f in dataclasses.fields(kind) if _has_default(f)}
    missing = sorted(set(hints) - set(fields) - optional)
    unknown = sorted(set(fields) - set(hints))
    if unknown:
        near = difflib.get_close_matches(unknown[0], hints, n=3) or hints
        raise ConfigError(f"unknown field {prefix}{unknown[0]}: did you mean {' or '.join(near)}?")
    if missing:
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        whole = "begin with base.get_config() of classact.experiments"
        hint = "see experiments/base.py" if prefix else whole
        raise ConfigError(f"missing field {prefix}{missing[0]}{others}: {hint}")
    values = {name: _value(hints[name], value, prefix + name) for name, value in fields.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        # They name their fields as the run's own.
        data_set = _DATA_SET.match(prefix)
        raise ConfigError(f"{data_set[0] if data_set else ''}{error}") from None


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _value(hint: Any, value: Any, field: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{field}.")  # type: ignore[arg-type]
    if hint in (int, float, str, bool):
        return _scalar(hint, value, field)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{field}={value!r}: must be a group of fields")
    item = get_args(hint)[1]
    if dataclasses.is_dataclass(item):
        return {name: _build(item, entry, f"{field}.{name}.") for name, entry in value.items()}  # type: ignore[arg-type]
    return dict(value)


def _scalar(hint: type, value: Any, field: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{field}={value!r}: must be of type {hint.__name__}")
    return value
