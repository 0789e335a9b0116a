import pytest

from classact.experiments import curves, pretraining
from classact.experiments.compare import comparison
from classact.experiments.report import report, table


def rows(compared):
    return {(group.label, row.run.field("seed")): row for group in compared.groups for row in group.rows}


@pytest.fixture
def make_selecting(make_run, tmp_path):
    """A run of `classact`, whose reference has cost 2e10 MACs, by its seed and the reference's name."""

    def make(name, seed, reference="shared", told=True):
        checkpoint = str(tmp_path / reference)
        own = {"reference": {"checkpoint": checkpoint}}
        result = {"reference_pretraining": {checkpoint: 2e10}} if told else {}
        return make_run(name, policy="classact", seed=seed, speed=1.5, config=own, result=result)

    return make


@pytest.mark.parametrize("told", [True, False])
def test_a_reference_is_shared_among_the_runs_that_use_it(make_selecting, told):
    runs = [make_selecting(f"c{seed}", seed, told=told) for seed in (0, 1)]
    runs.append(make_selecting("c2", 2, "another", told))
    loaded = [curves.load_run(path) for path in runs]
    shared = pretraining.shares(loaded)
    assert [shared[run.path] for run in loaded] == [1e10, 1e10, 2e10]
    assert set(pretraining.shares(loaded, 8).values()) == {2.5e9}


def test_a_run_pays_for_its_reference_in_three_ways(make_run, make_selecting):
    runs = [make_run("u"), *(make_selecting(f"c{seed}", seed) for seed in (0, 1))]
    table = rows(comparison.compare(runs))
    base, row = table["uniform", 0], table["classact", 0]
    during = row.updates * row.run.ledger["macs_per_update"]
    assert row.saving_full == pytest.approx(1 - (during + 2e10) / base.macs)
    assert row.saving_shared == pytest.approx(1 - (during + 1e10) / base.macs)
    assert row.saving_free == pytest.approx(1 - during / base.macs)
    by_ten = rows(comparison.compare(runs, reference_runs=10))["classact", 0]
    assert by_ten.saving_shared == pytest.approx(1 - (during + 2e9) / base.macs)
    assert (by_ten.saving_full, by_ten.saving_free) == (row.saving_full, row.saving_free)


def test_a_chosen_baseline_pays_in_the_same_way(make_run, make_selecting):
    runs = [make_selecting("c0", 0), make_run("e", policy="easy_reference", speed=2.0)]
    table = rows(comparison.compare(runs, baseline=runs[0]))
    base, row = table["classact", 0], table["easy_reference", 0]
    assert base.saving_free == pytest.approx(0)
    base_during = base.updates * base.run.ledger["macs_per_update"]
    row_during = row.updates * row.run.ledger["macs_per_update"]
    assert row.saving_free == pytest.approx(1 - row_during / base_during)


def test_table_and_page_show_all_three_where_there_is_a_reference(make_run, make_selecting, tmp_path):
    written = report.write_report([make_run("u"), make_selecting("c", 0)], tmp_path / "out.html")
    text, page = report.format_table(written), written.path.read_text()
    row = written.comparisons[0].groups[1].rows[0]
    (line,) = [line for line in text.splitlines() if line.strip().startswith("classact: compute saved")]
    for saving in (row.saving_full, row.saving_shared, row.saving_free):
        assert table.signed_percent(saving) in line
    assert "compute saved, reference shared" in page and "compute saved, reference not counted" in page
    alone = report.write_report([make_run("u2"), make_run("h", policy="hard_learner")], tmp_path / "h.html")
    assert "compute saved" not in report.format_table(alone)


def test_no_runs_cannot_share(make_selecting):
    with pytest.raises(ValueError, match="reference_runs=0"):
        pretraining.shares([curves.load_run(make_selecting("c", 0))], 0)
