"""Nodes' GPUs: from wishes and a list of devices to each process's environment."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.launch.engines.gpus import Assignment, assign, fit, memory_limit
from classact.launch.engines.outcome import LaunchError

EIGHT = [str(index) for index in range(8)]
SHARES = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.6, 0.75])
WISHES = st.lists(st.one_of(st.integers(0, 4).map(float), SHARES), max_size=10)


def test_the_learner_has_neighbours_and_the_scorer_what_comes_after():
    found = assign({("learner", 0): 6, ("inference/icons", 0): 1, ("evaluator/test", 0): 0}, EIGHT)
    assert found["learner", 0].environment() == {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5"}
    assert found["inference/icons", 0].environment() == {"CUDA_VISIBLE_DEVICES": "6"}
    assert found["evaluator/test", 0].environment() == {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def test_shares_of_one_gpu_divide_its_memory(monkeypatch):
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    found = assign({"learner": 0.75, "inference": 0.25}, ["GPU-5a"])
    assert {item.devices for item in found.values()} == {("GPU-5a",)}
    limits = [float(item.environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"]) for item in found.values()]
    assert limits == [0.675, 0.225]


def test_a_whole_gpu_is_left_to_jax():
    assert memory_limit(1.0) == memory_limit(0.0) == {}


def test_the_limit_has_the_name_that_is_in_use(monkeypatch):
    """JAX refuses to start with both."""
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "")
    assert memory_limit(0.5) == {"XLA_CLIENT_MEM_FRACTION": "0.450"}


def test_a_limit_of_the_users_own_is_shared(monkeypatch):
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")
    assert memory_limit(0.5) == {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.300"}
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "half")
    with pytest.raises(LaunchError, match="XLA_PYTHON_CLIENT_MEM_FRACTION='half': must be a number"):
        memory_limit(0.5)


def test_shares_leave_whole_gpus_to_the_others():
    found = assign({"server 0": 0.5, "server 1": 0.5, "learner": 2}, ["0", "1", "2"])
    assert found["learner"].devices == ("0", "1")
    assert found["server 0"].devices == found["server 1"].devices == ("2",)


@pytest.mark.parametrize(
    ("wishes", "count", "message"),
    [
        (
            {("learner", 0): 6, ("inference/icons", 0): 0.5, ("inference/icons", 1): 0.6},
            7,
            r"asked for 7.1 GPUs of 7: learner 6, inference/icons 0.5, .* 0.6 \(a share lies on one",
        ),
        (
            {("learner", 0): 4, ("learner", 1): 4},
            6,
            r"asked for 8 GPUs of 6: learner 2 × 4; there are: 0, 1, 2, 3, 4, 5",
        ),
        ({"learner": 1}, 0, "asked for 1 GPUs of 0: learner 1; there are: none"),
    ],
)
def test_too_few_are_named(wishes, count, message):
    with pytest.raises(LaunchError, match=message):
        assign(wishes, EIGHT[:count])


@given(WISHES, st.integers(0, 8))
def test_no_device_is_given_to_more_nodes_than_fit_it(wishes, count):
    try:
        found = assign(dict(enumerate(wishes)), EIGHT[:count])
    except LaunchError:
        # Each share alone on a device would have been room enough.
        assert sum(max(1.0, wish) if wish else 0.0 for wish in wishes) > count
        return
    taken = collections.Counter()
    for (key, item), wish in zip(found.items(), wishes, strict=True):
        assert list(found)[key] == key
        assert len(item.devices) == len(set(item.devices)) == (1 if 0 < wish < 1 else wish)
        assert set(item.devices) <= {*EIGHT[:count]}
        taken.update(dict.fromkeys(item.devices, item.share))
    assert all(total <= 1 + 1e-5 for total in taken.values())


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_equal_shares_fill_devices_to_the_last(parts, devices, whole):
    """As many as a division of the devices has room for, and not one more."""
    wishes = [1 / parts] * (parts * devices) + [1.0] * whole
    assert fit(wishes, devices + whole)
    assert not fit([*wishes, 1 / parts], devices + whole)


def test_what_is_free_of_one_gpu_has_room_for_no_more():
    assert fit([1, 0.5], 1.5) and not fit([0.75, 0.75], 1.5) and not fit([0.6, 0.6, 0.6], 2)
    assert fit([], 0) and fit([0], 0) and not fit([0.1], 0)


def test_an_assignment_says_what_it_is():
    assert str(Assignment(("0", "1"))) == "0, 1"
    assert str(Assignment(("3",), 0.25)) == "25% of 3"
    assert str(Assignment()) == "none"
