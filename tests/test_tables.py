"""A whole program on a table."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_files import example, write_arrayrecords
from sklearn.datasets import load_digits
from table_files import png

from classact.launch.commands import cli

CONFIGS = pathlib.Path(cli.__file__).parents[2] / "experiments" / "configs"
SMALL = [
    "--config.patch_size=4", "--config.learner.model=vit_mu_1_1", "--config.scorer.model=vit_mu_1_1",
    "--config.batch_size=32", "--config.steps=20", "--config.log_every=10", "--config.policy=hard_learner",
]  # fmt: skip
pytestmark = pytest.mark.usefixtures("clean_flags")


def digits():
    """scikit-learn's: images uint8[N, 8, 8], and labels."""
    found = load_digits()
    return np.rint(found.images * (255 / 16)).astype(np.uint8), found.target


def train(config, spec, *arguments):
    return cli.main(
        [
            "classact",
            "train",
            f"--config={CONFIGS}/{config}.py",
            f"--config.train_data={spec}",
            *SMALL,
            *arguments,
        ]
    )


def write_parquet(encoded, labels):
    table = pa.table({"image": encoded, "label": labels})
    pq.write_table(table, "digits.parquet", row_group_size=200)


def write_arrayrecord(encoded, labels):
    examples = [example(image=image, label=int(label)) for image, label in zip(encoded, labels, strict=True)]
    write_arrayrecords("digits.arrayrecord", examples)


@pytest.mark.parametrize("write", [write_parquet, write_arrayrecord])
def test_digits_in_a_file_are_trained_on_and_measured_on_what_is_held_out(
    tmp_path, monkeypatch, capsys, write
):
    monkeypatch.chdir(tmp_path)
    images, labels = digits()
    encoded = [png(image) for image in images]
    encoded[5] = b"<html>404</html>"
    write(encoded, labels)
    kind = write.__name__.rpartition("_")[2]
    spec = f"{kind}:digits.{kind}?channels=1"
    assert train("classification", spec, "--workdir=run", "--launch=synchronous") == 0
    said = capsys.readouterr().err
    assert f"{spec}: 1,707 images, 10 classes, 8×8×1" in said
    assert "images a class: 165 to 174" in said and "held out to measure on" in said
    result = json.loads(pathlib.Path("run/result.json").read_text())
    assert result["status"] == "completed" and result["final"]["eval/test/top1"] > 0.2
