"""`classact plan`: what it prints for a configuration, and that its measurements are of the real parts."""

import json
import math
import pathlib

import pytest
from absl import flags
from on_digits import resolved

from classact import environments
from classact.experiments.planning import plan
from classact.launch.assembly import measured
from classact.launch.assembly.parts import planned
from classact.launch.assembly.parts.first_lines import FirstLines
from classact.launch.commands import cli, measuring
from classact.replay.compression import Compressor

pytestmark = pytest.mark.usefixtures("clean_flags")  # They are one per process.
CONFIGS = pathlib.Path(cli.__file__).parents[2] / "experiments" / "configs"
DIGITS = ("--config.train_data=digits", "--config.patch_size=4", "--config.learner.model=vit_mu_2_1")
SIZES = (
    "--config.learner.model=vit_b", "--config.scorer.model=vit_ti", "--config.patch_size=16",
    "--image=224x224x3",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """A network's operations take seconds to count, and are the same in all plans of this module."""
    counted, count = {}, planned._network

    def once(model, config, data):
        sizes = data.image_shape, data.num_classes, data.vocab_size, config.contrastive.context_length
        key = repr((model, config.task, config.patch_size, sizes))
        if key not in counted:
            counted[key] = count(model, config, data)
        return counted[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(planned, "_network", once)
        yield


@pytest.fixture
def no_alternatives(monkeypatch):
    """Each takes a second to count."""
    monkeypatch.setattr(planned, "alternatives", lambda *_: [])


def run(*arguments, config="classification.py"):
    before = set(flags.FLAGS)
    try:
        return cli.main(["classact", "plan", f"--config={CONFIGS / config}", *arguments])
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)


def values(capsys, *arguments, **options):
    assert run("--json", *arguments, **options) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys, *arguments, **options):
    assert run(*arguments, **options) == 0
    return capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")


def cells(text, name):
    """What the line of that name says, column by column."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{name}  ")]
    return [cell.strip() for cell in line.strip().removeprefix(name).split("  ") if cell.strip()]


@pytest.mark.parametrize(
    ("policy", "speedup", "by_paper", "with_online"),
    [
        ("rho", 0.0, "−78.6 %", "−78.6 %"),
        ("classact", 0.18, "+3.1 %", "−2.8 %"),
        ("classact_online", 0.17, "+2.0 %", "−4.0 %"),
    ],
)
@pytest.mark.usefixtures("no_alternatives")
def test_table_1_is_printed(capsys, policy, speedup, by_paper, with_online):
    held_out = ("--config.held_out=0.5", "--config.train_split=rest") if policy == "rho" else ()
    text = printed(capsys, *SIZES, f"--config.policy={policy}", f"--speedup={speedup}", *held_out)
    assert cells(text, plan.PAPER)[-1] == by_paper
    assert cells(text, plan.WITH_ONLINE)[-1] == with_online


def test_a_setting_that_does_not_pay_and_what_mends_it(capsys, tmp_path, monkeypatch):
    """The demonstration as it was: with everything counted it lost, and a smaller scorer mended it."""
    monkeypatch.chdir(tmp_path)
    before = ("--config.learner.model=vit_mu_6_1", "--config.steps=1000", "--speedup=0.582")
    large, small = "--config.scorer.model=vit_mu_2_1", "--config.scorer.model=vit_mu_1_1"
    text = printed(capsys, *before, large, config="demo.py")
    # The program got +2.3 and −12.8 %: it also scores a few examples ahead.
    assert cells(text, plan.PAPER)[-1] == "+2.3 %" and cells(text, plan.FULL)[-1] == "−12.7 %"
    assert "It does not pay with 58.2 % fewer updates (--speedup)" in text
    assert f"  {small}: from 45.3 % fewer on" in text
    assert "the reference of icons is not trained yet; counted are 1,000 updates of 64" in text
    assert list(tmp_path.iterdir()) == []
    mended = printed(capsys, *before, small, config="demo.py")
    assert "It pays, everything counted, if it needs 58.2 % fewer updates" in mended


def test_a_policy_of_ones_own_and_several_data_sets(capsys, users_place):
    (users_place / "my_policies.py").write_text(
        "from classact.selection import policies\n"
        "@policies.register_policy('margin', online='proxy')\n"
        "def margin(online, reference):\n"
        "    return online['loss']\n"
    )
    found = values(capsys, *DIGITS, "--config.policy=my_policies:margin")
    assert found["setting"]["data_sets"][0]["policy"] == "margin"
    assert found["ledger"]["reference_pretraining_macs"] == 0 < found["ledger"]["online_training_macs"]


@pytest.mark.usefixtures("no_alternatives")
def test_a_contrastive_run_on_several_data_sets(capsys):
    found = values(capsys, "--step-seconds=0.5", config="image_text_sets.py")
    names = [item["name"] for item in found["setting"]["data_sets"]]
    assert names == ["curated", "labelled", "noisy"]
    scored = [
        item["super_batch_size"] for item in found["setting"]["data_sets"] if item["policy"] == "classact"
    ]
    assert found["needs"]["scored"] == sum(scored) / 0.5


@pytest.mark.usefixtures("no_alternatives")
def test_the_same_numbers_as_json(capsys):
    small = ("--config.policy=classact", "--config.scorer.model=vit_mu_1_1")
    found = values(capsys, *DIGITS, *small, "--speedup=0.3", "--reference-runs=5")
    assert [item["name"] for item in found["countings"]][-2] == f"{plan.FULL}, 1/5 of the reference"
    for item in found["countings"]:
        at = (1 - item["break_even"]) * item["update_macs"] * item["uniform_steps"] + item["once_macs"]
        assert math.isclose(at, item["uniform_macs"])
    assert found["ledger"]["total_macs"] > 0 and found["measured"] == {}


@pytest.mark.usefixtures("no_alternatives")
def test_steps_of_the_uniform_run_and_of_the_reference(capsys):
    def once(*more):
        found = values(capsys, *DIGITS, "--config.policy=easy_reference", "--config.steps=100", *more)
        return found["ledger"]["reference_pretraining_macs"], found["countings"][0]["uniform_steps"]

    cost, steps = once()
    assert steps == 100
    assert once("--uniform-steps=300") == (3 * cost, 300)
    assert once("--reference-steps=50") == (cost / 2, 100)
    assert once("--config.reference.pretraining_macs=0") == (0, 100)


def test_uniform_has_nothing_to_plan(capsys):
    assert "nothing to plan" in printed(capsys, *DIGITS)


def test_what_would_cost_less_is_named_even_if_it_does_not_pay(capsys):
    rho = ("--config.policy=rho", "--config.held_out=0.5", "--config.train_split=rest")
    text = printed(capsys, *DIGITS, *rho, "--speedup=0.01")
    assert "Nor does it with a smaller scorer" in text and "needs least" in text
    text = printed(capsys, *DIGITS, *rho, "--config.learner.model=vit_mu_6_2", "--speedup=0.4")
    assert "  --config.policy=classact_ho: from" in text


@pytest.fixture(scope="module")
def classact():
    config = resolved(policy="classact", reference__checkpoint=planned.UNTRAINED, batch_size=16)
    return config, planned.opened_shapes(config, FirstLines())


def test_each_part_is_measured_by_itself(classact):
    config, data = classact
    assert 0 < measured.learner(config, data, 0.1) < 10
    assert measured.scorings(config, data, 0.1) > 1
    assert measured.reads(config, data, 0.1) > 100
    environments.replay_python()
    assert measured.inserts(config, data, 0.5) > 100


@pytest.mark.parametrize(
    ("images", "sent", "packed"), [("pixels", 12_312, 12_312), ("encoded", 3_112, 12_328), ("ids", 36, 36)]
)
def test_what_the_replay_carries_is_planned_and_measured(images, sent, packed):
    config = resolved(policy="hard_learner", replay__images=images)
    data = planned.stated_shapes(config, (64, 64, 3), 10)
    (item,) = planned.make_setting(config, data).data_sets
    assert (item.record_bytes, item.packed_bytes, item.example_bytes) == (sent, packed, 12_312)
    assert item.decodes_again == (images != "pixels")
    # What an insert is measured with, is such a record.
    (shape,) = data.values()
    rows = shape.codec.pack(measured._records(shape, 4, images))
    contents = Compressor("snappy", shape.codec.num_bytes)(rows)[1]
    assert sum(map(len, contents)) / 4 == pytest.approx(sent, rel=0.2, abs=20)


def test_what_was_measured_takes_the_place_of_what_is_usual(capsys, monkeypatch):
    rates = {"step_seconds": 0.25, "scorings": 100.0, "reads": 1e6, "inserts": 1e6}
    asked = []

    def measure(config, seconds):
        asked.append((config.policy, seconds))
        return rates

    monkeypatch.setattr(measuring, "measure", measure)
    arguments = (*DIGITS, "--config.policy=classact", "--measure", "--measure-seconds=2")
    found = values(capsys, *arguments)
    assert asked == [("classact", 2.0)] and found["measured"] == rates
    # 128 examples in a quarter of a second.
    assert (found["needs"]["step_seconds"], found["needs"]["servers"]) == (0.25, 6)
    text = printed(capsys, *arguments)
    assert "measured on this machine" in text
    assert "scoring gives 19.5 % of what the learner could take" in text


def test_a_part_in_a_process_of_its_own(classact):
    rate = measuring._measured(classact[0], "reads", "run_loop", 0.1)
    assert rate > 100


def test_a_part_that_cannot_be_measured_is_named(classact):
    with pytest.raises(measuring.MeasureError, match=r"--measure: nothing cannot be measured: KeyError"):
        measuring._measured(classact[0], "nothing", "learner", 0.1)
