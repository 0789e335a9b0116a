"""What `docs/from_python.md` shows runs: its blocks, one after the other, as in a notebook."""

import pathlib
import re

import numpy as np
import pytest

import classact

ROOT = pathlib.Path(classact.__file__).parent
TEXT = (ROOT / "docs" / "from_python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The names that the page's blocks leave."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("notebook"))
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"from_python.md, block {number}", "exec"), names)
        assert list(pathlib.Path().iterdir()) == []
    return names


def test_noise_is_what_was_asked_for(ran):
    assert ran["wrong"].mean() == pytest.approx(0.3 * 0.9, abs=0.06)


def test_a_policy_scores_and_draws_a_batch(ran):
    assert ran["scores"].shape == (512,) and np.isfinite(ran["scores"]).all()
    assert len(set(ran["chosen"].tolist())) == 32


def test_it_learns_and_then_knows_wrong_labels_by_their_loss(ran):
    assert len(ran["losses"]) == 200
    assert ran["scores"][ran["wrong"]].mean() > ran["scores"][~ran["wrong"]].mean() + 0.5
    assert ran["figures"]["top1"] > 0.5


def test_a_reference_that_is_not_there_is_refused(ran):
    assert ran["refused"].startswith("reference.checkpoint='runs/digits/reference': no run directory")


def test_the_functions_that_the_page_names_are_there():
    names = re.findall(r"`(\w+)\.(\w+)`", TEXT.partition("`tests/")[0])
    assert len(names) >= 10
    for module, name in names:
        found = __import__(f"classact.launch.assembly.parts.{module}", fromlist=[name])
        assert getattr(found, name).__doc__
