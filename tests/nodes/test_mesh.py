"""Eight virtual devices, in one process and in two, train what one device does."""

import importlib.util
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from classact.nodes import mesh as mesh_lib
from classact.nodes import training

_PATH = pathlib.Path(__file__).with_name("mesh_cases.py")
_spec = importlib.util.spec_from_file_location("mesh_cases", _PATH)
mesh_cases = importlib.util.module_from_spec(_spec)
sys.modules["mesh_cases"] = mesh_cases
_spec.loader.exec_module(mesh_cases)


def start(folder, devices, hosts=1, host=0, coordinator=""):
    """A process with that many devices and one compute thread, as a learner node has by default."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    arguments = [sys.executable, str(_PATH), str(folder), str(hosts), str(host), coordinator]
    return subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(*processes):
    for process in processes:
        said, _ = process.communicate(timeout=280)
        assert process.returncode == 0, said


def load(path):
    with np.load(path) as file:
        return [file[name] for name in file.files]


@pytest.fixture(scope="module")
def one_device():
    """By task: the values of one device, and how far they depend on the order of a batch."""
    found = {}
    for task in ("classification", "contrastive"):
        case = mesh_cases.Case(task)
        order = np.random.default_rng(0).permutation(mesh_cases.BATCH)
        values, permuted = (
            jax.tree.leaves((run["params"], run["metrics"]))
            for run in (mesh_cases.train(case, None), mesh_cases.train(case, None, order))
        )
        found[task] = values, max(np.abs(a - b).max() for a, b in zip(values, permuted, strict=True))
    return found


def assert_equal_to_one_device(one_device, case, values):
    """Up to ten times what another order of the same examples changes.

    Both only change in which order numbers of float32 are summed, and Adam makes that
    larger where a gradient is nearly 0: it divides by the gradient's size.
    """
    expected, rounding = one_device[case.task]
    assert 0 < rounding < 1e-4  # The parameters move by 20 times 1e-3.
    for a, b in zip(expected, values, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=10 * rounding)


@pytest.fixture(scope="module")
def eight_devices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eight")
    wait_for(start(folder, devices=8))
    return folder


@pytest.mark.parametrize("name", mesh_cases.CASES)
def test_eight_devices_train_what_one_does(eight_devices, one_device, name):
    values = load(eight_devices / f"{name}-0.npz")
    assert_equal_to_one_device(one_device, mesh_cases.CASES[name], values)


def test_two_processes_of_four_devices_do_too(tmp_path, one_device):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    wait_for(*(start(tmp_path, 4, hosts=2, host=host, coordinator=coordinator) for host in range(2)))
    for name, case in mesh_cases.CASES.items():
        first, second = (load(tmp_path / f"{name}-{host}.npz") for host in range(2))
        # Each host has the whole of the parameters.
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
        assert_equal_to_one_device(one_device, case, first)
