"""That every module of the package imports, on whichever Python this is."""

import pathlib
import subprocess
import sys

import classact

ROOT = pathlib.Path(classact.__file__).parent
FOLDERS = [
    path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "benchmarks")
]

# What is for other environments: with setuptools, and with PyTorch.
ELSEWHERE = ("setup.py", "setup_client.py", "client/torch_data.py")
_IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"


def modules():
    files = [*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in folder.rglob("*.py"))]
    for file in files:
        if file.relative_to(ROOT).as_posix() in ELSEWHERE:
            continue
        parts = file.relative_to(ROOT).with_suffix("").parts
        yield ".".join(["classact", *parts]).removesuffix(".__init__")


def test_every_module_imports_without_a_deprecation_of_ours():
    names = list(modules())
    assert "classact.launch.program" in names and "classact.launch.commands.setup" in names
    # Of our own names alone: what others import is their affair.
    warnings = [f"-Werror::DeprecationWarning:{name}" for name in names]
    done = subprocess.run(
        [sys.executable, *warnings, "-c", _IMPORT, *names], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
