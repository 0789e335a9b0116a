"""That the wheels have all of their package and nothing else; nothing is installed from them here."""

import ast
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy
import pytest
import uv

import classact

ROOT = pathlib.Path(classact.__file__).parent
# At the root or below it, what is no part of the package.
NOT_SHIPPED = ("tests/", "benchmarks/", "docs/", "examples/", ".ci/")
AT_THE_ROOT = ("__init__.py", "environments.py", "setup.py", "setup_client.py", "user_code.py")


def repository():
    """The repository's files, new ones included."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {path for path in listed if (ROOT / path).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    # Of a copy: what an earlier build has left in build/ would get in.
    for path in repository():
        if not path.startswith(NOT_SHIPPED):
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, source / path)
    with zipfile.ZipFile(build(source, wheels)) as opened:
        yield opened


def build(source, wheels):
    command = [uv.find_uv_bin(), "build", "--wheel", "--quiet", "--out-dir", str(wheels), str(source)]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = wheels.glob("*.whl")
    return wheel


def test_all_modules_and_data_are_in_it(built):
    inside = {path.removeprefix("classact/") for path in built.namelist() if ".dist-info/" not in path}
    package = {
        path
        for path in repository()
        if not path.startswith(NOT_SHIPPED) and ("/" in path or path in AT_THE_ROOT)
    }
    assert inside == package


def test_it_asks_for_a_python_that_is_tried_and_has_the_command(built):
    (metadata,) = (path for path in built.namelist() if path.endswith(".dist-info/METADATA"))
    assert "Requires-Python: >=3.12" in built.read(metadata).decode()
    (entries,) = (path for path in built.namelist() if path.endswith("entry_points.txt"))
    assert "classact = classact.launch.commands.cli:entry_point" in built.read(entries).decode()


# Finds nothing but Python's own, NumPy and pyzmq, and what is in the wheel.
_ALONE = """
import importlib.abc, sys
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "zmq", "classact"}:
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Nothing())
sys.path[:0] = sys.argv[1:]
from classact import client
print(client.__file__, client.connect("nowhere"))
"""


def test_the_clients_wheel_is_its_folder_and_needs_numpy_and_zmq_alone(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    # As `make client-wheel` does.
    shutil.copytree(ROOT / "client", source / "client", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    shutil.copy(ROOT / "setup_client.py", source / "setup.py")
    wheel = build(source, tmp_path / "wheels")
    assert wheel.name == f"classact_client-{classact.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        inside = {path for path in opened.namelist() if ".dist-info/" not in path}
        opened.extractall(tmp_path / "installed")
    assert inside == {f"classact/{path}" for path in repository() if path.startswith("client/")}
    # Without site, which would find all of classact: it is installed.
    packages = pathlib.Path(numpy.__file__).parents[1]
    command = [sys.executable, "-S", "-c", _ALONE, str(tmp_path / "installed"), str(packages)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "installed"))


def test_the_client_is_written_for_python_3_10():
    for path in (ROOT / "client").glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 10))
