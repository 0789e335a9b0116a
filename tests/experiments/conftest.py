"""Run directories as the program leaves them, made up."""

import json

import numpy as np
import pytest

from classact.experiments import base, resolution
from classact.experiments.configs import demo_clip
from classact.experiments.ledger import run_ledger
from classact.selection import policies

LEARNER_MACS, SCORER_MACS = 1.31e6, 1.6e5
RETRIEVAL = ("eval/retrieval/i2t_r1", "eval/retrieval/t2i_r1")
ZERO_SHOT = "eval/icons_50/zero_shot_top1"


def resolved(base_config=None, **changes):
    """A configuration as `config.json` holds it; groups of fields are updated."""
    fields = (base_config or base.get_config()).to_dict()
    for name, value in changes.items():
        fields[name] = {**fields[name], **value} if isinstance(value, dict) else value
    return json.loads(json.dumps(resolution.resolve(fields).to_dict()))


def write_pairs_run(path, part, seed=0, **options):
    """Writes a run of `demo_clip.py:part`; recalls are a third, and a ninth, of the accuracy."""
    config = resolved(demo_clip.get_config(part), **{"seed": seed, **options.pop("config", {})})
    metrics = {ZERO_SHOT: 1.0, RETRIEVAL[0]: 1 / 3, RETRIEVAL[1]: 1 / 9}
    options = {"metrics": metrics, "steps": 600, "corrupted": (0.3, 0.2), **options}
    return write_run(path, config["policy"], seed, config=config, **options)


def write_run(path, policy="uniform", seed=0, speed=1.0, steps=1500, every=50, final=0.82, **options):
    """Writes a run directory.

    The accuracy is a straight line in updates that passes `final` at
    `steps / speed`: what crosses where is easy to say.

    Args:
        path: the directory.
        policy: the run's policy.
        seed: its seed.
        speed: how many times faster than the line from 0 to `steps`.
        steps: learner updates of the run.
        every: updates between evaluations.
        final: the accuracy at the end.
        **options: `status` (None for no result.json), `done` (updates done),
            `result` (more of what is in it), `config` (more fields), `noise` (standard deviation of the
            evaluations), `curved` (a saturating curve in place of the line),
            `metrics` (the factor to the accuracy for each metric's name),
            `corrupted` (share of wrong labels, early and late), `images`
            (how many scored images to write).
    """
    done = options.get("done", steps)
    config = {
        "policy": policy,
        "seed": seed,
        "learner": {"model": "vit_mu_6_1"},
        "scorer": {"model": "vit_mu_2_1"},
        "reference": {"checkpoint": None},
        "train_data": "fashion_mnist",
        "eval_data": "fashion_mnist:test",
        "label_noise": 0.2,
        "batch_size": 64,
        "filter_ratio": 0.5,
        "temperature": 1.0,
        "steps": steps,
        "learning_rate": 1e-3,
        "patch_size": 7,
    } | options.get("config", {})
    (path / "metrics").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    _write_metrics(path, policy, seed, speed, steps, done, every, final, options)
    if options.get("images"):
        write_images(path, options["images"])
    if options.get("status", "completed") is not None:
        selecting = policies.get(policy)
        ledger = run_ledger(
            selecting,
            learner_macs=LEARNER_MACS,
            scorer_macs=SCORER_MACS,
            updates=done,
            batch_size=64,
            examples_scored=128 * done if selecting.scores else 0,
            super_batch_size=640,
            reference_pretraining_macs=2e10 if selecting.reference == "fixed" else 0.0,
        )
        result = {
            "status": options.get("status", "completed"),
            "steps": done,
            "final": {"eval/test/top1": final},
            "ledger": ledger,
            "wall_seconds": 61.4,
            "cpu_seconds": 118.0,
            **options.get("result", {}),
        }
        (path / "result.json").write_text(json.dumps(result))
    return path


def _write_metrics(path, policy, seed, speed, steps, done, every, final, options):
    generator = np.random.default_rng(seed)
    evaluations, learner = {}, []
    metrics = options.get("metrics", {"eval/test/top1": 1.0})
    for step in range(every, done + 1, every):
        share = step * speed / steps
        value = final * (1.4 * min(1.0, share) / (min(1.0, share) + 0.4) if options.get("curved") else share)
        value += generator.normal(0.0, options["noise"]) if "noise" in options else 0.0
        for metric, factor in metrics.items():
            records = evaluations.setdefault(f"evaluator-{metric.split('/')[1]}", {})
            record = records.setdefault(step, {"step": step, "time": float(step)})
            record[metric] = factor * value
        record = {"step": step, "time": float(step), "train/loss": 2.0, "train/examples": 64 * every}
        if policy != "uniform":
            record["selection/staleness_steps"] = 2.5
        if "corrupted" in options:
            early, late = options["corrupted"]
            record["selection/corrupted_fraction"] = early + (late - early) * step / steps
        learner.append(record)
    files = {name: records.values() for name, records in evaluations.items()}
    for name, records in {**files, "learner": learner}.items():
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (path / "metrics" / f"{name}.jsonl").write_text(lines)


def write_images(path, count, channels=1, **changes):
    """Writes scored images of which every fifth has a wrong label; scores rise with the index."""
    generator = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % 10
    arrays = {
        "image": generator.integers(0, 256, (count, 28, 28, channels), dtype=np.uint8),
        "score": np.linspace(-2.0, 3.0, count, dtype=np.float32),
        "label": labels,
        "clean_label": np.where(np.arange(count) % 5 == 0, (labels + 1) % 10, labels),
        "class_names": np.array(
            ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "<Sneaker>"]
        ),
    } | changes
    np.savez(
        path / "scored_images.npz", **{name: array for name, array in arrays.items() if array is not None}
    )


@pytest.fixture
def make_run(tmp_path):
    """`make_run(name, **arguments of write_run)` writes a run below the test's folder."""
    return lambda name, **arguments: write_run(tmp_path / name, **arguments)


@pytest.fixture
def make_pairs_run(tmp_path):
    """`make_pairs_run(name, part, **arguments of write_pairs_run)`, likewise."""
    return lambda name, part, **arguments: write_pairs_run(tmp_path / name, part, **arguments)


@pytest.fixture
def make_config():
    """`make_config(base_config, **changes)`: `resolved`."""
    return resolved


@pytest.fixture
def make_images():
    """`make_images(run_dir, count, **arrays)`; an array of None is left out."""
    return write_images
