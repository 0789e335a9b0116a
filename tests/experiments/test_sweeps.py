"""Which runs a sweep makes, in which order, and what its table says of them."""

import csv
import dataclasses
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.experiments import base, curves, records, sweeps
from classact.experiments.compare import comparison
from classact.experiments.config import ConfigError

METRIC = curves.DEFAULT_METRIC


def configured(references):
    """A `get_config` whose parts are scored with those that `references` names."""

    def get_config(name):
        config = base.get_config()
        config.seed = sum(map(ord, name))
        config.reference.checkpoint = references.get(name, "")
        return config

    return get_config


@st.composite
def graphs(draw):
    """Names, and for each maybe one before it as its reference."""
    names = [f"run{index}" for index in range(draw(st.integers(1, 12)))]
    references = {}
    for index, name in enumerate(names):
        if index and draw(st.booleans()):
            references[name] = names[draw(st.integers(0, index - 1))]
    return names, references


@given(graphs(), st.randoms(use_true_random=False), st.data())
def test_what_is_left_can_be_run_in_its_order_and_is_no_more_than_needed(graph, random, data):
    names, references = graph
    asked = data.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
    random.shuffle(asked)
    found = sweeps.parts(asked, configured(references))
    done = data.draw(st.sets(st.sampled_from(names)))
    there = data.draw(st.sets(st.sampled_from(names)))
    left = [part.name for part in sweeps.undone(found, done, there)]
    have = set(there)
    for name in left:
        assert references.get(name, name) in have | {name}
        have.add(name)
    assert set(asked) <= done | set(left)
    # Each is asked for, or the reference of one that is left.
    needed = {references[name] for name in left if name in references}
    assert all(
        (name in found and name not in done) or (name in needed and name not in there) for name in left
    )
    assert len(set(left)) == len(left)


def test_a_reference_is_replaced_by_its_directory_in_every_data_set():
    config = base.get_config()
    config.policy = "uniform"
    config.data_sets = {
        "one": base.data_set(config, policy="classact", reference={"checkpoint": "teacher"}),
        "two": base.data_set(config, policy="classact", reference={"checkpoint": "elsewhere/run"}),
    }
    made = {"run": config, "teacher": base.get_config()}
    part = sweeps.parts(["run"], made.__getitem__)["run"]
    assert part.references == ("teacher",)
    placed = part.placed({"teacher": "/out/teacher"})["data_sets"]
    assert placed["one"]["reference"]["checkpoint"] == "/out/teacher"
    assert placed["two"]["reference"]["checkpoint"] == "elsewhere/run"


def test_a_run_begins_with_the_weights_of_another_of_the_sweep():
    config = base.get_config()
    config.learner.init, config.scorer.init = "first", "hf:vit"
    made = {"then": config, "first": base.get_config()}
    found = sweeps.parts(["then"], made.__getitem__)
    assert list(found) == ["first", "then"]
    placed = found["then"].placed({"first": "/out/first"})
    assert (placed["learner"]["init"], placed["scorer"]["init"]) == ("/out/first", "hf:vit")
    assert found["then"].changes_of_references(found) == {"first": found["first"].changes}


@pytest.mark.parametrize(
    ("names", "references", "said"),
    [
        (["a", "b", "a"], {}, "'a' twice"),
        (["a/b"], {}, "names a folder"),
        ([".."], {}, "names a folder"),
        (["a"], {"a": "b", "b": "a"}, "'a' rests on itself: a on b on a"),
    ],
)
def test_names_that_cannot_be_run_are_refused(names, references, said):
    with pytest.raises(ConfigError, match=said):
        sweeps.parts(names, configured(references))


def record_of(make_run, name, policy, **options):
    found = records.of_run(name, {"policy": policy}, {}, make_run(name, policy=policy, **options))
    # As it comes back from a file.
    return records.Record(**dataclasses.asdict(found))


def test_a_line_of_the_table_is_what_compare_says_of_the_runs(make_run, tmp_path):
    uniform, fast = tmp_path / "uniform", tmp_path / "fast"
    kept = [record_of(make_run, "uniform", "uniform"), record_of(make_run, "fast", "classact", speed=2.0)]
    line = sweeps.against(kept[1], kept[0], METRIC)
    (_, group) = comparison.compare([uniform, fast]).groups
    (row,) = group.rows
    assert line.baseline == "uniform"
    for name in ("final", "target", "updates", "fewer_updates", "macs", "saving_full", "wall_seconds"):
        assert getattr(line.row, name) == pytest.approx(getattr(row, name), rel=1e-4), name
    (found,) = csv.DictReader(io.StringIO(sweeps.table([line])))
    assert (found["run"], found["baseline"], found["status"]) == ("fast", "uniform", "completed")
    assert float(found["fewer_updates"]) == pytest.approx(row.fewer_updates, rel=1e-4)


def test_without_a_baseline_or_a_crossing_cells_are_empty(make_run):
    uniform = record_of(make_run, "uniform", "uniform")
    slow = record_of(make_run, "slow", "classact", speed=0.5)
    lines = [sweeps.against(uniform, None, METRIC), sweeps.against(slow, uniform, METRIC)]
    alone, behind = csv.DictReader(io.StringIO(sweeps.table(lines)))
    assert (alone["baseline"], alone["target"], alone["fewer_updates"]) == ("", "", "")
    assert float(behind["target"]) > float(behind["final"])
    assert behind["updates"] == behind["saving_full"] == ""
