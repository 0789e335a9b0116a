"""What is compiled once serves all tests' processes: also two at once, and after one was killed."""

import os
import subprocess
import sys

PROGRAM = """
import jax
import jax.numpy as jnp
for size in range(1, 9):
    print(float(jax.jit(lambda x: jnp.sum(jnp.sin(x) * x))(jnp.arange(float(size)))))
"""


def start(folder):
    """As the tests' own children, but with a folder of its own."""
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True)


def test_processes_share_what_they_compile_and_doubt_what_is_incomplete(tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    first, second = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert first == second and len(first.split()) == 8
    entries = list(tmp_path.glob("*-cache"))
    assert len(entries) > 8
    # As a killed process leaves them.
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:50])
    third = start(tmp_path)
    assert third.communicate()[0] == first and third.returncode == 0
