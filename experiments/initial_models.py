"""`learner.model=init`: a model that is what the weights are of that it starts from."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from classact import user_code
from classact.experiments import run_config
from classact.experiments.config import ConfigError, ExperimentConfig, ModelConfig, require

# What weights of two towers say of how texts are read.
OF_TEXTS = ("tokenizer", "context_length", "embedding_size", "causal")


def filled_in(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration with what `learner.init` and `scorer.init` are of, where `model` is "init".

    What else the configuration says of such a model must agree; its options are added. In a contrastive
    task the tokenizer, the texts' length and the common space are those of the weights. Reads what is
    named; blocks for as long as that takes.

    Raises:
        ConfigError: if it cannot be read, or does not agree.
    """
    changes: dict[str, Any] = {}
    contrastive = config.contrastive
    for role in ("learner", "scorer"):
        own: ModelConfig = getattr(config, role)
        if own.model != run_config.INIT:
            continue
        require(bool(own.init), f"{role}.init", own.init, f"what to start from, with {role}.model='init'")
        field = f"{role}.init={own.init!r}"
        theirs = run_config.read_config(own.init, field, "weights to start from are those of a run")
        changes[role] = _filled_in(role, field, own, theirs, config.task)
        if config.task == "contrastive" == theirs.get("task"):
            found = run_config.texts_of(theirs, config.contrastive, field)
            if "contrastive" in changes and found != contrastive:
                raise ConfigError(f"{field}: its texts are read otherwise than those of learner.init")
            changes["contrastive"] = contrastive = found
    return dataclasses.replace(config, **changes)


def _filled_in(role: str, field: str, own: ModelConfig, theirs: Mapping[str, Any], task: str) -> ModelConfig:
    found = run_config.learner_of(theirs, field)
    if user_code.is_name(found.model):
        # A file that somebody else may have written must not say which code runs here.
        raise ConfigError(f"{field}: it holds a {found.model}: name this code by --config.{role}.model")
    options = run_config.of_parameters(found.options)
    other_task = theirs.get("task", "classification") != task
    if other_task or (task == "classification" and not options.get("head", True)):
        options = {name: value for name, value in options.items() if name not in run_config.HEAD}
    texts: dict[str, Any] = (
        {} if other_task else {"text_model": found.text_model, "text_options": dict(found.text_options)}
    )
    values: dict[str, Any] = {
        "model": found.model,
        "patch_size": found.patch_size,
        "interpolation": own.interpolation or found.interpolation,
        # Of a run that looked at images as they were it is theirs; the positions are for that.
        "image_size": own.image_size or found.image_size,
        "options": {**options, **own.options},
        **texts,
    }
    for name in ("patch_size", "text_model"):
        said = getattr(own, name)
        known = values.get(name, said)
        accepted = f"empty with {role}.model='init': it is {known}"
        require(said in ("", 0, known), f"{role}.{name}", said, accepted)
    if own.text_options:
        values["text_options"] = {**values.get("text_options", {}), **own.text_options}
    return dataclasses.replace(own, **values)
