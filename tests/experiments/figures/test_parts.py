"""The runs of the figures: names, configurations, references, baselines."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data import specs
from classact.experiments import resolution, sweeps
from classact.experiments.figures import halves, parts
from classact.experiments.figures.parts import Part

made = st.builds(
    Part,
    st.sampled_from(["uniform", "classact", "easy_reference", "classact_online", "reference"]),
    data=st.sampled_from(["icons", "fashion"]),
    noise=st.sampled_from([0.0, 0.1, 0.3]),
    learner=st.sampled_from(["mu_6_1", "mu_6_2"]),
    lr=st.sampled_from([1e-3, 3e-4]),
    alpha=st.sampled_from([0.25, 1.0]),
    ref_noise=st.sampled_from([0.0, 0.3]),
    steps=st.sampled_from([500, 1000]),
    on=st.sampled_from(halves.HALVES),
    seed=st.integers(0, 3),
)


@given(made)
def test_a_name_is_that_of_one_part(part):
    assert parts.parse(part.name) == part


@given(made)
def test_a_run_and_its_baseline_differ_in_what_selection_needs_alone(part):
    if part.policy in ("reference", "uniform"):
        assert parts.baseline(part.name) is None
        return
    ours, theirs = (parts.get_config(name).to_dict() for name in (part.name, parts.baseline(part.name)))
    differing = {name for name in ours if ours[name] != theirs[name]}
    assert differing <= {"policy", "temperature", "filter_ratio", "scorer", "selection", "reference"}
    if part.policy != "classact_online":
        reference = parts.get_config(ours["reference"]["checkpoint"])
        assert reference.learner.model == ours["scorer"]["model"]
        assert (reference.seed, reference.label_noise) == (part.seed, part.ref_noise)


@pytest.mark.parametrize(
    "name", ["classact,size=3", "classact,seed=one", "classact,noise=0.30", "classact,data=x"]
)
def test_a_wrong_name_is_an_error(name):
    with pytest.raises(ValueError, match=r"classact|one"):
        parts.get_config(name)


def test_baselines_come_with_their_runs_and_once():
    names = parts.with_baselines(
        Part("classact", alpha=alpha, seed=seed) for alpha in (0.5, 1.0) for seed in (0, 1)
    )
    assert names == (
        "uniform", "classact,alpha=0.5", "classact",
        "uniform,seed=1", "classact,alpha=0.5,seed=1", "classact,seed=1",
    )  # fmt: skip


def test_every_run_of_every_figure_resolves_with_its_references(figure):
    found = sweeps.parts(figure.RUNS, figure.get_config)
    assert set(figure.RUNS) <= set(found)
    for part in found.values():
        resolution.resolve(part.placed({name: f"runs/{name}" for name in part.references}))
        other = figure.baseline(part.name)
        assert other is None or other in found


def test_the_halves_are_disjoint_whole_and_keep_each_class_half():
    whole = specs.open_source("icons?classes=50", "eval")
    spec = "classact.experiments.figures.halves:open_half:{}?source=icons&classes=50"
    first, second = (specs.open_source(spec.format(half), "eval") for half in halves.HALVES)
    every = [source.batch(np.arange(source.num_examples)) for source in (first, second)]
    ids = np.concatenate([batch["id"] for batch in every])
    np.testing.assert_array_equal(np.sort(ids), np.sort(whole.ids(np.arange(whole.num_examples))))
    counts = [np.bincount(batch["label"], minlength=50) for batch in every]
    assert np.abs(counts[0] - counts[1]).max() <= 2
    assert dataclasses.is_dataclass(Part) and first.class_names == whole.class_names
