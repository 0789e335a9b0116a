import dataclasses

from classact.experiments import base
from classact.experiments.resolution import resolve
from classact.launch.engines.cluster import needs_of, resources_of_kinds
from classact.launch.engines.placement import Needs

GROUPS = {"replay/icons": ["node"], "learner": ["node"], "inference/icons": ["node", "node"]}


def cluster(**kinds):
    config = resolve({**base.get_config().to_dict(), "policy": "uniform"}).cluster
    changed = {kind: dataclasses.replace(getattr(config, kind), **fields) for kind, fields in kinds.items()}
    return dataclasses.replace(config, **changed)


def test_every_node_of_a_kind_needs_the_same():
    own = cluster(learner={"gpus": 2, "partition": "gpu"}, inference={"cpus": 3, "memory_gb": 1.5})
    assert needs_of(own, GROUPS) == {
        ("replay/icons", 0): Needs(),
        ("learner", 0): Needs(gpus=2, partition="gpu"),
        ("inference/icons", 0): Needs(cpus=3, memory_gb=1.5),
        ("inference/icons", 1): Needs(cpus=3, memory_gb=1.5),
    }


def test_cpus_are_rounded_up_to_whole_cores():
    own = cluster(inference={"cpus": 3}, learner={"cpus": 4})
    found = needs_of(own, GROUPS, threads_per_core=2)
    assert [need.cpus for need in found.values()] == [2, 4, 4, 4]


def test_a_node_without_gpus_of_its_own_sees_none():
    found = resources_of_kinds(cluster(learner={"gpus": 1, "cpus": 8}, inference={"cpus": 2}), GROUPS)
    assert set(found) == {"replay", "learner", "inference"}
    learner, inference = found["learner"].environment(), found["inference"].environment()
    assert (
        learner["NPROC"] == "8" and "JAX_PLATFORMS" not in learner and "CUDA_VISIBLE_DEVICES" not in learner
    )
    assert inference["NPROC"] == "2"
    assert (inference["JAX_PLATFORMS"], inference["CUDA_VISIBLE_DEVICES"]) == ("cpu", "")


def test_a_node_with_a_share_of_a_gpu_keeps_to_its_share_of_the_memory():
    inference = resources_of_kinds(cluster(inference={"gpus": 0.5}), GROUPS)["inference"].environment()
    assert inference["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.450"
    # The engine has said which one it is.
    assert "CUDA_VISIBLE_DEVICES" not in inference
