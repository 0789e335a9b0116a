import importlib.util
import pathlib
import sys

import jax
import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def made_up():
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(
            "made_up_accelerator", FOLDER / "made_up_accelerator.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        for name in set(sys.modules) & {"training_runs"} - before:
            del sys.modules[name]


def test_a_pass_takes_the_time_of_the_accelerator_also_when_it_is_differentiated(made_up, monkeypatch):
    waited = []
    monkeypatch.setattr(made_up.time, "sleep", waited.append)
    model = made_up.paced("paced", 4, (6, 8, 3), 2, macs=20.0, macs_per_second=1000.0)
    variables = model.init(jax.random.key(0))
    batch = {"image": np.full((5, 6, 8, 3), 51, np.uint8)}

    @jax.jit
    def logits(params):
        return model.apply({"params": params, "state": {}}, batch, train=False)[0]["logits"]

    assert np.allclose(logits(variables["params"]), 0.2 * variables["params"]["kernel"].sum(0), atol=1e-6)
    assert waited == pytest.approx([5 * 20 / 1000])

    def loss(params):
        return model.apply({"params": params, "state": {}}, batch, train=True)[0]["logits"].sum()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert np.allclose(gradients["kernel"], 5 * 0.2)
    # Three passes are a training step.
    assert waited[1:] == pytest.approx([3 * 5 * 20 / 1000])


def test_made_up_images_have_the_ids_and_labels_that_they_say(made_up):
    source = made_up.pixels("", "train", count="1000", side="4")
    batch = source.batch(np.array([999, 0, 999]))
    assert batch["id"].tolist() == [999, 0, 999] and batch["label"].tolist() == [1, 0, 1]
    assert source.label_of[[999, 0]].tolist() == [1, 0]
    assert batch["image"].shape == (3, 4, 4, 3) and (batch["image"][0] == batch["image"][2]).all()
