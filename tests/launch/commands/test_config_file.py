"""Configuration files; `tests/test_bad_inputs.py` has those that fail."""

import pytest

from classact.launch.commands import config_file


@pytest.mark.parametrize(
    ("argv", "file", "rest"),
    [
        (["train", "--config=a.py:b", "--config.steps=3"], "a.py:b", ["train", "--config.steps=3"]),
        (["train", "--workdir", "x", "--config", "a.py"], "a.py", ["train", "--workdir", "x"]),
        (["train", "-config=a.py", "--config=b.py"], "b.py", ["train"]),
        (["train", "--config"], "", ["train"]),
        (["train", "--", "--config=a.py"], "", ["train", "--", "--config=a.py"]),
    ],
)
def test_the_file_is_taken_out_of_the_command_line(argv, file, rest):
    assert config_file.split(argv) == (file, rest)


def test_a_file_is_run_without_leaving_anything_beside_it(tmp_path):
    text = """
        import dataclasses
        from ml_collections import ConfigDict

        @dataclasses.dataclass
        class Own:
            part: "str"

        def get_config(part="whole"):
            return ConfigDict({"part": Own(part).part, "file": __file__})
    """
    path = tmp_path / "mine.py"
    path.write_text("\n".join(line[8:] for line in text.splitlines()))
    assert config_file.load(str(path)).to_dict() == {"part": "whole", "file": str(path)}
    # Only the first colon parts.
    assert config_file.load(f"{path}:a:b").part == "a:b"
    assert list(tmp_path.iterdir()) == [path]
