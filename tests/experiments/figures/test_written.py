import numpy as np
import pytest

from classact.data.source import DataError
from classact.data.specs import open_source
from classact.experiments.figures import formats, written

COUNT = 30
WRITTEN = "classact.experiments.figures.written:open_written"


@pytest.mark.parametrize("kind", written.FORMATS)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_format_has_the_same_examples_in_the_same_order(kind, split, tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSACT_DATA", str(tmp_path))
    rows = np.arange(COUNT)
    expected = open_source("digits", split).batch(rows)
    # The second time it is there.
    for _ in range(2):
        source = open_source(f"{WRITTEN}:{kind}?source=digits&count={COUNT}", split)
        batch = source.batch(rows)
        assert source.num_examples == COUNT and source.num_classes == 10 and source.has_splits
        assert batch["id"].tolist() == rows.tolist()
        assert all(np.array_equal(batch[name], expected[name]) for name in ("image", "label"))
    assert not list(tmp_path.rglob("*.partial"))


def test_another_format_is_refused():
    with pytest.raises(DataError, match=r"open_written:zip: expected one of tar, parquet, tfrecord, array"):
        open_source(f"{WRITTEN}:zip", "train")


def test_the_runs_differ_in_their_files_alone():
    for part in formats.RUNS:
        config, other = formats.get_config(part), formats.get_config(formats.baseline(part) or part)
        assert (config.train_data == other.train_data) == part.startswith("idx-")
        config.train_data = other.train_data
        assert config == other
