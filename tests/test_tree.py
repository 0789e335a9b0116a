"""What holds for all modules that are shipped: their size, and that none imports Reverb or TensorFlow."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = (
    "launch",
    "nodes",
    "experiments",
    "replay",
    "models",
    "weights",
    "selection",
    "data",
    "calls",
    "client",
)
MODULES = sorted((*ROOT.glob("*.py"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))))
MOST_LINES = 350


def imported(path):
    """The packages that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


def test_every_folder_of_the_package_is_looked_at():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(FOLDERS)


def test_no_module_is_longer_than_one_can_read():
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_nobody_imports_reverb_or_tensorflow():
    # The program of the replay's server, in an environment of its own, loads Reverb's library by its path.
    unwanted = {"reverb", "tensorflow"}
    named = [path for path in MODULES if any(name in path.read_text() for name in unwanted)]
    found = {str(path.relative_to(ROOT)): unwanted & set(imported(path)) for path in named}
    assert {path: packages for path, packages in found.items() if packages} == {}
