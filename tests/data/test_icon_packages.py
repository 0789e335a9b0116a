import json
import tarfile

import pytest

from classact.data import icon_packages
from classact.data.icon_packages import emoji_captions, fetch_package, read_json
from classact.data.source import DataError


@pytest.fixture
def with_npm(monkeypatch):
    monkeypatch.setattr(icon_packages.shutil, "which", lambda command: command)


def test_packages_are_fetched_by_npm_once(tmp_path, monkeypatch, with_npm):
    calls = []

    def npm(command, cwd, **_):
        calls.append(command)
        (cwd / "package").mkdir()
        (cwd / "package/x.json").write_text("{}")
        with tarfile.open(cwd / "it.tgz", "w:gz") as file:
            file.add(cwd / "package", "package")
        return icon_packages.subprocess.CompletedProcess(command, 0, "it.tgz\n", "")

    monkeypatch.setattr(icon_packages.subprocess, "run", npm)
    folder = fetch_package("@some/json@1.0", tmp_path)
    assert folder == fetch_package("@some/json@1.0", tmp_path)
    assert (folder / "x.json").read_text() == "{}"
    assert calls == [["npm", "pack", "@some/json@1.0", "--silent"]]
    assert not (tmp_path / "it.tgz").exists()


def test_without_npm_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="there is no npm"):
        fetch_package("x@1", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_failure_of_npm_is_told(tmp_path, monkeypatch, with_npm):
    def npm(command, **_):
        raise icon_packages.subprocess.CalledProcessError(1, command, "", "no network\n")

    monkeypatch.setattr(icon_packages.subprocess, "run", npm)
    with pytest.raises(DataError, match="npm pack x@1 --silent failed: no network"):
        fetch_package("x@1", tmp_path)


def test_emoji_are_joined_to_their_words_by_codepoint(tmp_path):
    (tmp_path / "json").mkdir()
    chars = {"2764": "red-heart", "1f468-200d-2764-fe0f": "couple", "e000": "private"}
    (tmp_path / "json/emo.json").write_text(json.dumps({"chars": chars}))
    (tmp_path / "en").mkdir()
    words = [
        {"hexcode": "2764-FE0F", "label": "red heart", "tags": ["heart", "love"]},
        {"hexcode": "1F468-200D-2764", "label": "couple"},
        {"hexcode": "1F999", "label": "llama"},
    ]
    (tmp_path / "en/data.json").write_text(json.dumps(words))
    assert emoji_captions(tmp_path, tmp_path, ["emo"]) == {
        "emo": {"red-heart": ("red heart", "heart, love"), "couple": ("couple",)}
    }


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    for name in ("a", "none"):
        with pytest.raises(DataError, match=rf"{name}\.json: cannot be read"):
            read_json(tmp_path / f"{name}.json")
