"""What `docs/extending.md` shows runs: its files as they stand there, with its commands."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from classact.launch.commands import cli, run
from classact.launch.engines.outcome import Outcome

DOCUMENT = pathlib.Path(cli.__file__).parents[2] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
FILES = {re.match(r"# (\w+\.py)\n", text)[1]: text for kind, text in BLOCKS if kind == "python"}
COMMANDS = [shlex.split(text.replace("\\\n", " "))[1:] for kind, text in BLOCKS if kind == "sh"]
pytestmark = pytest.mark.usefixtures("clean_flags")


@pytest.fixture
def place(users_place):
    """A directory with the files of the page, and an album of pictures."""
    for name, text in FILES.items():
        (users_place / name).write_text(text)
    album = users_place / "album"
    album.mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(album / f"{number}.png")
    lines = [f"{number}.png,{word} {number}" for number in range(6) for word in ("red", "dark")]
    (album / "captions.csv").write_text("\n".join(lines))
    return users_place


def test_every_snippet_is_here():
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"}
    assert len(FILES) == 5 and len(COMMANDS) == 5
    named = " ".join(word for command in COMMANDS for word in command)
    assert all(name.removesuffix(".py") in named for name in FILES)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[2].rpartition("/")[2])
def test_a_command_passes_all_checks(place, command, monkeypatch):
    prepared = []
    monkeypatch.setattr(run, "run", lambda made, engine: prepared.append(made) or Outcome("completed"))
    assert cli.main(["classact", *command]) == 0
    assert len(prepared) == 1 and prepared[0].first_lines
    assert not any("training data" in line for line in prepared[0].first_lines)


def test_source_policy_and_model_train_together(place, capsys):
    small = ["--config.steps=4", "--config.log_every=2", "--config.batch_size=8"]
    more = ["--config.policy=my_policies:uncertain", "--config.learner.model=my_models:small_net"]
    assert cli.main(["classact", *COMMANDS[0], *more, *small]) == 0
    result = json.loads((place / "runs" / "squares" / "result.json").read_text())
    assert result["status"] == "completed" and np.isfinite(result["final"]["eval/test/loss"])
    assert "my_sources:open_squares?size=16: 300 images, 3 classes, 16×16×1" in capsys.readouterr().err
