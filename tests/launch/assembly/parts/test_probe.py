"""A linear probe of a run, from its command to a reference."""

import json

import jax
import numpy as np
import pytest
from on_digits import only, resolved

from classact.data import source
from classact.experiments import base
from classact.launch.assembly.parts import costs, networks, references, sources
from classact.launch.commands import probe
from classact.launch.commands.arguments import UsageError
from classact.models import cost
from classact.nodes import checkpoints


def fields(**changes):
    found = base.get_config().to_dict() | {"train_data": "digits", "patch_size": 4, **changes}
    return found


@pytest.fixture(scope="module")
def probed(saved_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("probes") / "probe"
    # What the configuration says of training, selection and its own models is not used.
    own = {"learning_rate": 7.0, "augment": "flip", "policy": "classact", "eval_data": "digits"}
    assert probe.probe(fields(**own), str(saved_run), out, 1e-4, 100) == 0
    return out


def test_a_probe_is_a_reference(saved_run, probed, digits):
    chosen = resolved(policy="easy_reference", reference__checkpoint=str(probed))
    references.check_reference(chosen, only(chosen), digits)
    before = checkpoints.load_model(saved_run / "checkpoints")["params"]
    after = references.fixed_variables(chosen, only(chosen), digits)["reference"]
    # All but the head is as it was.
    for name in before.keys() - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, before[name], after["params"][name])
    model = networks.role_models(chosen, only(chosen), digits)["reference"]
    held = sources.open_eval_source(chosen, chosen.evaluation.evaluators["test"]).batch(np.arange(200))
    logits = model.apply(after, held, train=False)[0]["logits"]
    top1 = np.mean(np.argmax(logits, axis=1) == held["label"])
    # Random features of digits, fitted, tell most of them.
    assert top1 > 0.6
    result = json.loads((probed / "result.json").read_text())
    assert result["final"]["eval/test/top1"] > 0.6 and result["l2"] == 1e-4


def test_its_cost_is_a_pass_of_each_example_and_the_fits(saved_run, probed, digits):
    ledger = json.loads((probed / "result.json").read_text())["ledger"]
    chosen = resolved(policy="easy_reference", reference__checkpoint=str(probed))
    forward = cost.forward_macs(networks.reference(chosen, only(chosen), digits), digits.image_shape)
    examples = digits.num_examples
    assert ledger["features_macs"] == forward * examples
    width = checkpoints.load_model(saved_run / "checkpoints")["params"]["head"]["kernel"].shape[0]
    passes, rest = divmod(ledger["fit_macs"], 2 * width * 10 * examples)
    assert rest == 0 and 3 < passes < 600
    spent = ledger["features_macs"] + ledger["fit_macs"]
    assert ledger["total_macs"] == ledger["learner_training_macs"] == spent
    assert costs.pretraining_macs(chosen, only(chosen), digits) == spent


def test_nothing_is_written_where_something_is(saved_run, probed):
    before = sorted(path.name for path in probed.iterdir())
    with pytest.raises(UsageError, match="something is there already"):
        probe.probe(fields(), str(saved_run), probed, 1e-4, 100)
    assert sorted(path.name for path in probed.iterdir()) == before


def test_bad_data_and_weights_are_one_line(saved_run, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"learner\.init='nowhere': no run directory"):
        probe.probe(fields(), "nowhere", tmp_path / "out", 1e-4, 100)

    def broken(*_, **__):
        raise source.DataError("digits: broken")

    monkeypatch.setattr(sources, "open_train_source", broken)
    with pytest.raises(UsageError, match="digits: broken"):
        probe.probe(fields(), str(saved_run), tmp_path / "out", 1e-4, 100)
    assert not (tmp_path / "out").exists()
