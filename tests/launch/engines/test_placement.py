import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.placement import Host, Needs, place


def host(name, cpus=4, memory_gb=8.0, gpus=0, partitions=("cpu",)):
    return Host(name, f"{name}.example", cpus, memory_gb, gpus, partitions)


def names(placed):
    return {key: host.name for key, host in placed.items()}


def test_nodes_spread_over_equal_hosts():
    needs = {("inference/icons", index): Needs() for index in range(3)}
    assert set(names(place(needs, [host("a"), host("b"), host("c")])).values()) == {"a", "b", "c"}


def test_the_learner_gets_the_accelerator_and_the_others_leave_it_alone():
    needs = {("replay/icons", 0): Needs(cpus=2), ("learner", 0): Needs(cpus=1, gpus=1)}
    hosts = [host("gpu", cpus=16, gpus=1), host("cpu", cpus=2)]
    assert names(place(needs, hosts)) == {("replay/icons", 0): "cpu", ("learner", 0): "gpu"}


def test_shares_of_an_accelerator_go_where_one_has_room():
    needs = {("inference/icons", index): Needs(gpus=0.6) for index in range(3)}
    hosts = [host("a", cpus=9, gpus=2), host("b", cpus=8, gpus=1)]
    assert sorted(names(place(needs, hosts)).values()) == ["a", "a", "b"]
    # 1.8 of 2 are asked for, but no two of them fit one.
    with pytest.raises(LaunchError, match=r"no host has room for inference/icons 2, .* 0\.6 GPUs"):
        place(needs, hosts[:1])


def test_hosts_with_accelerators_take_what_fits_nowhere_else():
    placed = place({("replay/icons", 0): Needs(cpus=3)}, [host("gpu", cpus=4, gpus=1), host("cpu", cpus=2)])
    assert names(placed) == {("replay/icons", 0): "gpu"}


def test_a_partition_is_where_a_node_runs():
    hosts = [host("a", cpus=64), host("b", partitions=("cpu", "accelerator"))]
    placed = place({("learner", 0): Needs(partition="accelerator")}, hosts)
    assert placed[("learner", 0)] == hosts[1]


def test_a_partitions_host_is_for_those_that_must_be_there_first():
    needs = {("replay/icons", 0): Needs(cpus=2), ("learner", 0): Needs(cpus=2, partition="accelerator")}
    hosts = [host("a", cpus=2, partitions=("accelerator",)), host("b", cpus=2)]
    assert names(place(needs, hosts)) == {("replay/icons", 0): "b", ("learner", 0): "a"}


def test_what_fits_nowhere_is_named_with_what_is_left():
    needs = {("replay/icons", 0): Needs(cpus=3), ("learner", 0): Needs(cpus=2, memory_gb=1.5)}
    with pytest.raises(LaunchError, match=r"learner 0, .* 2 CPUs, 1.5 GB; left are: a \(1 CPUs, 8 GB"):
        place(needs, [host("a")])
    with pytest.raises(LaunchError, match="in partition 'gpu'; left are: none"):
        place({("learner", 0): Needs(partition="gpu")}, [])


@given(
    st.lists(st.builds(Needs, st.integers(1, 4), st.floats(0, 4), st.integers(0, 1)), max_size=8),
    st.lists(st.tuples(st.integers(1, 8), st.floats(0, 16), st.integers(0, 2)), max_size=4),
)
def test_no_host_is_given_more_than_it_has(needs, sizes):
    hosts = [host(str(index), *size) for index, size in enumerate(sizes)]
    wanted = dict(enumerate(needs))
    try:
        placed = place(wanted, hosts)
    except LaunchError:
        return
    assert list(placed) == list(wanted)
    for one in hosts:
        here = [wanted[key] for key, found in placed.items() if found == one]
        assert sum(need.cpus for need in here) <= one.cpus
        assert sum(need.memory_gb for need in here) <= one.memory_gb + 1e-9
        assert sum(need.gpus for need in here) <= one.gpus
