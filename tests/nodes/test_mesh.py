"""Eight virtual devices, in one process and in two, train what one device does."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import filelock
import jax
import numpy as np
import pytest

from classact.nodes import mesh as mesh_lib

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import mesh_cases


def start(folder, *names, devices, hosts=1, host=0, coordinator=""):
    """A process with that many devices and one compute thread, as a learner node has by default."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
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
    """By task: the arrays of one device, and what it makes of batches in three other orders."""
    found = {}
    rng = np.random.default_rng(0)
    for task in ("classification", "contrastive"):
        case = mesh_cases.Case(task)
        orders = (None, *(rng.permutation(mesh_cases.BATCH) for _ in range(3)))
        found[task] = [jax.tree.leaves(mesh_cases.train(case, None, order)[0]) for order in orders]
    return found


def assert_equal_to_one_device(one_device, task, arrays):
    """Up to a few times what another order of the same examples changes.

    Both only change in which order numbers of float32 are summed, and Adam makes that
    larger where a gradient is nearly 0: it divides by the gradient's size. That may be a
    single number anywhere, so one tolerance is for the largest difference in all arrays,
    and a finer one for the root mean square in each. 1e-6 is the rounding of the numbers
    themselves, which are up to about 10.
    """
    expected, *permuted = one_device[task]
    largest = max(np.abs(a - b).max() for other in permuted for a, b in zip(expected, other, strict=True))
    # Far less than the 20 times 1e-3 by which training moves the parameters.
    assert 0 < largest < 1e-3
    for index, (wanted, found) in enumerate(zip(expected, arrays, strict=True)):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=4 * largest)
        mean = max(_root_mean_square(wanted - other[index]) for other in permuted)
        assert _root_mean_square(wanted - found) < 10 * max(mean, 1e-6)


def _root_mean_square(array):
    return np.sqrt(np.mean(np.square(array)))


@pytest.fixture(scope="module")
def eight_devices(tmp_path_factory, worker_id):
    """What eight devices made, once for all workers of a run of the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "eight"
    with filelock.FileLock(f"{folder}.lock", timeout=300):
        if not (folder / "made").exists():
            folder.mkdir(exist_ok=True)
            wait_for(start(folder, *mesh_cases.ONE_HOST, devices=8))
            (folder / "made").touch()
    return folder


@pytest.mark.parametrize("name", mesh_cases.ONE_HOST)
def test_eight_devices_train_what_one_does(eight_devices, one_device, name):
    case = mesh_cases.CASES[name]
    held, values = load(eight_devices / f"{name}-0.npz")
    assert_equal_to_one_device(one_device, case.task, values)
    # All but the small arrays is split.
    assert 1 / case.fsdp <= held < 1 / case.fsdp + 0.1 * (case.fsdp > 1) + 1e-6


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_eight_devices_have_the_whole_batchs_gradients_in_two_passes(eight_devices, loss):
    expected = jax.tree.leaves(mesh_cases.whole_gradients(None, loss, 1, 0.25))
    with np.load(eight_devices / f"{loss}.npz") as file:
        found = [file[name] for name in file.files]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_an_inference_server_uses_eight_devices(eight_devices):
    expected = mesh_cases.score(None)
    assert expected.shape == (mesh_cases.REQUEST,) and np.ptp(expected) > 0.01
    np.testing.assert_allclose(np.load(eight_devices / "scores-0.npy"), expected, rtol=1e-4, atol=1e-5)


def test_eight_devices_choose_what_one_does(eight_devices):
    np.testing.assert_array_equal(np.load(eight_devices / "chosen.npy"), mesh_cases.choose(None))


def test_an_evaluator_uses_eight_devices(eight_devices):
    found = json.loads((eight_devices / "evaluated.json").read_text())
    expected = mesh_cases.evaluate(None)
    assert 0 < expected["i2t_r5"] < 1 and expected["loss"] > 0.1
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# A coordinator of one host, and the addresses at which it listens on a port.
COORDINATOR = """
import sys
import psutil
from classact.nodes import mesh

_, host, port = sys.argv
mesh.join_hosts(f"{host}:{port}", 1, 0)
found = psutil.Process().net_connections("inet")
print(*(c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == int(port)))
"""


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", {"127.0.0.1", "::ffff:127.0.0.1"}), ("localhost", {"::", "0.0.0.0"})]
)
def test_hosts_of_one_machine_meet_on_its_loopback(host, expected):
    done = subprocess.run(
        [sys.executable, "-c", COORDINATOR, host, str(free_port())],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (address,) = done.stdout.split()
    assert address in expected


def test_two_processes_of_four_devices_do_too(tmp_path, one_device):
    coordinator = f"127.0.0.1:{free_port()}"
    names = mesh_cases.SEVERAL_HOSTS
    several = {"devices": 4, "hosts": 2, "coordinator": coordinator}
    wait_for(*(start(tmp_path, *names, **several, host=host) for host in range(2)))
    for name in names:
        (_, first), (_, second) = (load(tmp_path / f"{name}-{host}.npz") for host in range(2))
        # Each host has the whole of the parameters.
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)
        assert_equal_to_one_device(one_device, mesh_cases.CASES[name].task, first)


def test_several_hosts_of_cpus_do_not_split_parameters(monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 4)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"mesh\.fsdp=2: must be 1 on the CPUs of several hosts"):
        mesh_lib.make_mesh(2)


def test_one_device_needs_no_mesh():
    assert jax.device_count() == 1
    assert mesh_lib.make_mesh() is None and mesh_lib.local_mesh() is None
    params = {"w": np.ones(3)}
    assert mesh_lib.first_copy(None, params) is params


def test_devices_that_cannot_be_shared_evenly_are_named():
    with pytest.raises(ValueError, match=r"mesh\.fsdp=3: must divide .* 1 a host"):
        mesh_lib.make_mesh(3)
