"""What a run has computed, from its tallies, and that a plan says the same beforehand."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from on_digits import only, resolved

from classact.experiments import base, resolution
from classact.experiments.planning import plan
from classact.launch.assembly import gpu_split
from classact.launch.assembly.parts import costs, evaluators, planned, sources
from classact.models import cost, transformer
from classact.nodes import checkpoints, tally
from classact.selection import policies
from classact.selection.joint import Embedded, JointScore

SMALL = dict(learner__model="vit_mu_2_1", steps=10, batch_size=8)


@pytest.fixture
def reference(tmp_path):
    """A reference's run that says what it has cost."""
    run = tmp_path / "reference"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(resolved(batch_size=4).to_dict()))
    (run / "result.json").write_text(json.dumps({"status": "completed", "ledger": {"total_macs": 5e9}}))
    return run


def account(config, data, workdir, steps=None):
    return costs.account(config, dict.fromkeys(config.data_sets, data), workdir, steps or config.steps, {})


def learner_of(config, data):
    return costs.of_run(config, data)["learner"]


@pytest.mark.parametrize(
    ("policy", "remat"),
    [
        ("easy_reference", False),
        ("classact", True),
        ("learnability", False),
        ("classact_online", False),
        ("hard_learner", False),
    ],
)
def test_a_plan_says_what_the_ledger_will(digits, reference, tmp_path, policy, remat):
    """To the digit, of a run that scores no more than it needs, as a synchronous one."""
    fixed = policy not in ("classact_online", "hard_learner")
    changes = {"reference__checkpoint": str(reference)} if fixed else {}
    config = resolved(policy=policy, learner__options={"remat": remat}, **SMALL, **changes)
    setting = planned.make_setting(config, dict.fromkeys(config.data_sets, digits))
    found = account(config, digits, tmp_path)["ledger"]
    assert plan.predicted_ledger(setting) == found
    assert (found["learner_update_macs"] > 3 * found["learner_forward_macs"]) is remat
    assert found["reference_pretraining_macs"] == (5e9 if fixed else 0)


def vit_macs(size, side, patch, channels=1, classes=10):
    """By hand: patches, per block four products of the width, two of the MLP, two of attention; the head."""
    patches = (side // patch) ** 2
    tokens, width = patches + 1, size.width
    block = tokens * (4 * width**2 + 2 * width * size.mlp) + 2 * tokens**2 * width
    return patches * patch**2 * channels * width + size.depth * block + width * classes


@pytest.mark.parametrize("policy", ["classact", "classact_online"])
def test_each_model_counts_by_its_own_size(digits, reference, tmp_path, policy):
    """A learner at 8×8, scorers that look at 4×4 pixels, a reference of another size and patch size."""
    own = {"scorer__image_size": 4, "scorer__patch_size": 2, "reference__model": "vit_mu_2_1"}
    own |= {"reference__patch_size": 2}
    if policy == "classact":
        own["reference__checkpoint"] = str(reference)
        recorded = json.loads((reference / "config.json").read_text())
        recorded |= {"learner": {"model": "vit_mu_2_1", "patch_size": 2}}
        (reference / "config.json").write_text(json.dumps(recorded))
    config = resolved(policy=policy, **SMALL, **own)
    mu_1_1, mu_2_1 = transformer.SIZES["mu_1_1"], transformer.SIZES["mu_2_1"]
    # Resized by two products of matrices: rows from 8 to 4, then columns.
    scorer = vit_macs(mu_1_1, 4, 2) + 4 * 8 * 8 + 4 * 4 * 8
    learner, other = vit_macs(mu_2_1, 8, 4), vit_macs(mu_2_1, 8, 2)
    found = account(config, digits, tmp_path)["ledger"]
    forward = [found[f"{role}_forward_macs"] for role in ("learner", "scorer", "reference")]
    assert forward == [learner, scorer, other]
    # 10 updates of 8 examples, chosen from 16; Algorithm 2's reference learns from 80.
    assert found["learner_training_macs"] == 80 * 3 * learner
    assert found["online_training_macs"] == 80 * 3 * scorer
    assert found["reference_training_macs"] == (800 * 3 * other if policy == "classact_online" else 0)
    assert found["scoring_macs"] == 160 * (scorer + other)
    assert found["reference_pretraining_macs"] == (5e9 if policy == "classact" else 0)
    data = dict.fromkeys(config.data_sets, digits)
    setting = planned.make_setting(config, data)
    assert plan.predicted_ledger(setting) == found
    assert setting.reference_of(setting.data_sets[0]).forward_macs == other
    work = gpu_split.work_of(config, digits)
    assert 10 * work.scoring == found["scoring_macs"]
    assert 10 * work.training == sum(
        found[f"{role}_training_macs"] for role in ("learner", "online", "reference")
    )


def test_servers_count_what_they_computed(digits, reference, tmp_path):
    config = resolved(policy="classact", reference__checkpoint=str(reference), **SMALL)
    (name,) = config.data_sets
    for node, of, examples, slots in (
        ("inference-a-0", name, 100, 128),
        ("inference-a-0", name, 50, 64),
        ("inference-joined-x-0", name, 7, 16),
        ("inference-b-0", "another", 999, 999),
    ):
        tally.Tally(tmp_path, node, kind="scoring", data_set=of).add(examples=examples, slots=slots)
    found = account(config, digits, tmp_path)
    scored = found["counts"]["examples"]
    assert scored["online"]["scored"] == scored["reference"]["scored"] == 157
    scorer = found["ledger"]["scorer_forward_macs"]
    assert found["ledger"]["scoring_macs"] == 157 * 2 * scorer
    assert found["ledger"]["padding_macs"] == (208 - 157) * 2 * scorer


def test_updates_that_were_made_twice_are_told(digits, tmp_path):
    config = resolved(**SMALL)
    for first, last in ((0, 7), (5, 9), (8, 10)):
        counts = tally.Tally(tmp_path, "learner", kind="training")
        for step in range(first + 1, last + 1):
            counts.add({"step": step}, updates=1)
    found = account(config, digits, tmp_path)
    assert found["counts"]["updates_redone"] == 7 + 4 + 2 - 10
    assert found["ledger"]["redone_macs"] == 3 * 8 * found["ledger"]["learner_update_macs"]
    # A run that is going on has made all of them once.
    assert account(config, digits, tmp_path, steps=9)["counts"]["updates_redone"] == 3


def test_a_run_of_an_earlier_version_counts_its_inserts(digits, reference, tmp_path):
    config = resolved(policy="classact", reference__checkpoint=str(reference), **SMALL)
    data = dict.fromkeys(config.data_sets, digits)
    for inserts, scored in ((300, 300), (50, 160)):
        found = costs.account(config, data, tmp_path, 10, {"replay/inserts": inserts})
        assert found["counts"]["examples"]["online"]["scored"] == scored


def test_a_reference_s_cost_is_stated_or_read_or_counted(digits, reference, saved_run):
    def paid(**changes):
        config = resolved(policy="classact", reference__checkpoint=str(reference), **SMALL, **changes)
        return costs.pretraining_macs(config, only(config), digits)

    assert paid() == 5e9
    assert (paid(reference__pretraining_macs=0.0), paid(reference__pretraining_macs=7e12)) == (0, 7e12)
    # Its checkpoint alone was copied: its updates until then.
    (reference / "result.json").unlink()
    chosen = resolved(batch_size=4)
    shutil.copytree(saved_run / "checkpoints" / "1", reference / "checkpoints" / "3")
    assert paid() == 3 * 4 * 3 * learner_of(chosen, digits).forward
    config = resolved()
    assert costs.pretraining_macs(config, only(config), digits) == 0


def test_two_data_sets_pay_for_one_reference_once(digits, reference, tmp_path):
    fields = base.get_config()
    fields.patch_size, fields.learner.model, fields.scorer.model = 4, "vit_mu_2_1", "vit_mu_1_1"
    fields.train_data, fields.reference.checkpoint = "digits", str(reference)
    fields.data_sets = {name: base.data_set(fields) for name in ("a", "b")}
    config = resolution.resolve(fields.to_dict())
    found = account(config, digits, tmp_path)
    assert found["reference_pretraining"] == {str(reference): 5e9}
    assert found["ledger"]["reference_pretraining_macs"] == 5e9
    setting = planned.make_setting(config, dict.fromkeys(config.data_sets, digits))
    assert plan.predicted_ledger(setting) == found["ledger"]


@pytest.mark.parametrize(
    ("kind", "images", "texts"), [("accuracy", 5, 0), ("retrieval", 3, 4), ("zero_shot", 5, 6)]
)
def test_evaluations_count_what_went_through_the_model(tmp_path, kind, images, texts):
    counts = tally.Tally(tmp_path, "evaluator-test", kind="evaluation")
    values = {"images": 3.0, "pairs": 4.0} if kind == "retrieval" else {}
    read = []

    def measure(variables):
        read.extend((2, 3))
        return values

    counted = evaluators._counted(measure, read, 6 if kind == "zero_shot" else 0, counts, devices=4)
    for _ in range(2):
        assert counted(None) == values
    (found,) = tally.read(tmp_path)
    assert (found["evaluations"], found["images"], found["texts"]) == (2, 2 * images, 2 * texts)
    # `costs.device_seconds` multiplies by them.
    assert found["devices"] == 4


def test_an_evaluator_counts_its_data_set(digits, tmp_path, saved_run):
    config = resolved(steps=10, batch_size=8)
    (name,) = config.evaluation.evaluators
    counts = tally.Tally(tmp_path, f"evaluator-{name}", kind="evaluation")
    measure = evaluators.in_run(config, name, dict.fromkeys(config.data_sets, digits), counts)
    measure(checkpoints.load_model(saved_run / "checkpoints"))
    held = sources.open_eval_source(config, config.evaluation.evaluators[name]).num_examples
    found = account(config, digits, tmp_path)
    assert found["counts"]["evaluations"] == 1
    assert found["counts"]["examples"]["learner"]["evaluated_images"] == held
    assert found["ledger"]["evaluation_macs"] == held * learner_of(config, digits).forward


def test_accelerators_are_busy_as_long_as_they_say(tmp_path):
    def put(node, platform, **what):
        path = tmp_path / tally.FOLDER / f"{node}.0.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"platform": platform, **what}))

    put("inference-a-0", "gpu", kind="scoring", busy_seconds=3.0, devices=2)
    put("inference-a-1", "gpu", kind="scoring", busy_seconds=1.0)
    put("evaluator-test", "cpu", kind="evaluation", busy_seconds=9.0)
    put("learner", "gpu", kind="training", devices=4, updates=20, step=20)
    (tmp_path / "metrics").mkdir()
    lines = [{"step": step, "train/step_seconds": 0.5} for step in (10, 20, 10)]
    (tmp_path / "metrics" / "learner.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # What was undone was computed too.
    assert costs.device_seconds(tmp_path) == {"inference": 7.0, "learner": 6.0}
    put("learner", "cpu", kind="training", updates=20, step=20)
    assert costs.device_seconds(tmp_path) == {"inference": 7.0}


def test_the_similarities_of_a_joint_choice_are_counted_and_carried():
    changes = {"task": "contrastive", "patch_size": 8, "learner__model": "vit_mu_1_1", "batch_size": 8}
    plain, config = (resolved(policy=policy, **changes) for policy in ("hard_learner", "jest_hard"))
    data, wide = (next(iter(planned.stated_shapes(one, (32, 32, 3), 0).values())) for one in (plain, config))
    (own,) = config.data_sets.values()
    width = config.contrastive.embedding_size
    embedded = {"online": Embedded(*np.zeros((2, 16, width), np.float16), np.float32(1), np.float32(0))}
    counted = cost.count_macs(JointScore(policies.get("jest_hard"), "infonce").terms, embedded)
    assert costs.joint_macs(config, own, wide) == counted == 16 * 16 * width
    assert costs.joint_macs(plain, *plain.data_sets.values(), data) == 0
    # Two embeddings of two bytes a number, a scale and a bias.
    assert wide.sent_bytes - data.sent_bytes == wide.codec.num_bytes - data.codec.num_bytes == 4 * width + 8
    assert wide.example_bytes == data.example_bytes


def test_costs_of_two_towers_are_those_of_each():
    config = resolved(
        task="contrastive", train_data="icon_pairs", patch_size=8, learner__model="vit_mu_2_1",
        scorer__model="vit_mu_1_1",
    )  # fmt: skip
    data = planned.stated_shapes(config, (32, 32, 3), 0)[next(iter(config.data_sets))]
    found = learner_of(config, data)
    assert found.image > 0 and found.text > 0 and found.image + found.text == found.forward
    assert found.update == 3 * found.forward
    assert dataclasses.replace(found, recomputed=5).update == found.update + 5
    # Of all pairs' negatives in parts: the outputs of each part twice.
    texts = dataclasses.replace(config.contrastive, negatives="batch")
    cut = dataclasses.replace(config, contrastive=texts, gradient_accumulation=4)
    assert learner_of(cut, data).update == 4 * found.forward
    # In one piece there is nothing to compute twice.
    assert not dataclasses.replace(cut, gradient_accumulation=1).in_two_passes
