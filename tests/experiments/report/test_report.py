import html.parser
import re

import numpy as np
import pytest

from classact.experiments import curves
from classact.experiments.report import charts, report, table


class Page(html.parser.HTMLParser):
    """A page's table cells, pictures and text; every element must be closed."""

    VOID = ("meta", "img", "br", "path", "use", "rect", "g")

    def __init__(self, path):
        super().__init__()
        self.rows, self.sources, self.text, self.open = [], [], [], []
        self.attributes, self.tables = [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def tables_with(self, header):
        """The rows of the tables that have a column of that name, one table after the other."""
        return [row for rows in self.tables if header in rows[0] for row in rows]

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.rows.append([])
            self.tables[-1].append(self.rows[-1])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            self.sources.append(dict(attributes)["src"])
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        elif "style" not in self.open:
            self.text.append(data)


@pytest.fixture
def runs(make_run):
    return [
        make_run("u0", seed=0),
        make_run("u1", seed=1),
        make_run("c0", seed=0, policy="classact", speed=1.25, corrupted=(0.1, 0.2), images=100),
        make_run("c1", seed=1, policy="classact", speed=1.25, corrupted=(0.1, 0.2)),
        make_run("h0", seed=0, policy="hard_learner", status="interrupted", done=600),
    ]


def test_the_page_holds_the_table(runs, tmp_path):
    written = report.write_report(runs, tmp_path / "new" / "report.html")
    page = Page(written.path)
    header, *body = page.tables_with("seed")
    headers = [column.header for column in table.COLUMNS]
    assert header == ["policy", "seed", "final accuracy", *headers[1:-1], "wrong labels trained on"]
    assert body == [
        [line.label, line.seed, *line.cells] for line in table.lines(written.comparisons[0].groups)
    ]
    by_name = {(row[0], row[1]): dict(zip(header, row, strict=True)) for row in body}
    row = written.comparisons[0].groups[1].rows[0]
    assert by_name["classact", "0"]["updates to baseline's final"] == f"{row.updates:,.0f}"
    assert by_name["hard_learner (interrupted)", "0"]["updates to baseline's final"] == "not reached"


def test_the_page_says_what_it_shows(runs, tmp_path):
    written = report.write_report(runs, tmp_path / "report.html")
    text = " ".join(Page(written.path).text)
    group = written.comparisons[0].groups[1]
    assert f"{100 * group.mean('fewer_updates'):.0f} %" in text
    assert f"{abs(100 * group.mean('saving_full')):.0f} %" in text
    assert "compute, everything counted" in text
    assert "vit_mu_6_1 on fashion_mnist with 20 % label noise" in text
    assert "h0 is interrupted, at update 600 of 1,500." in text
    assert "top-1 on test against learner updates" in text
    assert "Compute to reach the baseline's accuracy" in text
    assert "8 of 40 have a wrong label" in text
    assert str(runs[0]) in text


def test_the_page_loads_nothing(runs, tmp_path):
    page = Page(report.write_report(runs, tmp_path / "report.html").path)
    assert len(page.sources) == 80
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    names = {"src", "href", "xlink:href", "srcset", "data", "action"}
    links = [value for name, value in page.attributes if name in names and not value.startswith("data:")]
    assert all(link.startswith("#") for link in links)
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in content
    assert "@import" not in content
    assert not re.search(r"url\((?!#)", content)


@pytest.fixture
def pairs(make_pairs_run):
    return [
        make_pairs_run("u", "uniform"),
        make_pairs_run("n", "active_noisy", speed=1.1),
        make_pairs_run("c", "active_clean", speed=1.5, status="interrupted", done=550),
    ]


def test_a_page_of_several_metrics_shows_each_below_its_name(pairs, make_images, tmp_path):
    captions = {"caption": np.array(["a <star>"] * 10), "corrupted": np.arange(10) < 2, "label": None}
    make_images(pairs[1], 10, clean_label=None, class_names=None, **captions)
    written = report.write_report(pairs, tmp_path / "report.html")
    page = Page(written.path)
    text = " ".join(page.text)
    names = ["Zero-shot top-1 on icons_50", "Image-to-text recall@1 on", "Text-to-image recall@1 on"]
    places = [text.index(name) for name in names]
    assert places == sorted(places)
    for short, compared in zip(
        ("zero_shot_top1 on icons_50", "i2t_r1 on retrieval", "t2i_r1 on retrieval"),
        written.comparisons,
        strict=True,
    ):
        assert compared.metric in text
        for against in ("learner updates", "total compute"):
            assert len(re.findall(rf"{short}\s+against {against}", text)) == 1
        assert re.search(rf"Compute to reach the baseline's\s+{short}", text)
    # One table each; what does not depend on the metric is there once.
    body = [
        [line.label, line.seed, *line.cells]
        for one in written.comparisons
        for line in table.lines(one.groups)
    ]
    assert [row for row in page.tables_with("seed") if row[0] != "policy"] == body
    assert [row[2] for row in page.tables_with("seed") if row[0] == "policy"] == [
        "final accuracy",
        "final recall",
        "final recall",
    ]
    for once in (
        "Wrong captions among",
        "Bands span the seeds",
        "Appendix A.1",
        "c is interrupted, at update 550",
    ):
        assert text.count(once) == 1
    assert "vit_mu_6_2 on icon_pairs with 30 % of the captions shuffled" in text
    assert "have another image's caption (in red)" in text
    assert "a <star>" in text
    assert "another caption" not in text


def test_the_terminal_names_each_metrics_table(pairs, tmp_path):
    text = report.format_table(report.write_report(pairs, tmp_path / "report.html"))
    tables = re.split(r"^ *(eval/\S+)$", text, flags=re.MULTILINE)[1:]
    assert tables[::2] == ["eval/icons_50/zero_shot_top1", "eval/retrieval/i2t_r1", "eval/retrieval/t2i_r1"]
    for part in tables[1::2]:
        assert re.search(r"^ *classact, reference noisy +0 ", part, flags=re.MULTILINE)
    assert text.count("Note: ") == 1


def test_a_metric_of_choice_alone_has_a_page_of_one(pairs, tmp_path):
    written = report.write_report(pairs, tmp_path / "r.html", metrics=["eval/retrieval/t2i_r1"])
    text = " ".join(Page(written.path).text)
    assert "Learning curves" in text
    assert "the baseline's final recall" in text
    assert "accuracy" not in text


def test_what_comes_from_runs_is_escaped(make_run, tmp_path):
    evil = {"train_data": "<img src=x>", "learner": {"model": "a&b"}}
    runs = [make_run("u<b>", config=evil), make_run("c", policy="classact", config=evil, images=20)]
    content = report.write_report(runs, tmp_path / "report.html").path.read_text(encoding="utf-8")
    Page(tmp_path / "report.html")
    assert "&lt;img src=x&gt;" in content
    assert "&lt;Sneaker&gt;" in content
    assert "<img src=x>" not in content
    assert "u<b>" not in content


def test_damaged_images_are_left_out_with_a_note(make_run, tmp_path):
    run = make_run("c", policy="classact")
    (run / "scored_images.npz").write_bytes(b"PK")
    written = report.write_report([run], tmp_path / "report.html")
    assert any(
        note.startswith("No images: ") and "scored_images.npz is damaged" in note for note in written.notes
    )
    assert Page(written.path).sources == []


def test_a_report_of_runs_that_have_just_begun(make_run, tmp_path):
    written = report.write_report([make_run("u", status=None, done=0)], tmp_path / "report.html")
    page = Page(written.path)
    assert page.rows[1][:3] == ["uniform (unfinished)", "0", "–"]
    assert "uniform (unfinished)" in report.format_table(written)


def test_what_is_no_run_fails_before_the_page_is_written(make_run, tmp_path):
    with pytest.raises(curves.RunError, match="absent is no run directory"):
        report.write_report([make_run("u"), tmp_path / "absent"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_terminals_table(runs, tmp_path):
    written = report.write_report(runs, tmp_path / "report.html")
    lines = report.format_table(written).splitlines()
    group = written.comparisons[0].groups[1]
    (row,) = [line for line in lines if re.match(r" *classact +0 ", line)]
    for field in ("final", "updates", "fewer_updates", "macs", "saving_paper", "saving_full", "corrupted"):
        (column,) = [column for column in table.COLUMNS if column.field == field]
        assert column.show(getattr(group.rows[0], field)) in row
    assert any(re.match(r" *classact +mean ", line) for line in lines)
    assert any("hard_learner (interrupted)" in line and "not reached" in line for line in lines)
    assert f"Note: {runs[4]} is interrupted, at update 600 of 1,500." in lines
    assert max(map(len, lines[:-2])) <= 132


def test_the_terminals_table_leaves_out_what_is_not_known(make_run, tmp_path):
    text = report.format_table(report.write_report([make_run("u")], tmp_path / "report.html"))
    assert "wrong" not in text
    assert "target" not in text
    assert "1:58" in text


def test_a_baseline_of_choice(make_run, tmp_path):
    runs = [make_run("u"), make_run("c", policy="classact", final=0.9)]
    written = report.write_report(runs, tmp_path / "report.html", baseline=runs[1])
    assert [(group.label, group.is_baseline) for group in written.comparisons[0].groups] == [
        ("classact", True),
        ("uniform", False),
    ]


def test_what_makes_figures_worthless_comes_before_them_and_what_else_differs_after(make_run, tmp_path):
    unlike = {"learning_rate": 1e-4, "clip_norm": 1.0, "launch": "<ray>"}
    runs = [make_run("u", config={**unlike, "clip_norm": 0.0, "launch": "threads"}, status="interrupted")]
    runs += [make_run("c", policy="classact", speed=1.5, config={**unlike, "learning_rate": 1e-3})]
    runs += [make_run("h", policy="hard_learner", result={"diverged": 300}, config=unlike)]
    written = report.write_report(runs, tmp_path / "report.html")
    learning_rate = "learning_rate 0.001 (baseline 0.0001)"
    assert written.headline == (
        f"{runs[2]} has diverged, at update 300 of 1,500: it has no result, and nothing is held against it.",
        f"The baseline {runs[0]} is interrupted, at update 1,500 of 1,500: "
        "its final value is not that of its whole schedule.",
        f"classact: {learning_rate}: a gain may be that of the learning rate.",
    )
    lines = report.format_table(written).splitlines()
    assert lines[:3] == [f"WARNING: {line}" for line in written.headline]
    assert lines[-3:] == [
        "classact differs from its baseline also in:",
        "  clip_norm 1.0 (baseline 0.0)",
        "  launch <ray> (baseline threads)",
    ]
    page = Page(written.path)
    text = " ".join(" ".join(page.text).split())
    places = [text.index(said) for said in (*written.headline, "fewer updates", "Learning curves")]
    assert places == sorted(places)
    # On the run's own card too.
    assert learning_rate in text[places[-2] : places[-1]]
    assert "hard_learner diverged its numbers became NaN or infinite" in text
    assert page.rows[-3:] == [
        ["classact", "learning_rate", "0.001", "0.0001", "a gain may be that of the learning rate"],
        ["classact", "clip_norm", "1.0", "0.0", ""],
        ["classact", "launch", "<ray>", "threads", ""],
    ]


def test_differences_by_any_metric_are_listed_once(make_pairs_run, tmp_path):
    runs = [make_pairs_run("u", "uniform")]
    runs += [make_pairs_run("c", "active_clean", config={"clip_norm": 3.0, "caption_noise": 0.1})]
    text = report.format_table(report.write_report(runs, tmp_path / "report.html"))
    assert text.count("caption_noise") == text.count("clip_norm 3.0") == 1


def test_runs_that_are_alike_have_no_differences(make_run, tmp_path):
    written = report.write_report([make_run("u"), make_run("c", policy="classact")], tmp_path / "report.html")
    assert written.headline == () and written.differences == {}
    assert "Differences from the baseline" not in written.path.read_text(encoding="utf-8")


def test_the_page_says_how_sure_it_is(runs, tmp_path):
    page = Page(report.write_report(runs, tmp_path / "report.html", targets=[0.4]).path)
    (header, *body) = page.tables_with("seeds")
    assert [row[:2] for row in body] == [["uniform", "2"], ["classact", "2"], ["hard_learner", "1"]]
    assert body[2][4].startswith("0 of 1 reached it")
    (header, *body) = page.tables_with("90 % of it")
    assert header[-1] == "accuracy 40.0\N{NO-BREAK SPACE}%"
    assert body[1][0] == "hard_learner" and body[1][4].startswith("< ")
    text = " ".join(page.text)
    for section in ("What the seeds show", "Speed-up, at several targets", "What was trained on"):
        assert section in text


def test_a_gain_that_chance_shows_as_well_is_not_called_one(make_run, tmp_path):
    runs = [
        make_run("u", curved=True, noise=0.012),
        make_run("c", policy="classact", speed=1.05, curved=True, noise=0.012),
    ]
    written = report.write_report(runs, tmp_path / "report.html")
    (row,) = written.comparisons[0].groups[1].rows
    assert row.fewer_updates is not None and row.fewer_updates > 0
    assert "no gain shown" in " ".join(Page(written.path).text)
    assert "(no gain shown, two runs of one law: up to about" in report.format_table(written)


def test_the_page_has_colours_for_light_and_dark(runs, tmp_path):
    content = report.write_report(runs, tmp_path / "report.html").path.read_text(encoding="utf-8")
    style, body = content.split("</style>")
    light, dark = style.split("prefers-color-scheme: dark")
    used = set(re.findall(r"var\((--[a-z0-9]+)", body))
    assert {"--baseline", "--c0", "--page"} <= used
    for name in used - {"--colour"}:
        assert f"{name}:" in light and f"{name}:" in dark
    # Nothing in a chart is of one colour in both, but for the parts of the bars.
    fixed = set(re.findall(r"(?<!, )#[0-9a-f]{6}", body))
    assert fixed <= {colour for _, colour in charts.LEDGER_PARTS.values()}
