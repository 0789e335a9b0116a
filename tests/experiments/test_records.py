"""What is kept of a run says the same of it as its directory."""

import numpy as np
import pytest

from classact.experiments import base, curves, records
from classact.experiments.compare import comparison

METRIC = curves.DEFAULT_METRIC


def test_a_records_run_is_that_of_the_directory(make_run, tmp_path):
    path = make_run("run", policy="classact", corrupted=(0.2, 0.1))
    changes = {"policy": "classact", "seed": 3, "learner.model": "vit_mu_6_2"}
    records.write(tmp_path / "kept.jsonl", [records.of_run("run", changes, {"teacher": {"steps": 7}}, path)])
    record = records.read(tmp_path / "kept.jsonl")["run"]
    assert record.is_of(changes, {"teacher": {"steps": 7}}) and not record.is_of(changes, {})
    found = record.run(METRIC)
    with pytest.raises(records.RecordError, match="was not measured by it, but by eval/test/top1"):
        record.run("eval/test/top5")
    there = curves.load_run(path)
    assert (found.status, found.steps, found.diverged_at) == (there.status, there.steps, None)
    np.testing.assert_allclose(found.curve, there.curve, rtol=1e-4)
    assert found.ledger == there.ledger
    assert found.field("learner.model") == "vit_mu_6_2"
    # What it does not change is the default.
    assert found.field("filter_ratio") == base.get_config().filter_ratio
    corrupted = there.learner_mean("selection/corrupted_fraction")
    assert found.learner_mean("selection/corrupted_fraction") == pytest.approx(corrupted, abs=0.01)
    assert comparison.macs_at(found, 100) == comparison.macs_at(there, 100)


def test_a_run_that_has_diverged_stays_so(make_run):
    path = make_run("run", policy="classact", status="failed", result={"diverged": 40})
    found = records.of_run("run", {}, {}, path).run(METRIC)
    assert (found.diverged_at, found.status) == (40, curves.DIVERGED)


def test_only_what_differs_from_the_defaults_is_a_change():
    config = base.get_config()
    assert records.changes_of(config.to_dict()) == {}
    config.steps = 7
    config.evaluation.every = 3
    config.learner.options = {"pool": "mean"}
    found = records.changes_of(config.to_dict())
    assert found == {"steps": 7, "evaluation.every": 3, "learner.options.pool": "mean"}


@pytest.mark.parametrize("line", ["{", "7", '{"name": "run"}', '{"name": "run", "other": 1}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    records.write(path, [records.Record("other", {}, {}, {}, "threads", "", {}, {})])
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(records.RecordError, match=r"records\.jsonl, line 3 is no record"):
        records.read(path)
    assert records.read(tmp_path / "missing.jsonl") == {}
