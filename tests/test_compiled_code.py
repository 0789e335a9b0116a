"""What is compiled once serves all tests' processes: also two at once, and after one was killed."""

import os
import subprocess
import sys

# As the tests' own children have it, but for the folder.
PROGRAM = """
import warnings
warnings.simplefilter("error")
import jax
import jax.numpy as jnp
for size in range(1, 9):
    print(float(jax.jit(lambda x: jnp.sum(jnp.sin(x) * x))(jnp.arange(float(size)))))
"""


def start(folder):
    assert float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) == 0
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) > 0
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_a_folder(tmp_path):
    both = [start(tmp_path), start(tmp_path)]
    first, second = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert first == second and len(first.split()) == 8
    assert len(list(tmp_path.glob("*-cache"))) > 8


def test_what_a_killed_process_left_incomplete_is_compiled_anew(tmp_path):
    whole, _ = start(tmp_path).communicate()
    for entry in tmp_path.glob("*-cache"):
        entry.write_bytes(entry.read_bytes()[:50])
    # Said as warnings, which a program of ours does not turn into errors.
    program = PROGRAM.replace('"error"', '"ignore"')
    again = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert again.returncode == 0 and again.stdout == whole
