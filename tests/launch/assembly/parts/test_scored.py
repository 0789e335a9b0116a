"""Score files stand for a reference: the same scores to the bit, of the same examples, or a clear refusal."""

import json
import shutil

import jax
import numpy as np
import pyarrow.parquet
import pytest
import scored_digits
from on_digits import only, open_train, resolved
from PIL import Image

from classact.data import score_files, stream
from classact.data.source import DataError
from classact.experiments import config
from classact.launch.assembly.parts import (
    kept,
    learning,
    networks,
    one_loop,
    references,
    score_pass,
    scored,
    traced,
)
from classact.nodes import scoring
from classact.selection import policies

NOISE = {"label_noise": 0.2}


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return scored_digits.save_run(tmp_path_factory.mktemp("runs") / "reference")


def test_a_run_with_augmented_images_scores_them_as_they_are(tmp_path):
    chosen = resolved(augment="crop+flip")
    scoring = score_pass.prepare(
        scored_digits.save_run(tmp_path / "run", augment="crop+flip"), chosen, {}, 64
    )
    rows = np.arange(50)
    plain = open_train().batch(rows)
    assert np.array_equal(scoring.open().batch(rows)["image"], plain["image"])
    assert not np.array_equal(open_train(augment="crop+flip").batch(rows)["image"], plain["image"])


@pytest.fixture(scope="module")
def scores(run, tmp_path_factory, patch):
    return scored_digits.score(run, tmp_path_factory.mktemp("scores") / "s", patch, batch_size=32, **NOISE)


@pytest.fixture(scope="module")
def shape():
    return scored_digits.digits_shape(**NOISE)


def refused(shape, match, **changes):
    chosen = resolved(**{"policy": "classact", **NOISE, **changes})
    with pytest.raises(config.ConfigError, match=match):
        references.check_reference(chosen, only(chosen), shape)


@pytest.mark.parametrize("policy", ["easy_reference", "learnability", "classact"])
def test_scores_are_those_of_the_model_to_the_bit_with_batches_of_the_same_size(run, scores, shape, policy):
    own_files = resolved(policy=policy, reference__scores=str(scores), **NOISE)
    own_model = resolved(policy=policy, reference__checkpoint=str(run), **NOISE)
    task, chosen = learning.make_task(own_model), policies.get(policy)
    models = networks.role_models(own_model, only(own_model), shape)
    variables = references.fixed_variables(own_model, only(own_model), shape)
    if "online" in models:
        variables["online"] = models["online"].init(jax.random.key(5))
    by_model = scoring.make_scorer(chosen, task, models)
    assert "reference" not in networks.role_models(own_files, only(own_files), shape)
    by_file = scoring.make_scorer(
        chosen, task, networks.role_models(own_files, only(own_files), shape), reference_from_file=True
    )
    online = {role: found for role, found in variables.items() if role == "online"}
    losses = kept.reference_losses(only(own_files))
    # The batches of the scoring pass itself, whose composition is that of its indices.
    source = open_train(**NOISE)
    for first in (0, 32, 320):
        batch = source.batch(np.arange(first, first + 32))
        expected = by_model(variables, scoring.scoring_fields(batch), np.int32(0))
        found = by_file(online, scoring.request(batch, losses), np.int32(0))
        np.testing.assert_array_equal(np.asarray(found).view(np.int32), np.asarray(expected).view(np.int32))
        if policy == "easy_reference":
            alone = scoring.make_file_scorer(chosen)(scoring.request(batch, losses))
            np.testing.assert_array_equal(alone.view(np.int32), np.asarray(expected).view(np.int32))


def test_the_file_says_what_the_model_predicts(run, scores):
    table = pyarrow.parquet.read_table(scores)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    assert {name: array.dtype.name for name, array in columns.items()} == {
        "id": "int64", "loss": "float32", "label": "int32", "predicted": "int32", "probability": "float32",
        "correct": "bool",
    }  # fmt: skip
    source = open_train(**NOISE)
    np.testing.assert_array_equal(columns["id"], source.ids(np.arange(source.num_examples)))
    np.testing.assert_array_equal(columns["label"], source.batch(np.arange(source.num_examples))["label"])
    np.testing.assert_array_equal(columns["correct"], columns["label"] == columns["predicted"])
    # Of what is predicted rightly the loss is the logarithm of the probability.
    right = columns["correct"]
    assert right.any()
    np.testing.assert_allclose(columns["loss"][right], -np.log(columns["probability"][right]), rtol=1e-4)
    said = json.loads((scores / "_scores.json").read_text())
    assert said["complete"] and said["examples"] == source.num_examples and said["left_out"] == 0
    assert said["cost"]["training"] == {f"run {run.resolve()}": 1000.0}
    assert said["cost"]["scoring_macs"] == said["cost"]["forward_macs"] * source.num_examples
    assert said["model"]["run"] == str(run.resolve())


def test_a_synchronous_run_selects_alike(run, scores, shape):
    """Also what is drawn is the same, where the files were made with batches of a super-batch's size."""
    chosen = []
    for reference in ({"reference__checkpoint": str(run)}, {"reference__scores": str(scores)}):
        settings = resolved(policy="easy_reference", batch_size=16, steps=4, **NOISE, **reference)
        ids = []
        one_loop.train(
            settings, {"digits": shape}, lambda *step, ids=ids: ids.append(step[3]["digits"]["id"])
        )
        chosen.append(np.concatenate(ids))
    np.testing.assert_array_equal(*chosen)


def test_fitting_files_pass_and_take_the_place_of_the_model(scores, shape):
    settings = resolved(policy="classact", reference__scores=str(scores), scorer__model="vit_mu_2_1", **NOISE)
    own = only(settings)
    references.check_reference(settings, own, shape)
    assert references.fixed_variables(settings, own, shape) == {}
    assert own.has_servers
    assert not only(resolved(policy="easy_reference", reference__scores=str(scores))).has_servers
    traced.check_scores(settings, own, shape)


def test_other_labels(scores, shape):
    refused(
        shape,
        r"scored with label_noise=0\.2, this run has 0\.0",
        label_noise=0.0,
        reference__scores=str(scores),
    )
    refused(shape, r"scored with data_seed=0, this run has 1", data_seed=1, reference__scores=str(scores))


def test_other_data(scores, shape, tmp_path):
    images, labels = np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "own.npz", image=images, label=labels)
    changes = {"train_data": f"npz:{tmp_path / 'own.npz'}", "reference__scores": str(scores)}
    other = scored_digits.digits_shape(**changes, policy="easy_reference")
    refused(other, r"is not what was scored: 1,757 examples fewer", **changes)


def test_files_that_lack_an_example(scores, shape, tmp_path):
    folder = shutil.copytree(scores, tmp_path / "fewer")
    said = json.loads((folder / "_scores.json").read_text())
    lost = score_files.part_path(folder, 1)
    (folder / "_scores.json").write_text(
        json.dumps({**said, "examples": said["examples"] - score_files.rows(lost)})
    )
    lost.unlink()
    refused(
        shape,
        r"of the 1,438 examples of digits have no loss there, such as the one with id",
        reference__scores=str(folder),
    )


def test_files_that_are_not_there(shape, tmp_path):
    refused(shape, "no score files", reference__scores=str(tmp_path / "none"))


def test_both_a_checkpoint_and_the_files_of_another_run(run, scores, shape, tmp_path):
    same = {"reference__scores": str(scores), "reference__checkpoint": str(run)}
    scored_digits.check(references.check_reference, shape, policy="classact", **NOISE, **same)
    refused(shape, "leave one of them empty", **{**same, "reference__checkpoint": str(tmp_path)})


def test_a_score_that_reads_more_of_the_reference_than_its_loss(scores, shape, users_place):
    (users_place / "my_scores.py").write_text(
        "from classact.selection import policies\n"
        "@policies.register_policy('sure', reference='fixed')\n"
        "def sure(online, reference):\n"
        "    return reference['logits'].max(-1)\n"
    )
    settings = resolved(policy="my_scores:sure", reference__scores=str(scores), **NOISE)
    with pytest.raises(config.ConfigError, match=r"my_scores\.py.*gives its `loss` alone"):
        traced.check_scores(settings, only(settings), shape)


def test_a_held_out_reference_is_asked_for_by_its_configuration(scores, shape):
    changes = {
        "policy": "classact_ho",
        "held_out": 0.25,
        "train_split": "rest",
        "reference__scores": str(scores),
    }
    refused(shape, r"needs a reference trained with .* this one had \('digits', 0\.0, 0, 'all'\)", **changes)


def test_infonce_scores_of_pairs_are_refused(scores, shape):
    pairs = {
        "task": "contrastive",
        "train_data": "icon_pairs",
        "patch_size": 8,
        "contrastive__act_loss": "infonce",
    }
    settings = resolved(policy="classact", reference__scores=str(scores), **pairs)
    with pytest.raises(config.ConfigError, match=r"act_loss='infonce': must be 'dot' with reference\.scores"):
        scored.check(settings, only(settings), shape)


@pytest.mark.parametrize("by", ["hard", "easy", "learnability"])
def test_the_best_share_is_kept(run, scores, by, tmp_path, monkeypatch):
    other = scored_digits.save_run(tmp_path / "learner", seed=1)
    theirs = scored_digits.score(other, tmp_path / "theirs", monkeypatch, **NOISE)
    folders = {"top_share__scores": str(theirs if by == "learnability" else scores)}
    if by == "learnability":
        folders["top_share__reference_scores"] = str(scores)
    settings = resolved(policy="top_share", top_share__share=0.25, top_share__by=by, **folders, **NOISE)
    found = open_train(policy="top_share", top_share__share=0.25, top_share__by=by, **folders, **NOISE)
    ids = open_train().ids(np.arange(1438))
    loss = {path: score_files.read(path).losses(ids) for path in (scores, theirs)}
    wanted = {"hard": loss[scores], "easy": -loss[scores], "learnability": loss[theirs] - loss[scores]}[by]
    expected = sorted(
        ids[sorted(range(1438), key=lambda place: (-wanted[place], place))[: round(0.25 * 1438)]]
    )
    assert found.ids(np.arange(found.num_examples)).tolist() == expected
    scored.check(settings, only(settings), scored_digits.digits_shape(**NOISE))
    # Both models' training and both passes; the run itself scores nothing.
    passes = 2 if by == "learnability" else 1
    forward = json.loads((scores / "_scores.json").read_text())["cost"]["scoring_macs"]
    assert sum(scored.cost(only(settings)).values()) == passes * (1000.0 + forward)


def test_a_share_of_files_that_are_damaged(tmp_path):
    with pytest.raises(DataError, match=r"top_share\.scores=.*no score files"):
        open_train(policy="top_share", top_share__scores=str(tmp_path))


def test_what_two_data_sets_use_has_one_key(run, scores):
    by_file = scored.cost(only(resolved(policy="classact", reference__scores=str(scores))))
    by_model = scored.cost(only(resolved(policy="classact", reference__checkpoint=str(run))))
    (key,) = by_model
    assert by_file[key] == by_model[key] == 1000.0
    assert len(by_file) == 2


def test_captions_need_no_other_batch(tmp_path, monkeypatch):
    """Eq. 9 of each pair: what a model says of it alone."""
    (tmp_path / "album").mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)):
        Image.fromarray(pixels).save(tmp_path / "album" / f"{number}.png")
        (tmp_path / "album" / f"{number}.txt").write_text(f"square {number % 7}")
    small = {"task": "contrastive", "train_data": f"captioned_folder:{tmp_path / 'album'}", "patch_size": 4}
    small |= {"contrastive__tokenizer": "icons", "contrastive__context_length": 8}
    run = scored_digits.save_run(tmp_path / "pairs", **small)
    out = scored_digits.score(run, tmp_path / "scores", monkeypatch, batch_size=32)
    settings = resolved(policy="easy_reference", reference__scores=str(out), **small)
    shape = scored_digits.digits_shape(**small)
    references.check_reference(settings, only(settings), shape)
    batch = next(stream.IIDStream(open_train(**small), 48, seed=0))
    own = resolved(policy="easy_reference", reference__checkpoint=str(run), **small)
    score = scoring.make_scorer(
        policies.get("easy_reference"), learning.make_task(own), networks.role_models(own, only(own), shape)
    )
    variables = references.fixed_variables(own, only(own), shape)
    expected = score(variables, scoring.scoring_fields(batch), np.int32(0))
    found = kept.reference_losses(only(settings))(batch["id"])
    np.testing.assert_allclose(-found, expected, atol=1e-5)
    assert pyarrow.parquet.read_schema(score_files.part_path(out, 0)).names == ["id", "loss"]
    refused_noise = resolved(policy="easy_reference", caption_noise=0.5, reference__scores=str(out), **small)
    with pytest.raises(config.ConfigError, match=r"scored with caption_noise=0\.0.*other captions"):
        scored.check(refused_noise, only(refused_noise), shape)


@pytest.mark.parametrize(("examples", "batch_size"), [(1, 64), (1438, 64), (1438, 5000), (3_000_000, 256)])
def test_parts_divide_the_examples(run, examples, batch_size):
    from types import SimpleNamespace

    made = score_pass.ScoringPass(
        None, run, SimpleNamespace(num_examples=examples), batch_size, {"identity": "x"}
    )
    parts = made.parts
    assert [part.first for part in parts] == np.cumsum([0, *(part.examples for part in parts)])[:-1].tolist()
    assert sum(part.examples for part in parts) == examples
    assert all(
        part.first % batch_size == 0 and 0 < part.examples <= max(1 << 16, batch_size) for part in parts
    )


def test_what_a_run_rests_on_counts_once(tmp_path, shape):
    """The order of a run that had a reference, beside that reference."""
    (reference := tmp_path / "reference").mkdir()
    (learned := tmp_path / "learned").mkdir()
    key = f"run {reference.resolve()}"
    costs = {reference: (100.0, {}), learned: (130.0, {key: 100.0})}
    for run, (total, before) in costs.items():
        (run / "config.json").write_text(json.dumps(resolved().to_dict()))
        result = {"status": "completed", "ledger": {"total_macs": total}, "computed_before": before}
        (run / "result.json").write_text(json.dumps(result))
    settings = resolved(policy="curriculum", curriculum__record=str(learned))
    assert scored.cost(only(settings)) == {f"run {learned.resolve()}": 30.0, key: 100.0}
    settings = resolved(policy="classact", reference__checkpoint=str(reference))
    assert scored.cost(only(settings)) == {key: 100.0}
    assert scored.run_cost(tmp_path) == {}


def test_a_run_that_goes_on_has_the_files_that_it_began_with(scores, tmp_path):
    settings = resolved(policy="classact", reference__scores=str(scores))
    started = {"scores": {"digits": scored.identities(only(settings))}}
    scored.check_unchanged(settings, started)
    scored.check_unchanged(settings, None)
    folder = shutil.copytree(scores, tmp_path / "others")
    said = json.loads((folder / "_scores.json").read_text())
    (folder / "_scores.json").write_text(json.dumps({**said, "identity": "another"}))
    with pytest.raises(config.ConfigError, match=r"reference\.scores='.*others': it holds other scores"):
        scored.check_unchanged(resolved(policy="classact", reference__scores=str(folder)), started)
