"""How texts are read, by what another run's `config.json` says."""

import pytest

from classact.experiments import base, resolution, run_config
from classact.experiments.config import ConfigError


@pytest.fixture(scope="module")
def ours():
    return resolution.resolve(base.get_config().to_dict() | {"policy": "uniform"}).contrastive


def test_texts_are_read_as_there(ours):
    said = {"tokenizer": "hf:there", "context_length": 9, "embedding_size": 7, "causal": False}
    found = run_config.texts_of({"task": "contrastive", "contrastive": said}, ours, "reference")
    assert {name: getattr(found, name) for name in said} == said
    assert (found.loss, found.templates) == (ours.loss, ours.templates)
    # What is of another type is damaged; a classification reads none.
    damaged = {"task": "contrastive", "contrastive": {**said, "context_length": "9", "causal": 0}}
    assert run_config.texts_of(damaged, ours, "reference").context_length == ours.context_length
    assert run_config.texts_of({"contrastive": said}, ours, "reference").tokenizer == ours.tokenizer


def test_a_file_does_not_say_which_code_runs(ours):
    theirs = {"task": "contrastive", "contrastive": {"tokenizer": "trap:make"}}
    with pytest.raises(ConfigError, match=r"its tokenizer is trap:make, but nothing here names this code"):
        run_config.texts_of(theirs, ours, "reference")


def test_a_tokenizer_that_nobody_knows_is_asked_for(ours):
    theirs = {"task": "contrastive", "contrastive": {"tokenizer": ""}}
    with pytest.raises(ConfigError, match=r"does not say its tokenizer: name it, by \?tokenizer=SPEC"):
        run_config.texts_of(theirs, ours, "reference")
