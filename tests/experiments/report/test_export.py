"""Figures as data: nothing is lost, and nothing that was not reached is a number."""

import csv
import io
import re

import pytest

from classact.experiments.compare import comparison, statistics
from classact.experiments.report import export, summary


@pytest.fixture
def compared(make_run):
    runs = [make_run(f"u{seed}", seed=seed, noise=0.004, curved=True) for seed in (0, 1, 2)]
    runs += [
        make_run(
            f"c{seed}", seed=seed, policy="classact", speed=1.5 + 0.1 * seed, curved=True, noise=0.004,
            corrupted=(0.1, 0.2),
        )
        for seed in (0, 1, 2)
    ]  # fmt: skip
    runs.append(make_run("h_1%", policy="hard_learner", done=600, status="interrupted"))
    return comparison.compare(runs, targets=[0.4])


def test_every_run_and_every_group_has_a_row(compared):
    rows = export.rows(compared)
    assert len({tuple(row) for row in rows}) == 1
    assert [row["kind"] for row in rows].count("group") == 3
    by_run = {row["run"]: row for row in rows if row["kind"] == "run"}
    for group in compared.groups:
        for row in group.rows:
            found = by_run[str(row.run.path)]
            assert (found["final"], found["fewer_updates"], found["macs"]) == (
                row.final, row.fewer_updates, row.macs,
            )  # fmt: skip
    (classact,) = [row for row in rows if row["kind"] == "group" and row["policy"] == "classact"]
    of_runs = [row for row in rows if row["kind"] == "run" and row["policy"] == "classact"]
    expected = statistics.paired([row["fewer_updates"] for row in of_runs])
    assert classact["fewer_updates"] == pytest.approx(expected.mean)
    assert (classact["fewer_updates_low"], classact["fewer_updates_p"]) == (expected.low, expected.p)
    assert (classact["runs"], classact["reached"]) == (3, 3)
    assert classact["fewer_updates_at_100pct"] == pytest.approx(expected.mean)
    assert classact["fewer_updates_at_0.4"] > 0.2


def test_what_was_not_reached_is_no_number_but_a_bound(compared):
    rows = export.rows(compared)
    (run,) = [row for row in rows if row["kind"] == "run" and row["policy"] == "hard_learner"]
    assert (run["updates"], run["fewer_updates"], run["reached"]) == (None, None, 0)
    assert (run["fewer_updates_at_100pct_bound"], run["status"]) == ("<", "interrupted")


def test_csv_can_be_read_again(compared):
    found = list(csv.DictReader(io.StringIO(export.to_csv([compared, compared]))))
    rows = export.rows(compared)
    assert len(found) == 2 * len(rows)
    for text, row in zip(found, rows + rows, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert float(text[name]) == value
            else:
                assert text[name] == ("" if value is None else str(value))


def test_a_latex_table_is_escaped_and_whole(compared):
    text = export.to_latex([compared])
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4
    assert all(len(re.findall(r"(?<!\\)&", line)) == 5 for line in lines)
    assert r"hard\_learner" in text
    shown = [line for line in text.splitlines() if not line.startswith("%")]
    assert not re.search(r"(?<!\\)[%_]", "".join(shown))
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert text.count(rule) == 1


def test_special_characters():
    assert export.escaped(r"a_b & 5 % {x} \ ★ −1") == (r"a\_b \& 5 \% \{x\} \textbackslash{} $^\star$ $-$1")


def test_a_summary_claims_no_more_than_the_seeds_show(make_run, compared):
    by_label = {line.label: line.cells for line in summary.lines(compared)}
    assert by_label["uniform"][2:] == ("baseline",) * 3
    assert by_label["hard_learner"][3].startswith("0 of 1 reached it; at most ")
    assert re.match(r"\+\d+\.\d\s% ★ \(95\s% interval \+", by_label["classact"][3])
    assert by_label["classact"][0] == "3"
    # Twice the same figures: neither interval nor star.
    same = comparison.compare(
        [make_run(f"s{name}", policy=policy, seed=seed, speed=speed)
         for seed in (0, 1)
         for name, policy, speed in ((f"u{seed}", "uniform", 1.0), (f"c{seed}", "classact", 1.5))]
    )  # fmt: skip
    assert "the seeds do not differ" in summary.lines(same)[1].cells[3]


def test_one_of_three_that_did_not_get_there_is_told(make_run):
    runs = [make_run(f"u{seed}", seed=seed) for seed in (0, 1, 2)]
    speeds = (1.5, 1.4, 0.9)
    runs += [make_run(f"c{s}", seed=s, policy="classact", speed=v) for s, v in enumerate(speeds)]
    compared = comparison.compare(runs)
    (group,) = compared.groups[1:]
    assert group.paired("fewer_updates") is None
    assert group.reached == (2, 3)
    told = summary.difference(group, "fewer_updates")
    assert told.startswith("2 of 3 reached it; at most")
    exact = [row.fewer_updates for row in group.rows[:2]]
    assert summary.at_most(group) == pytest.approx(sum(exact) / 3, abs=0.01)
    assert group.paired("final_gain").n == 3


def test_a_pair_of_one_law_is_no_gain(make_run):
    runs = [
        make_run("u", curved=True, noise=0.012),
        make_run("c", policy="classact", seed=3, curved=True, noise=0.012),
    ]
    compared = comparison.compare(runs, baseline=runs[0])
    (group,) = compared.groups[1:]
    assert summary.within_chance(group)
    fast = comparison.compare([runs[0], make_run("f", policy="classact", speed=2, curved=True, noise=0.012)])
    assert not summary.within_chance(fast.groups[1])


def test_a_run_that_ends_far_above_a_flat_baseline_has_gained(make_run):
    flat = make_run("u", speed=0.02, noise=0.012)
    compared = comparison.compare([flat, make_run("c", policy="classact", noise=0.012)], baseline=flat)
    group = compared.groups[1]
    (row,) = group.rows
    assert row.chance.holds(row.fewer_updates) and row.final - row.target > row.chance.final_gain
    assert summary.only_ends_higher(group) and not summary.within_chance(group)
    assert summary.difference(group, "fewer_updates").count("ends higher than chance shows") == 1


def test_seeds_whose_interval_includes_0_show_no_gain(make_run):
    speeds = (1.5, 1.0, 1.02)
    runs = [make_run(f"u{seed}", seed=seed) for seed in range(3)]
    runs += [make_run(f"c{seed}", policy="classact", seed=seed, speed=v) for seed, v in enumerate(speeds)]
    (group,) = comparison.compare(runs).groups[1:]
    found = group.paired("fewer_updates")
    assert found.mean > 0.1 and found.includes_zero
    assert summary.within_chance(group)
    assert "★" not in summary.difference(group, "fewer_updates")
