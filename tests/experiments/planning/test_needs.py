"""`docs/scaling.md` comes out of the code, and the sums grow as they must."""

import dataclasses
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.experiments.planning import needs, plan
from classact.experiments.planning.plan_text import about, with_unit
from classact.models import cost, registry
from classact.selection import policies

PAGE = (pathlib.Path(needs.__file__).parents[2] / "docs" / "scaling.md").read_text()
IMAGE = (224, 224, 3)


def network(name):
    model = registry.create(name, num_classes=1000, image_shape=IMAGE)
    forward = cost.forward_cost(model, IMAGE)
    return plan.Network(name, forward.macs, 3 * forward.macs, forward.parameters)


@pytest.fixture(scope="module")
def case():
    """The page's own."""
    item = plan.DataSetPlan(
        "images", policies.get("classact"), 16_384, 32_768,
        record_bytes=150_528, capacity=4 * 32_768, shards=16, servers=8, run_loops=16,
    )  # fmt: skip
    return plan.Setting(1000, 1000, network("vit_l"), network("vit_ti"), (item,))


def row(name):
    """The cells of the page's row of that name."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    return line.replace("*", "")


def test_the_page_has_what_the_code_says(case):
    found = needs.needs(case, 0.2)
    assert f"{with_unit(found.replay_in, 'B/s')}" in row("into the replay")
    assert f"{with_unit(found.replay_out, 'B/s')}" in row("out of the replay")
    assert f"{about(found.trained)} images/s" in row("trained on")
    assert f"about {about(found.learner_accelerators)} accelerators" in " ".join(PAGE.split())
    petaflops = found.update_flops / 1e15
    assert f"{about(petaflops)} PFLOP. In 0.2 s that is {about(petaflops / 0.2)} PFLOP/s" in PAGE
    assert f"{about(found.replay_cores)} cores" in row("replay, processors")
    assert f"{found.replay_hosts} hosts" in row("replay, network")
    assert f"{about(found.replay_bytes / 1e9)} GB" in row("replay, memory")
    assert re.search(rf"\b{found.shards} for the tables' sake; {found.shards_spread},", row("replay, shards"))
    assert f"{about(found.run_loop_cores)} cores" in row("run loops")
    low, high = map(about, found.decode_cores)
    assert f"{low} to {high} cores" in row("decoding JPEG")
    assert f"{found.servers} servers" in row("inference servers")
    assert f"{about(found.server_out / 1e9)} GB/s each" in row("inference, network")
    readers = row("the learner's readers")
    assert f"{about(found.reader_cores)} cores" in readers
    assert f"{about(found.host_in / 1e9)} GB/s into each of {found.learner_hosts} hosts" in readers
    assert f"{about(found.questions)} questions/s" in row("clocks of the tables")
    assert f"{about(found.question_cores)} of a core" in row("clocks of the tables")
    assert f"{about(found.parameters_out / 1e9)} GB/s" in row("parameters")
    assert f"a ViT-Ti is {about(found.parameter_bytes / 1e6)} MB" in row("parameters")
    assert about(found.parameter_cores) == "0.46" and "half a core" in PAGE
    assert f"mesh.hosts={found.learner_hosts}" in PAGE


@given(st.floats(1e-3, 10), st.floats(1.1, 10))
def test_a_quicker_learner_needs_so_much_more(case, seconds, factor):
    slow, quick = needs.needs(case, seconds * factor), needs.needs(case, seconds)
    for name in ("trained", "scored", "replay_in", "replay_cores", "learner_accelerators", "questions"):
        assert getattr(quick, name) == pytest.approx(factor * getattr(slow, name))
    for name in ("servers", "replay_hosts", "shards", "learner_hosts"):
        assert getattr(quick, name) >= getattr(slow, name) >= 1
    assert quick.replay_bytes == slow.replay_bytes


def test_an_insert_costs_what_was_measured_and_between_that():
    assert [needs.insert_seconds("writer", size) for size in (3_072, 150_528)] == [17e-6, 125e-6]
    assert 17e-6 < needs.insert_seconds("writer", 50_000) < 125e-6


def test_what_is_measured_takes_the_place_of_the_page_s_figures(case):
    rates = needs.Rates(scorings=10_000.0, reads=500.0, inserts=1_000.0)
    found = needs.needs(case, 1.0, rates)
    assert (found.servers, found.shards) == (4, 33)
    assert found.decode_cores == (pytest.approx(32_768 / 500),) * 2
    shares = needs.share_of_learner(case, 1.0, rates)
    assert shares == {
        "scoring": pytest.approx(8 * 10_000 / 32_768),
        "reading": pytest.approx(16 * 500 / 32_768),
        "replay": pytest.approx(16 * 1_000 / 32_768),
    }
    assert needs.share_of_learner(case, 1.0, needs.Rates()) == {}


def test_a_reference_that_is_trained_reads_the_stream_and_is_followed(case):
    (item,) = case.data_sets
    online = dataclasses.replace(
        item, policy=policies.get("classact_online"), reference_super_batch=10 * 16_384
    )
    found = needs.needs(dataclasses.replace(case, data_sets=(online,)), 0.2)
    plain = needs.needs(case, 0.2)
    assert found.replay_out == pytest.approx(3 * plain.replay_out)
    assert found.parameter_bytes == 2 * plain.parameter_bytes
    reference = 2 * case.scorer.update_macs * 10 * 16_384
    assert found.update_flops == pytest.approx(plain.update_flops + reference)


def test_a_joint_choice_takes_all_out_of_the_replay_and_opens_the_chosen(case):
    (item,) = case.data_sets
    item = dataclasses.replace(item, decodes_again=True)
    joint = dataclasses.replace(item, policy=policies.get("jest_proxy"), joint_macs=1e9)
    plain, found = (needs.needs(dataclasses.replace(case, data_sets=(one,)), 0.2) for one in (item, joint))
    assert found.replay_out == pytest.approx(2 * plain.replay_out)
    assert found.learner_decode_cores == plain.learner_decode_cores
    assert found.update_flops == pytest.approx(plain.update_flops + 2e9)


def test_a_fixed_reference_alone_follows_nothing(case):
    (item,) = case.data_sets
    easy = dataclasses.replace(
        case, data_sets=(dataclasses.replace(item, policy=policies.get("easy_reference")),)
    )
    assert needs.needs(easy, 0.2).parameters_out == 0


def test_without_pixels_the_replay_moves_less_and_the_learner_decodes(case):
    (item,) = case.data_sets
    ids = dataclasses.replace(item, record_bytes=48, example_bytes=item.record_bytes, decodes_again=True)
    found, pixels = needs.needs(dataclasses.replace(case, data_sets=(ids,)), 0.2), needs.needs(case, 0.2)
    for name in ("replay_in", "replay_out", "replay_bytes", "host_in"):
        assert getattr(found, name) == pytest.approx(getattr(pixels, name) * 48 / item.record_bytes)
    assert found.server_out == pixels.server_out
    # Half of what is scored is trained on.
    assert found.learner_decode_cores == pytest.approx([cores / 2 for cores in pixels.decode_cores])
    assert pixels.learner_decode_cores == (0, 0)
    # Of a file the zeros behind it are handled by all but the server.
    file = dataclasses.replace(ids, packed_bytes=item.record_bytes)
    found = needs.needs(dataclasses.replace(case, data_sets=(file,)), 0.2)
    assert (found.run_loop_cores, found.reader_cores) == (pixels.run_loop_cores, pixels.reader_cores)
    assert found.replay_cores < pixels.replay_cores / 4


def test_no_time_at_all(case):
    with pytest.raises(ValueError, match="step_seconds=0"):
        needs.needs(case, 0.0)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (281.2, "280"), (6827, "6,800"), (0.3523, "0.35"), (9.96, "10"), (4.0, "4")],
)
def test_two_digits(number, text):
    assert about(number) == text
