"""Eight virtual devices, in one process and in two, train what one device does."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from classact.nodes import mesh as mesh_lib

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import mesh_cases

# Compiles in half the time, and computes the same.
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def start(folder, *names, devices, hosts=1, host=0, coordinator=""):
    """A process with that many devices and one compute thread, as a learner node has by default."""
    flags = f"--xla_force_host_platform_device_count={devices} {_QUICK}"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    arguments = [mesh_cases.__file__, folder, hosts, host, coordinator, *names]
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(*processes):
    for process in processes:
        said, _ = process.communicate(timeout=280)
        assert process.returncode == 0, said


def load(path):
    """(share of the state on the first device, values)."""
    with np.load(path) as file:
        held, *values = (file[name] for name in file.files)
    return float(held), values


@pytest.fixture(scope="module")
def one_device():
    """By task: the values of one device, and how far each array depends on the order of a batch."""
    found = {}
    rng = np.random.default_rng(0)
    for task in ("classification", "contrastive"):
        case = mesh_cases.Case(task)
        values, *permuted = (
            jax.tree.leaves(mesh_cases.train(case, None, order)[0])
            for order in (None, *(rng.permutation(mesh_cases.BATCH) for _ in range(3)))
        )
        rounding = [
            max(np.abs(array - other[index]).max() for other in permuted)
            for index, array in enumerate(values)
        ]
        found[task] = values, rounding
    return found


def assert_equal_to_one_device(one_device, task, values):
    """Up to ten times what other orders of the same examples change, array by array.

    Both only change in which order numbers of float32 are summed, and Adam makes that
    larger where a gradient is nearly 0: it divides by the gradient's size. Below 1e-6
    are the roundings of the numbers themselves, which are up to about 10.
    """
    expected, rounding = one_device[task]
    # Far less than the 20 times 1e-3 by which training moves the parameters.
    assert 0 < max(rounding) < 1e-3
    for array, found, change in zip(expected, values, rounding, strict=True):
        np.testing.assert_allclose(found, array, rtol=0, atol=10 * max(change, 1e-6))


@pytest.fixture(scope="module")
def eight_devices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eight")
    wait_for(start(folder, *mesh_cases.CASES, devices=8))
    return folder


@pytest.mark.parametrize("name", mesh_cases.CASES)
def test_eight_devices_train_what_one_does(eight_devices, one_device, name):
    case = mesh_cases.CASES[name]
    held, values = load(eight_devices / f"{name}-0.npz")
    assert_equal_to_one_device(one_device, case.task, values)
    # All but the small arrays is split.
    assert 1 / case.fsdp <= held < 1 / case.fsdp + 0.1 * (case.fsdp > 1) + 1e-6


def test_an_inference_server_uses_eight_devices(eight_devices):
    expected = mesh_cases.score(None)
    assert expected.shape == (mesh_cases.REQUEST,) and np.ptp(expected) > 0.01
    np.testing.assert_allclose(np.load(eight_devices / "scores-0.npy"), expected, rtol=1e-4, atol=1e-5)


def test_two_processes_of_four_devices_do_too(tmp_path, one_device):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    names = ("data_parallel", "contrastive_split_by_two")
    several = {"devices": 4, "hosts": 2, "coordinator": coordinator}
    wait_for(*(start(tmp_path, *names, **several, host=host) for host in range(2)))
    for name in names:
        (_, first), (_, second) = (load(tmp_path / f"{name}-{host}.npz") for host in range(2))
        # Each host has the whole of the parameters.
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
        assert_equal_to_one_device(one_device, mesh_cases.CASES[name].task, first)


def test_one_device_needs_no_mesh():
    assert jax.device_count() == 1
    assert mesh_lib.make_mesh() is None and mesh_lib.local_mesh() is None
    params = {"w": np.ones(3)}
    assert mesh_lib.first_copy(None, params) is params


def test_devices_that_cannot_be_shared_evenly_are_named():
    with pytest.raises(ValueError, match=r"mesh\.fsdp=3: must divide .* 1 a host"):
        mesh_lib.make_mesh(3)
