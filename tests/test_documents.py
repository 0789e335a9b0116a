"""What the documents name exists: files, functions, pages."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FOLDERS = "calls|client|launch|nodes|replay|models|weights|selection|data|experiments|tests|benchmarks|docs"
FOLDERS = f"{FOLDERS}|examples"
# Whose pages are about the past, too.
HISTORY = ("BUILD_NOTES.md", "CHANGELOG.md")


def defined(path, names):
    """Whether a file defines a function or class, or `Class.method`."""
    body = ast.parse(path.read_text()).body
    for name in names.split("."):
        found = [node for node in body if getattr(node, "name", None) == name]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_functions_that_a_page_names_exist(page):
    named = re.findall(r"`([a-z_/]+\.py):([A-Za-z_.]+)`", page.read_text())
    named = [(path, name) for path, name in named if "/" in path]
    missing = [
        f"{path}:{name}"
        for path, name in named
        if not (ROOT / path).is_file() or not defined(ROOT / path, name)
    ]
    assert not missing
    if page.name == "behind_the_scenes.md":
        assert len(named) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    named = re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]+\.(?:py|md|sbatch|yaml))\b", page.read_text())
    missing = sorted({path for path in named if not (ROOT / path).is_file()})
    assert page.name in HISTORY or not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert not sorted({link for link in links if not (page.parent / link).exists()})


def test_the_steps_of_an_example_are_in_order():
    text = (ROOT / "docs" / "behind_the_scenes.md").read_text()
    assert re.findall(r"^\*\*\((\w)\)", text, re.MULTILINE) == list("abcdefgh")


def test_the_readme_is_short_and_says_at_once_what_is_needed():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    first_screen = "\n".join(lines[:40])
    for word in ("Linux", "Python 3.12", "GPU", "SECURITY.md"):
        assert word in first_screen
