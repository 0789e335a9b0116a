"""That the wheel has all of the package and nothing else; nothing is installed from it here."""

import pathlib
import shutil
import subprocess
import zipfile

import pytest
import uv

import classact

ROOT = pathlib.Path(classact.__file__).parent
# At the root or below it, what is no part of the package.
NOT_SHIPPED = ("tests/", "benchmarks/", "docs/", ".ci/")
AT_THE_ROOT = ("__init__.py", "environments.py", "setup.py", "user_code.py")


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
    command = [uv.find_uv_bin(), "build", "--wheel", "--quiet", "--out-dir", str(wheels), str(source)]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        yield opened


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
