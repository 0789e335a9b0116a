import os
import subprocess
import sys

import pytest

from classact.launch.engines.outcome import LaunchError
from classact.launch.engines.resources import (
    Resources,
    check_labels,
    common_environment,
    proxy_exceptions,
    resources_of,
    thread_limits,
)

LABELS = ["learner", "replay/icons", "evaluator/test"]

# Counts the threads that share a matrix product's work, by the processor time of each.
COUNT_BUSY_THREADS = """
import os
import jax, jax.numpy as jnp

def ticks():
    stats = {}
    for thread in os.listdir("/proc/self/task"):
        fields = open(f"/proc/self/task/{thread}/stat").read().rsplit(")", 1)[1].split()
        stats[thread] = int(fields[11])
    return stats

x = jnp.ones((1024, 1024))
multiply = jax.jit(lambda x: jnp.tanh(x @ x))
multiply(x).block_until_ready()
before = ticks()
for _ in range(40):
    multiply(x).block_until_ready()
spent = [after - before.get(thread, 0) for thread, after in ticks().items()]
print(sum(ticks > 0.2 * max(spent) for ticks in spent))
"""


def test_no_wish_sets_nothing():
    assert Resources().environment() == {}


def test_every_wish_is_a_variable():
    resources = Resources(threads=3, jax_platforms="cpu", cuda_visible_devices="1", env={"NPROC": "5"})
    variables = resources.environment()
    assert variables["JAX_PLATFORMS"] == "cpu"
    assert variables["CUDA_VISIBLE_DEVICES"] == "1"
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["NPROC"] == "5"  # What is asked for by name wins.


def test_no_thread_at_all_is_refused():
    with pytest.raises(ValueError, match="threads = 0"):
        Resources(threads=0)


def test_jax_computes_with_one_thread_if_told_so():
    environment = {**os.environ, **thread_limits(1), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", COUNT_BUSY_THREADS]
    counted = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(counted.stdout) == 1


def test_the_longest_covering_prefix_wins():
    entries = {"": Resources(threads=1), "replay": Resources(threads=2), "replay/icons": Resources(threads=3)}
    assert resources_of("learner", entries).threads == 1
    assert resources_of("replay/digits", entries).threads == 2
    assert resources_of("replay/icons", entries).threads == 3
    assert resources_of("replays", entries).threads == 1  # Prefixes end where a part ends.
    assert resources_of("learner", {}) == Resources()


def test_entries_for_labels_and_their_first_parts_pass():
    check_labels(dict.fromkeys(["", "learner", "replay", "replay/icons"], Resources()), LABELS)


@pytest.mark.parametrize("entry", ["leaner", "replay/digits", "repl"])
def test_an_entry_for_nothing_is_refused(entry):
    with pytest.raises(LaunchError, match=f"'{entry}'.*learner, replay/icons, evaluator/test"):
        check_labels({entry: Resources()}, LABELS)


def test_proxies_are_kept_out_and_other_exceptions_kept(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org,host1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_grpc_proxy", "")
    assert proxy_exceptions(["host1", "host2"]) == {
        "no_proxy": "example.org,host1,localhost,127.0.0.1,::1,host2",
        "NO_PROXY": "localhost,127.0.0.1,::1,host1,host2",
        "no_grpc_proxy": "localhost,127.0.0.1,::1,host1,host2",
    }


def test_grpcs_own_exceptions_are_not_made_up(monkeypatch):
    # Were it set, gRPC would no longer read no_proxy.
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    assert "no_grpc_proxy" not in proxy_exceptions([])


@pytest.mark.parametrize(("level", "passed_on"), [(None, "2"), ("1", "2"), ("0", "0"), ("3", "3")])
def test_logs_are_quiet_unless_asked_for(monkeypatch, level, passed_on):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    assert common_environment([])["TF_CPP_MIN_LOG_LEVEL"] == passed_on
