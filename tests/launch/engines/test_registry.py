import re
import subprocess
import sys
import textwrap
from pathlib import Path

import puppets
import pytest

from classact.launch.engines import registry

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """A directory whose modules can be imported, as the one in which classact is started."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_every_engine_is_found_by_its_name():
    assert registry.names() == ("processes", "ray", "slurm", "synchronous", "threads")
    found = {name: registry.get(name) for name in registry.names()}
    assert {name for name, engine in found.items() if engine.several_hosts} == {"ray", "slurm"}
    assert {name for name, engine in found.items() if engine.one_process} == {"threads", "synchronous"}
    assert {name for name, engine in found.items() if not engine.resumes} == {"synchronous"}
    assert {name for name, engine in found.items() if not engine.has_nodes} == {"synchronous"}


def test_engines_import_neither_commands_nor_assembly():
    script = """
        import sys
        from classact.launch.engines import on_host, registry
        from classact.launch.engines.ray import actor
        for name in registry.names():
            registry.get(name)
        above = [name for name in sys.modules if name.startswith("classact.launch.")]
        above = [name for name in above if not name.startswith("classact.launch.engines")]
        print(*above, *({"launchpad", "ray", "jax"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "kubernetes",
            r"launch='kubernetes': expected one of processes, ray, .*, threads, or package.module:Class",
        ),
        ("no_such_module:Engine", "launch 'no_such_module:Engine': there is no module no_such_module"),
        ("own_engines:Wrong", "launch 'own_engines:Wrong': own_engines has no 'Wrong'"),
        ("own_engines:NOTHING", "launch='own_engines:NOTHING': must be a class derived from .*Engine"),
        ("own_engines:Unfinished", "launch='own_engines:Unfinished': .*abstract method '?run"),
    ],
)
def test_what_is_no_engine_is_told_in_one_line(importable, name, said):
    (importable / "own_engines.py").write_text(
        "from classact.launch.engines.interface import Engine\n"
        "NOTHING = None\n"
        "class Unfinished(Engine):\n    pass\n"
    )
    with pytest.raises(ValueError, match=said) as found:
        registry.get(name)
    assert "\n" not in str(found.value)


def test_the_example_of_the_page_runs_nodes(importable, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engines.md").read_text(), re.DOTALL)
    (importable / "my_engines.py").write_text(code)
    stage = puppets.Stage()
    niceness = []

    def scene():
        learner, _ = stage.await_puppets(*puppets.LAUNCHED)
        niceness.append(Path(f"/proc/{learner.pid}/stat").read_text().rpartition(")")[2].split()[16])
        learner.tell("return")

    script = puppets.Script(stage, scene)
    try:
        job = puppets.job_of(puppets.program(stage.port), tmp_path / "run")
        outcome = registry.get("my_engines:Nice").run(job)
    finally:
        script.finish()
        stage.close()
    assert outcome.status == "completed"
    assert niceness == ["19"]
