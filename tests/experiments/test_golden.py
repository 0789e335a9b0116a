"""A changed default, or a changed configuration, shows in review: as a changed golden file."""

import difflib

import golden_configs
import pytest


@pytest.mark.parametrize("name", golden_configs.names())
def test_a_configuration_resolves_to_what_its_golden_file_says(name):
    golden = golden_configs.path(name)
    assert golden.exists(), f"{golden} is missing: `make golden` writes it"
    before, now = golden.read_text().splitlines(), golden_configs.text(name).splitlines()
    changed = "\n".join(difflib.unified_diff(before, now, "golden", "now", lineterm="", n=0))
    assert not changed, f"{name}.py resolves to other values; if they are meant, `make golden`:\n{changed}"


def test_each_golden_file_is_of_a_configuration():
    assert {path.stem for path in golden_configs.FOLDER.glob("*.json")} == set(golden_configs.names())


def test_the_parts_of_a_file_are_told_apart():
    text = golden_configs.text("demo")
    assert '"demo.py:uniform": {\n    "policy": "uniform"' in text
    assert text.count('"steps": 1000') == 1
