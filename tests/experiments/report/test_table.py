import pytest

from classact.experiments.compare import comparison
from classact.experiments.report import table


def texts(compared):
    return {
        (line.label, line.seed): dict(
            zip([column.field for column in table.COLUMNS], line.cells, strict=True)
        )
        for line in table.lines(compared.groups)
    }


def test_headers_call_things_what_they_are(make_run, make_pairs_run):
    def headers(compared):
        words = table.words(compared)
        return {column.field: column.header.format(**words) for column in table.COLUMNS}

    labels = headers(comparison.compare([make_run("u")]))
    assert (labels["final"], labels["corrupted"]) == ("final accuracy", "wrong labels trained on")
    run = make_pairs_run("p", "uniform")
    captions = headers(comparison.compare([run], metric="eval/retrieval/i2t_r1"))
    assert (captions["final"], captions["corrupted"]) == ("final recall", "wrong captions trained on")


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (table.percent, 0.8214, "82.1 %"),
        (table.percent, -0.05, "−5.0 %"),
        (table.signed_percent, 0.031, "+3.1 %"),
        (table.signed_percent, -0.786, "−78.6 %"),
        (table.macs, 1.234e13, "12.3 T"),
        (table.macs, 0.0, "0"),
        (table.duration, 41.6, "0:42"),
        (table.duration, 3723, "1:02:03"),
    ],
)
def test_formats(show, value, text):
    assert show(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_line_for_each_run_and_a_mean_for_several(make_run):
    runs = [make_run(f"u{seed}", seed=seed) for seed in (0, 1)] + [
        make_run("c", policy="classact", speed=1.25)
    ]
    lines = table.lines(comparison.compare(runs).groups)
    assert [(line.label, line.seed, line.is_mean) for line in lines] == [
        ("uniform", "0", False),
        ("uniform", "1", False),
        ("uniform", "mean", True),
        ("classact", "0", False),
    ]


def test_cells_show_the_figures(make_run):
    compared = comparison.compare([make_run("u"), make_run("c", policy="classact", speed=1.25)])
    row = compared.groups[1].rows[0]
    cells = texts(compared)
    assert cells["classact", "0"] == {
        "final": table.percent(row.final),
        "updates": f"{row.updates:,.0f}",
        "fewer_updates": table.percent(row.fewer_updates),
        "macs": table.macs(row.macs),
        "saving_paper": table.signed_percent(row.saving_paper),
        "saving_full": table.signed_percent(row.saving_full),
        "saving_shared": table.signed_percent(row.saving_shared),
        "saving_free": table.signed_percent(row.saving_free),
        "wall_seconds": "1:01",
        "cpu_seconds": "1:58",
        "staleness": "2.5",
        "corrupted": "–",
    }
    base = cells["uniform", "0"]
    assert (base["updates"], base["fewer_updates"], base["saving_full"]) == ("1,500", "baseline", "–")


def test_a_target_that_was_not_reached_is_said_so(make_run):
    runs = [make_run(f"u{seed}", seed=seed) for seed in (0, 1)]
    runs += [
        make_run("c0", seed=0, policy="classact", speed=1.5),
        make_run("c1", seed=1, policy="classact", final=0.5),
    ]
    cells = texts(comparison.compare(runs))
    assert cells["classact", "1"]["updates"] == "not reached"
    assert cells["classact", "1"]["fewer_updates"] == "–"
    assert cells["classact", "mean"]["updates"] == "1 of 2 reached it"
    assert cells["classact", "mean"]["fewer_updates"] == "–"


def test_a_run_that_did_not_complete_is_marked(make_run):
    cells = texts(comparison.compare([make_run("u", status="failed", done=500)]))
    assert list(cells) == [("uniform (failed)", "0")]


def test_a_run_that_has_diverged_has_no_figures_but_what_it_took(make_run):
    lost = {"result": {"diverged": 300}}
    runs = [make_run(f"u{seed}", seed=seed) for seed in (0, 1, 2)]
    runs += [
        make_run(f"c{seed}", seed=seed, policy="classact", speed=1.5, **(lost if seed == 0 else {}))
        for seed in (0, 1, 2)
    ]
    cells = texts(comparison.compare(runs))
    diverged = cells["classact (diverged)", "0"]
    assert diverged["final"] == "diverged"
    assert {diverged[name] for name in ("updates", "fewer_updates", "macs", "saving_full")} == {"–"}
    assert diverged["wall_seconds"] == "1:01"
    mean = cells["classact", "mean"]
    assert (mean["final"], mean["updates"], mean["saving_full"]) == (
        "1 of 3 diverged",
        "2 of 3 reached it",
        "–",
    )
