"""Runs that have learned other classes: told apart, and not held against each other."""

import pytest

from classact.experiments import curves, learned_classes
from classact.experiments.compare import comparison, groups


def recorded(*names, **more):
    data = {"folder": {"num_classes": len(names), "class_names": list(names)}}
    return {"started": {"data": data}, **more}


@pytest.fixture
def run(make_run):
    """`run(name, *class names, **arguments of make_run)`; without names as of an older version."""

    def write(name, *names, config=None, **arguments):
        return make_run(name, config={**(recorded(*names) if names else {}), **(config or {})}, **arguments)

    return write


def test_what_a_run_recorded(run):
    load = lambda path: curves.load_run(path)  # noqa: E731
    assert learned_classes.learned_classes(load(run("a", "ant", "bee"))).names == ("ant", "bee")
    assert learned_classes.learned_classes(load(run("older"))) is None
    captions = run("captions", "ant", "bee", config={"task": "contrastive"})
    assert learned_classes.learned_classes(load(captions)) is None
    assert learned_classes.in_words(load(captions)) == ""


def test_classes_in_words_differ_where_classes_do_and_their_order_does_not_matter(run):
    names = [f"c{number}" for number in range(10)]
    several = [run("a", *names), run("b", *reversed(names)), run("c", *names[:-1], "other")]
    words = [learned_classes.in_words(curves.load_run(path)) for path in several]
    assert words[0] == words[1] != words[2]
    assert words[0].startswith("10: c0, c1, c2 and 7 more")
    assert learned_classes.in_words(curves.load_run(run("d", "ant", "bee"))) == "2: ant, bee"


def test_seeds_of_other_classes_are_no_seeds_of_one_experiment(run):
    paths = [run("a", "ant", "bee"), run("b", "bee", "ant", seed=1), run("c", "ant", "cow", seed=2)]
    found = groups.group_runs([curves.load_run(path) for path in paths])
    assert [(group.label, len(group.rows)) for group in found] == [
        ("uniform, classes 2: ant, bee", 2),
        ("uniform, classes 2: ant, cow", 1),
    ]


def test_a_run_is_held_against_the_baseline_of_its_classes(run):
    paths = [
        run("u1", "ant", "bee", final=0.6),
        run("u2", "ant", "cow"),
        run("c", "cow", "ant", policy="classact"),
    ]
    compared = comparison.compare(paths)
    (row,) = compared.groups[-1].rows if compared.groups[-1].policy == "classact" else compared.groups[1].rows
    (own,) = [group for group in compared.groups if group.is_baseline]
    assert own.label == "uniform, classes 2: ant, cow"
    assert row.target == own.rows[0].final
    assert not any("held against" in note for note in compared.notes)


@pytest.mark.parametrize("chosen", [False, True])
def test_a_run_without_a_baseline_of_its_classes_is_compared_with_none(run, chosen):
    paths = [run("u", "ant", "bee"), run("c", "ant", "cow", policy="classact")]
    compared = comparison.compare(paths, baseline=paths[0] if chosen else None)
    assert all(
        row.target is None for group in compared.groups if group.policy == "classact" for row in group.rows
    )
    # And not also that there is no uniform run.
    (note,) = compared.notes
    assert note == (
        f"classact is not held against uniform: classes differ: 'cow' only in {paths[1]}, "
        f"'bee' only in {paths[0]}."
    )


def test_what_an_older_version_did_not_record_is_no_difference(run):
    compared = comparison.compare([run("u"), run("c", "ant", "cow", policy="classact")])
    assert compared.notes == ()
    assert compared.groups[1].rows[0].target is not None
