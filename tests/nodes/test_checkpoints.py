"""What is saved comes back, and what is damaged is said to be."""

import contextlib
import dataclasses
import functools
import io
import pickle

import jax
import numpy as np
import pytest

from classact.data.classes import Classes
from classact.models import registry
from classact.nodes import checkpoints, training
from classact.selection import race


@pytest.fixture
def save(tmp_path):
    """Saves freshly initialised models; returns the directory and the state."""

    def run(models, steps=(3,), classes=None):
        optimizer = training.OptimizerConfig(0.1, steps=10, warmup_steps=0)
        trained = {
            name: training.TrainedModel(model, optimizer, {"digits": 1.0}) for name, model in models.items()
        }
        state = training.init_state(trained, 0)
        checkpointer = checkpoints.Checkpointer(tmp_path / "checkpoints", keep=2, classes=classes)
        for step in steps:
            checkpointer.save(step, state)
        checkpointer.close()
        return tmp_path / "checkpoints", state

    return run


def create(name, **options):
    return registry.create(name, num_classes=3, image_shape=(8, 8, 1), patch_size=4, **options)


@pytest.mark.parametrize("names", [("vit_mu_1_1", "linear"), ("haiku_mlp", "vit_mu_1_1")])
def test_models_come_back_by_name(save, linear_model, names):
    models = {
        kind: linear_model if name == "linear" else create(name)
        for kind, name in zip(("learner", "online"), names, strict=True)
    }
    directory, state = save(models)
    for kind in models:
        found = checkpoints.load_model(directory, kind)
        expected = jax.device_get(state.models[kind].variables)
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        # It is what the model takes.
        images = np.zeros((2, *((2, 2, 1) if models[kind] is linear_model else (8, 8, 1))), np.uint8)
        apply = functools.partial(models[kind].apply, train=False)
        outputs, _ = jax.eval_shape(apply, found, {"image": images})
        assert outputs["logits"].shape == (2, 3)


def test_a_checkpoint_says_what_its_outputs_mean(save):
    names = Classes(3, ("ant", "bee", "cow"))
    directory, state = save({"learner": create("vit_mu_1_1")}, classes=names)
    assert checkpoints.load_classes(directory) == names
    checkpoints.check(directory, 3)
    # It is no part of the state.
    checkpointer = checkpoints.Checkpointer(directory)
    restored, _ = checkpointer.restore(state)
    checkpointer.close()
    assert restored.step == state.step
    (directory / "3" / "classes" / "metadata").write_text("{")
    assert checkpoints.load_classes(directory) is None
    with pytest.raises(checkpoints.CheckpointError, match="damaged"):
        checkpoints.check(directory, 3)


def test_a_checkpoint_of_models_without_classes_says_nothing_of_them(save, tmp_path):
    directory, _ = save({"learner": create("vit_mu_1_1")})
    assert checkpoints.load_classes(directory) is None
    assert checkpoints.load_classes(tmp_path / "none") is None


def test_checkpoints_are_read_without_unpickling(save, monkeypatch):
    directory, _ = save({"learner": create("vit_mu_1_1")})

    def forbidden(*arguments, **options):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    assert set(checkpoints.load_model(directory)) == {"params", "state"}


def test_a_pickle_in_the_place_of_a_checkpoints_file_is_never_executed(save, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (io.open, (str(tmp_path / "exploded"), "w"))

    directory, _ = save({"learner": create("vit_mu_1_1")})
    files = [path for path in (directory / "3" / "learner").rglob("*") if path.is_file()]
    whole = {path: path.read_bytes() for path in files}
    assert len(whole) > 2
    for path, content in whole.items():
        path.write_bytes(pickle.dumps(Bomb()))
        # Some files are of no use to a reader.
        with contextlib.suppress(checkpoints.CheckpointError):
            checkpoints.load_model(directory)
        assert not (tmp_path / "exploded").exists()
        path.write_bytes(content)


def test_running_statistics_come_back(save):
    def init(key):
        return {
            "params": {"w": jax.numpy.ones(2)},
            "state": {"norm/~/ema": {"average": jax.numpy.arange(3.0)}},
        }

    directory, _ = save({"learner": registry.Model("normed", init, None)})
    np.testing.assert_array_equal(
        checkpoints.load_model(directory)["state"]["norm/~/ema"]["average"], np.arange(3.0)
    )


def test_the_newest_is_read_and_the_oldest_leaves(save, linear_model):
    directory, _ = save({"learner": linear_model}, steps=(2, 5, 11))
    assert checkpoints.latest_step(directory) == 11
    assert sorted(path.name for path in directory.iterdir() if path.name.isdigit()) == ["11", "5"]


def test_a_directory_without_checkpoints(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        assert checkpoints.latest_step(directory) is None
        with pytest.raises(checkpoints.CheckpointError, match="no complete checkpoint in"):
            checkpoints.load_model(directory)


def test_an_unfinished_checkpoint_does_not_count_and_goes(save, linear_model):
    directory, _ = save({"learner": linear_model})
    unfinished = directory / "9.orbax-checkpoint-tmp"
    (unfinished / "learner.orbax-checkpoint-tmp").mkdir(parents=True)
    assert checkpoints.latest_step(directory) == 3
    checkpoints.Checkpointer(directory).close()
    assert not unfinished.exists()


def test_a_state_on_the_host_can_be_saved_when_the_devices_hold_a_later_one(tmp_path, linear_model):
    trained = training.TrainedModel(linear_model, training.OptimizerConfig(0.1, 10, 0), {"digits": 1.0})
    state = training.init_state({"learner": trained}, 0)

    def values(of):
        return jax.tree.map(np.array, jax.device_get((of.step, jax.random.key_data(of.rng), of.models)))

    before = values(state)
    kept = checkpoints.on_host(state)
    # As the next update does with what is donated to it.
    later = jax.jit(lambda state: jax.tree.map(lambda array: array + 1, state), donate_argnums=0)
    later((state.step, state.models))
    checkpointer = checkpoints.Checkpointer(tmp_path / "checkpoints")
    checkpointer.save(3, kept)
    checkpointer.wait()
    restored, _ = checkpointer.restore(training.init_state({"learner": trained}, 1))
    checkpointer.close()
    assert all(isinstance(array, jax.Array) for array in jax.tree.leaves(restored))
    jax.tree.map(np.testing.assert_array_equal, values(restored), before)


def test_a_model_that_was_not_saved_is_an_error(save, linear_model):
    directory, _ = save({"learner": linear_model})
    with pytest.raises(checkpoints.CheckpointError, match="online is damaged or incomplete"):
        checkpoints.load_model(directory, "online")


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_a_damaged_checkpoint_is_an_error(save, linear_model, damage):
    directory, _ = save({"learner": linear_model})
    files = [path for path in (directory / "3" / "learner").rglob("*") if path.is_file()]
    for path in files:
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            path.unlink()
    with pytest.raises(checkpoints.CheckpointError, match="learner is damaged or incomplete"):
        checkpoints.load_model(directory)


def trained_of(model):
    optimizer = training.OptimizerConfig(0.1, steps=10, warmup_steps=0)
    return {"learner": training.TrainedModel(model, optimizer, {"digits": 1.0})}


def state_at(trained, step, seed=0):
    """A state that differs from a new one in all its parts."""
    state = training.init_state(trained, seed)
    changed = jax.tree.map(lambda array: array + step, state.models)
    return dataclasses.replace(state, step=jax.numpy.int32(step), rng=jax.random.key(step), models=changed)


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert int(found.step) == int(expected.step)
    np.testing.assert_array_equal(jax.random.key_data(found.rng), jax.random.key_data(expected.rng))
    jax.tree.map(np.testing.assert_array_equal, found.models, expected.models)


@pytest.fixture
def saved(tmp_path, linear_model):
    """A directory with the checkpoints 3 and 7, the trained models, and how to open it again."""
    trained = trained_of(linear_model)
    checkpointer = checkpoints.Checkpointer(tmp_path)
    for step in (3, 7):
        data = checkpoints.DataState(
            {"digits": [{"reader": 0, "position": step}]},
            {"digits.examples": np.full((4, 5), step, np.uint8), "digits.stream": np.empty((0, 5), np.uint8)},
            {"digits": [race.Clock((71.5, 0.1)), race.Clock()]},
            {"digits.examples": np.array([10 * step]), "digits.labels": np.zeros(0, np.int64)},
        )
        checkpointer.save(step, state_at(trained, step), data)
    checkpointer.close()
    return tmp_path, trained


def restored(directory, trained):
    checkpointer = checkpoints.Checkpointer(directory)
    found = checkpointer.restore(training.init_state(trained, 5))
    kept = checkpointer.kept()
    checkpointer.close()
    return found, kept


def test_a_whole_state_comes_back_with_what_it_had_used_of_the_data(saved):
    directory, trained = saved
    (state, data), kept = restored(directory, trained)
    assert_equal(state, state_at(trained, 7))
    assert data.cursors == {"digits": [{"reader": 0, "position": 7}]}
    assert data.clocks == {"digits": [race.Clock((71.5, 0.1)), race.Clock()]}
    assert set(data.read_ahead) == {"digits.examples"}
    np.testing.assert_array_equal(data.read_ahead["digits.examples"], np.full((4, 5), 7, np.uint8))
    assert dict(data.selected) == {"digits.examples": 70}
    assert kept == [3, 7]


def test_without_checkpoints_there_is_nothing_to_restore(tmp_path, linear_model):
    assert restored(tmp_path, trained_of(linear_model)) == (None, [])


def damage(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(saved, caplog):
    directory, trained = saved
    checkpoints.check(directory, 7)
    damage(directory / "7")
    with pytest.raises(checkpoints.CheckpointError, match="7 is damaged"):
        checkpoints.check(directory, 7)
    (state, data), kept = restored(directory, trained)
    assert_equal(state, state_at(trained, 3))
    assert data.cursors["digits"][0]["position"] == 3
    assert kept == [3]
    assert "checkpoint 7 cannot be restored" in caplog.text
    assert (directory / "damaged-7").is_dir()
    # Its step is free again.
    checkpointer = checkpoints.Checkpointer(directory)
    checkpointer.save(7, state_at(trained, 7))
    checkpointer.close()
    checkpoints.check(directory, 7)


def test_if_all_are_damaged_that_is_an_error(saved):
    directory, trained = saved
    damage(directory)
    with pytest.raises(checkpoints.CheckpointError, match=r"none of the checkpoints \[7, 3\]"):
        restored(directory, trained)


def test_what_is_set_aside_twice_gets_a_number(tmp_path):
    for _ in range(3):
        (tmp_path / "7").mkdir()
        checkpoints.set_aside(tmp_path, 7)
    checkpoints.set_aside(tmp_path, 7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-7", "damaged-7-1", "damaged-7-2"]
