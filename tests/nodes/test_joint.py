"""A sub-batch is chosen by what the models make of the super-batch, synchronously and of records alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classact.models import registry
from classact.nodes import batches, joint, joint_fields, scoring, synchronous, training
from classact.replay import records
from classact.selection import losses, policies
from classact.selection.contrastive import Contrastive
from classact.selection.joint import Embedded, JointScore

SUPER, SIZE, WIDTH = 12, 4, 3
JEST = policies.get("jest")


def towers():
    """Embeds the pixels and the tokens themselves, after a matrix each."""

    def init(key):
        image, text = jax.random.normal(key, (2, WIDTH, WIDTH))
        own = {"image": image, "text": text, "scale": jnp.float32(4.0), "bias": jnp.float32(-2.0)}
        return {"params": own, "state": {}}

    def apply(variables, batch, *, train, rng=None):
        params, outputs = variables["params"], {}
        for name in ("image", "text"):
            found = batch[name].reshape(batch[name].shape[0], -1).astype(jnp.float32) @ params[name]
            outputs[f"{name}_embedding"] = found / jnp.linalg.norm(found, axis=-1, keepdims=True)
        return {**outputs, "scale": params["scale"], "bias": params["bias"]}, {}

    return registry.Model("towers", init, apply)


def pairs(seed, size=SUPER):
    rng = np.random.default_rng(seed)
    return {
        "id": np.arange(size) + 100 * seed,
        "image": rng.integers(1, 200, (size, 1, 1, WIDTH), dtype=np.uint8),
        "text": rng.integers(1, 50, (size, WIDTH), dtype=np.int32),
    }


@pytest.fixture(scope="module")
def variables():
    return {role: towers().init(jax.random.key(seed)) for seed, role in enumerate(("online", "reference"))}


@pytest.fixture(scope="module")
def score():
    models = {"online": towers(), "reference": towers()}
    return scoring.make_scorer(JEST, Contrastive("sigmoid"), models)


@pytest.fixture(scope="module")
def record(score, variables):
    """Records of a super-batch, as a learner reads them: packed and unpacked."""
    batch = pairs(1)
    fields = {name: np.asarray(a) for name, a in score(variables, scoring.request(batch, None), 0).items()}
    codec = records.RecordCodec(batch)
    wide = codec.with_fields(joint_fields.empty_fields({"online": WIDTH, "reference": WIDTH}))
    assert set(wide.fields) == {*codec.fields, *fields}
    return wide.unpack(wide.pack({**batch, **fields, "scored_step": np.full(SUPER, 7)}))


def chooser(loss="sigmoid", seed=0, **options):
    options = {"size": SIZE, "chunks": 2, "temperature": 0.5, **options}
    return joint.Chooser(JEST, loss, rng=np.random.default_rng(seed), **options)


def embedded(variables, batch):
    outputs = {role: towers().apply(own, batch, train=False)[0] for role, own in variables.items()}
    names = ("image_embedding", "text_embedding", "scale", "bias")
    return {role: Embedded(*(own[name] for name in names)) for role, own in outputs.items()}


def test_records_have_what_the_models_gave(record, variables):
    for role, found in embedded(variables, pairs(1)).items():
        carried = record[f"joint_{role}"]
        assert carried.dtype == np.float16
        # Half precision of numbers up to 1.
        np.testing.assert_allclose(carried[:, 0], found.image, atol=5e-4)
        np.testing.assert_allclose(carried[:, 1], found.text, atol=5e-4)
        np.testing.assert_allclose(record[f"joint_{role}_scale"], np.tile([4.0, -2.0], (SUPER, 1)))
    own = JointScore(JEST, "sigmoid").own(embedded(variables, pairs(1)))
    np.testing.assert_allclose(record["score"], own, rtol=1e-4, atol=1e-5)


def test_what_is_chosen_is_what_the_scores_draw(record, variables):
    chosen = chooser()(record)
    whole = JointScore(JEST, "sigmoid")
    models = embedded(variables, pairs(1))
    seed = np.uint32(np.random.default_rng(0).integers(2**32))
    own = whole.own(models)
    drawn = whole.draw(own, whole.terms(models), seed, size=SIZE, chunks=2, temperature=0.5)
    assert chosen.batch["id"].tolist() == record["id"][np.asarray(drawn.rows)].tolist()
    # All of a record but what is there for the choice.
    assert set(chosen.batch) == {"id", "image", "text", "score", "scored_step"}
    for name, array in chosen.batch.items():
        np.testing.assert_array_equal(array, record[name][np.asarray(drawn.rows)])
    found = chosen.measured
    assert found["score_mean"] == pytest.approx(float(drawn.own.mean()), rel=1e-3)
    assert found["score_mean_super_batch"] == pytest.approx(float(own.mean()), rel=1e-3)
    assert found["joint_mean"] == pytest.approx(float((drawn.own + drawn.added).mean()), rel=1e-3)
    parts = [float(jnp.abs(array).sum()) for array in (drawn.own, drawn.added)]
    assert found["joint_own_share"] == pytest.approx(parts[0] / sum(parts), rel=1e-3)


def test_similarities_are_those_of_the_newest_parameters(record):
    later = {name: np.array(array) for name, array in record.items()}
    later["scored_step"][3] = 8
    expected = chooser()(record)
    for role in ("online", "reference"):
        later[f"joint_{role}_scale"] = np.zeros((SUPER, 2), np.float32)
        later[f"joint_{role}_scale"][3] = record[f"joint_{role}_scale"][3]
    assert chooser()(later).measured == expected.measured


def test_a_super_batch_is_moved_as_the_sub_batch_that_is_chosen(record):
    sampled = joint.JointTransfer(chooser(), batches.to_device)(record)
    expected = chooser()(record)
    assert sampled.size == SIZE and sampled.measured == expected.measured
    np.testing.assert_array_equal(sampled.ids, expected.batch["id"])
    np.testing.assert_array_equal(sampled.scores, expected.batch["score"])
    np.testing.assert_array_equal(sampled.batch["image"], expected.batch["image"])
    assert set(sampled.batch) == {"image", "text"}


@pytest.mark.parametrize(("policy", "loss"), [("jest", "sigmoid"), ("jest_hard", "infonce")])
def test_the_synchronous_loop_chooses_by_fresh_scores(policy, loss, variables):
    policy = policies.get(policy)
    model = towers()
    optimizer = training.OptimizerConfig(0.3, 4, warmup_steps=0)
    trained = {"learner": training.TrainedModel(model, optimizer, {"pairs": 1.0})}
    reference = variables["reference"]
    fixed = {"reference": (model, reference)} if policy.reference else {}
    task = Contrastive(loss)
    # So cold that each draw is the best one.
    item = synchronous.DataSet(policy, iter(pairs(n) for n in range(9)), SIZE, 1e-5, fixed, chunks=SIZE)
    states = [jax.device_get(training.init_state(trained, 0).variables()["learner"])]
    seen = []

    def on_step(step, state, metrics, chosen):
        seen.append((chosen["pairs"]["id"].tolist(), float(metrics["selection/joint_mean"])))
        states.append(jax.device_get(state.variables()["learner"]))

    synchronous.train({"pairs": item}, task, trained, steps=3, seed=0, on_step=on_step)
    whole = JointScore(policy, loss)
    for step, (ids, mean) in enumerate(seen):
        models = embedded({"online": states[step], "reference": reference}, pairs(step))
        drawn = whole.draw(
            whole.own(models), whole.terms(models), 0, size=SIZE, chunks=SIZE, temperature=1e-5
        )
        assert [number - 100 * step for number in ids] == np.asarray(drawn.rows).tolist()
        assert mean == pytest.approx(float((drawn.own + drawn.added).mean()), rel=1e-2, abs=1e-2)


def test_what_is_no_pair_has_no_joint_score():
    with pytest.raises(ValueError, match="policy 'jest' is joint: it compares the embeddings of pairs"):
        scoring.make_scorer(JEST, losses.Classification(), {})
    with pytest.raises(ValueError, match="policy 'jest' is joint"):
        scoring.make_scorer(JEST, Contrastive(), {}, reference_from_file=True)
