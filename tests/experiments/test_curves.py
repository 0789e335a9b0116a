import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classact.experiments import curves

# Deeper than a parser of JSON goes.
DEEP = "[" * 100_000


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def run_dir(tmp_path):
    config = {"policy": "classact", "seed": 3, "learner": {"model": "vit_mu_6_1"}, "steps": 60}
    (tmp_path / "config.json").write_text(json.dumps(config))
    evaluations = [{"step": step, "time": 1.0, "eval/test/top1": step / 100} for step in (20, 40, 60)]
    write_lines(tmp_path / "metrics" / "evaluator-test.jsonl", evaluations)
    learner = [
        {"step": 20, "time": 1.0, "train/loss": 2.0, "train/examples": 100},
        {"step": 60, "time": 2.0, "train/loss": 1.0, "train/examples": 300},
    ]
    write_lines(tmp_path / "metrics" / "learner.jsonl", learner)
    (tmp_path / "result.json").write_text(
        json.dumps({"status": "completed", "steps": 60, "ledger": {"total_macs": 5}})
    )
    return tmp_path


def test_load_run(run_dir):
    run = curves.load_run(run_dir)
    assert (run.policy, run.status, run.steps, run.ledger) == ("classact", "completed", 60, {"total_macs": 5})
    assert run.field("learner.model") == "vit_mu_6_1"
    assert run.field("learner.depth", 7) == 7
    assert run.field("seed.x") is None
    assert run.curve == ((20, 0.2), (40, 0.4), (60, 0.6))
    assert run.learner_mean("train/loss") == pytest.approx(1.25)  # weighted by examples
    assert run.learner_mean("selection/staleness_steps") is None
    assert run.learner_curve("train/loss") == ((20, 2.0), (60, 1.0))


def test_a_run_that_goes_on_is_unfinished(run_dir):
    (run_dir / "result.json").unlink()
    with open(run_dir / "metrics" / "learner.jsonl", "a") as file:
        file.write('{"step": 80, "time": 3.0, "train/lo')
    run = curves.load_run(run_dir)
    assert (run.status, run.steps, run.ledger, len(run.learner)) == ("unfinished", 60, {}, 2)


def test_a_run_that_just_began_has_an_empty_curve(tmp_path):
    (tmp_path / "config.json").write_text('{"policy": "uniform"}')
    run = curves.load_run(tmp_path)
    assert (run.curve, run.learner, run.steps) == ((), (), 0)
    assert curves.final(run.curve) is None


def test_missing_evaluations_are_left_out(run_dir):
    evaluations = [
        {"step": 20, "eval/test/top1": 0.5},
        {"step": 40, "eval/test/top1/nonfinite": 1},
        {"step": 60, "eval/test/loss": 1.0},
    ]
    write_lines(run_dir / "metrics" / "evaluator-test.jsonl", evaluations)
    assert curves.load_run(run_dir).curve == ((20, 0.5),)


@pytest.mark.parametrize(
    ("name", "line", "step"),
    [
        ("learner", '{"step": 60, "train/loss": NaN}', 60),
        ("learner", '{"step": 60, "train/online_loss/nonfinite": 1}', 60),
        ("learner", '{"step": 60, "train/icons/loss": -Infinity}', 60),
        ("evaluator-test", '{"step": 60, "eval/test/top1": 1e999}', 60),
        ("evaluator-test", '{"step": 40, "eval/test/loss/nonfinite": 1}\n{"step": 60}', 40),
        # These say nothing of the model.
        ("learner", '{"step": 60, "train/data_wait_seconds": NaN}', None),
        ("learner", '{"step": 60, "score/mean/nonfinite": 1}', None),
    ],
)
def test_a_run_has_diverged_if_a_number_of_its_model_is_not_finite(run_dir, name, line, step):
    path = run_dir / "metrics" / f"{name}.jsonl"
    path.write_text(path.read_text() + line + "\n")
    run = curves.load_run(run_dir)
    assert run.diverged_at == step
    assert run.status == ("completed" if step is None else "diverged")
    assert run.curve == tuple(point for point in ((20, 0.2), (40, 0.4), (60, 0.6)) if point[0] < (step or 99))
    assert run.learner_mean("train/loss") is not None


@pytest.mark.parametrize(
    ("result", "step"),
    [
        ('{"status": "failed", "steps": 50, "diverged": 52}', 52),
        ('{"status": "failed", "steps": 50, "diverged": 0}', 0),
        ('{"status": "failed", "steps": 50, "diverged": true}', 50),
        ('{"status": "completed", "steps": 50, "final": {"train/loss": NaN}}', 50),
        ('{"status": "completed", "steps": 50, "final": {"eval/test/loss/nonfinite": 1}}', 50),
        ('{"status": "completed", "steps": 50, "diverged": null, "final": {"train/loss": 1.0}}', None),
        ('{"status": "failed", "diverged": false, "wall_seconds": NaN, "ledger": {"total_macs": NaN}}', None),
    ],
)
def test_or_if_its_result_says_so(run_dir, result, step):
    (run_dir / "result.json").write_text(result)
    run = curves.load_run(run_dir)
    assert run.diverged_at == step
    assert "wall_seconds" not in run.result and "total_macs" not in run.ledger


def test_a_divergence_that_was_undone_is_none(run_dir):
    path = run_dir / "metrics" / "learner.jsonl"
    lines = '{"step": 80, "train/loss": NaN}\n{"step": 70, "train/loss": 1.0}\n'
    path.write_text(path.read_text() + lines)
    assert curves.load_run(run_dir).diverged_at is None


def test_another_evaluator_and_metric(run_dir):
    write_lines(run_dir / "metrics" / "evaluator-clean.jsonl", [{"step": 5, "eval/clean/top5": 0.9}])
    assert curves.load_run(run_dir, "eval/clean/top5").curve == ((5, 0.9),)
    with pytest.raises(ValueError, match="metric='top1', expected eval/<evaluator>/<name>"):
        curves.load_run(run_dir, "top1")


def test_measured_are_the_shares_of_every_evaluator(run_dir):
    records = [
        {"step": 5, "eval/clean/i2t_r1": 0.1, "eval/clean/pairs": 9.0},
        {
            "step": 6,
            "eval/clean/i2t_r1": 0.1,
            "eval/clean/zero_shot_top5": 0.1,
            "eval/clean/top1/nonfinite": 1,
        },
    ]
    write_lines(run_dir / "metrics" / "evaluator-clean.jsonl", records)
    expected = ["eval/clean/i2t_r1", "eval/clean/zero_shot_top5", "eval/test/top1"]
    assert curves.measured(run_dir) == expected
    assert curves.measured(run_dir / "absent") == []


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(curves.RunError, match=r"absent is no run directory: there is no such directory"):
        curves.load_run(tmp_path / "absent")
    with pytest.raises(curves.RunError, match=r"no run directory: it has no config\.json"):
        curves.load_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"policy": "uni', "config.json is damaged"),
        ("config.json", "[1]", "config.json is damaged: it holds a list"),
        pytest.param("config.json", DEEP, "config.json is damaged", id="deep"),
        pytest.param("metrics/learner.jsonl", DEEP, "learner.jsonl, line 1 is no JSON", id="deep line"),
        ("config.json", "{}", "it names no policy"),
        ("result.json", "", "result.json is damaged"),
        ("metrics/learner.jsonl", '{"step": 1}\n\x00\x00\n', "learner.jsonl, line 2 is no JSON"),
        ("metrics/learner.jsonl", '{"step": 1, "x" 2}\n', "learner.jsonl, line 1 is no JSON"),
        ("metrics/learner.jsonl", '{"step": 1, "x": "2"}\n', "learner.jsonl, line 1 is no metrics record"),
        ("metrics/learner.jsonl", '{"step": NaN}\n', "learner.jsonl, line 1 is no metrics record"),
        ("result.json", '{"diverged": "yes"}', "result.json is damaged: diverged is 'yes'"),
        ("metrics/evaluator-test.jsonl", '{"x": 2}\n', "evaluator-test.jsonl, line 1 is no metrics record"),
    ],
)
def test_a_damaged_file_is_named(run_dir, name, content, message):
    (run_dir / name).write_text(content)
    with pytest.raises(curves.RunError, match=message):
        curves.load_run(run_dir)


def test_read_metrics_skips_a_torn_line_in_the_middle(tmp_path):
    path = tmp_path / "learner.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "ti\n{"step": 2}\n{"st')
    assert curves.read_metrics(path) == [{"step": 1}, {"step": 2}]
    assert curves.read_metrics(tmp_path / "absent.jsonl") == []


@settings(deadline=None)  # It writes files, and other programs use the disk too.
@given(st.lists(st.integers(0, 100), min_size=1, max_size=5), st.data())
def test_a_file_cut_anywhere_gives_its_whole_lines(tmp_path_factory, steps, data):
    content = "".join(json.dumps({"step": step, "time": 0.5}) + "\n" for step in steps).encode()
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.mktemp("cut") / "learner.jsonl"
    path.write_bytes(content[:cut])
    # A last line that only lacks its newline is whole.
    whole = content[:cut].count(b"}")
    assert [record["step"] for record in curves.read_metrics(path)] == steps[:whole]


def test_history_drops_what_a_restart_has_undone_and_merges_a_step():
    records = [
        {"step": 10, "x": 1},
        {"step": 20, "x": 2},
        {"step": 30, "x": 3},
        {"step": 20, "x": 4},
        {"step": 20, "y": 5},
        {"step": 40, "x": 6},
    ]
    expected = [{"step": 10, "x": 1}, {"step": 20, "x": 4, "y": 5}, {"step": 40, "x": 6}]
    assert curves.history(records) == expected
    assert records[1] == {"step": 20, "x": 2}


def test_smooth_and_final_are_means_of_three():
    curve = [(10, 0.0), (20, 0.3), (30, 0.6), (40, 0.9)]
    steps, values = zip(*curves.smooth(curve), strict=True)
    assert steps == (10, 20, 30, 40)
    assert values == pytest.approx((0.0, 0.15, 0.3, 0.6))
    assert curves.final(curve) == pytest.approx(0.6)
    assert curves.final([(10, 0.5)]) == 0.5


def test_updates_to_reach_interpolates_the_smoothed_curve():
    curve = [(10, 0.0), (20, 0.3), (30, 0.6), (40, 0.9)]  # smoothed: 0, 0.15, 0.3, 0.6
    assert curves.updates_to_reach(curve, 0.45) == pytest.approx(35.0)
    assert curves.updates_to_reach(curve, 0.15) == pytest.approx(20.0)
    assert curves.updates_to_reach(curve, 0.0) == 10
    assert curves.updates_to_reach(curve, 0.61) is None
    assert curves.updates_to_reach([], 0.1) is None


def test_a_lone_peak_reaches_nothing():
    curve = [(10, 0.1), (20, 0.1), (30, 0.9), (40, 0.1), (50, 0.1)]
    assert curves.updates_to_reach(curve, 0.5) is None


def test_the_first_crossing_counts():
    curve = [
        (step, value) for step, value in zip(range(10, 100, 10), [0, 0, 0, 1, 1, 1, 0, 0, 0], strict=True)
    ]
    assert curves.updates_to_reach(curve, 0.5) == pytest.approx(45.0)


accuracies = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(accuracies)
def test_every_run_reaches_its_own_final_accuracy_by_its_end(values):
    curve = [(10 * (i + 1), value) for i, value in enumerate(values)]
    reached = curves.updates_to_reach(curve, curves.final(curve))
    assert reached is not None
    assert curve[0][0] <= reached <= curve[-1][0]


@given(accuracies, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_target_is_not_reached_earlier(values, a, b):
    curve = [(10 * (i + 1), value) for i, value in enumerate(values)]
    low, high = sorted((a, b))
    if curves.updates_to_reach(curve, high) is not None:
        assert curves.updates_to_reach(curve, low) <= curves.updates_to_reach(curve, high)
