"""A value that cannot be run is refused, with the field's name, before anything starts."""

import functools
import json

import pytest

from classact.experiments import base, config, model_fields, resolution
from classact.experiments.configs import classification, demo

NAN, INF = float("nan"), float("inf")


def fields(**changes):
    """The defaults with the uniform policy; dotted names as `reference__checkpoint`."""
    result = {**base.get_config().to_dict(), "policy": "uniform"}
    for name, value in changes.items():
        *groups, inner = name.split("__")
        functools.reduce(dict.__getitem__, groups, result)[inner] = value
    return result


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("policy", "clasact"),
        ("policy", 3),
        ("policy", "no_such_module:policy"),
        ("batch_size", 0),
        ("batch_size", 64.0),
        ("batch_size", True),
        ("filter_ratio", 1.0),
        ("filter_ratio", -0.1),
        ("filter_ratio", NAN),
        ("temperature", 0.0),
        ("temperature", INF),
        ("temperature", "1"),
        ("selection__online_weight", -0.5),
        ("selection__online_weight", INF),
        ("augment", "flop"),
        ("augment", "crop+inception"),
        ("augment", "no_such_module:dim"),
        ("threads__decoding", -1),
        ("selection__online_weight_end", -0.5),
        ("selection__online_weight_end", NAN),
        ("selection__learning_rate_factor", 0.0),
        ("max_nonfinite_share", 1.1),
        ("train_data", ""),
        ("label_noise", 1.5),
        ("held_out", 1.0),
        ("train_split", "half"),
        ("data_seed", -1),
        ("steps", 0),
        ("seed", -1),
        ("learning_rate", 0.0),
        ("learning_rate", NAN),
        ("warmup_steps", 1500),
        ("weight_decay", -1.0),
        ("clip_norm", INF),
        ("label_smoothing", 1.0),
        ("patch_size", 0),
        ("learner", "vit_ti"),
        ("learner__model", 7),
        ("learner__options", 7),
        ("learner__image_size", -1),
        ("scorer__image_size", 32.0),
        ("scorer__patch_size", -8),
        ("reference__image_size", -1),
        ("learner__freeze", "head"),
        ("learner__freeze", "image"),
        ("learner__freeze", "all_but_head"),
        ("learner__layer_decay", 0.0),
        ("learner__layer_decay", 1.5),
        ("learner__layer_decay", NAN),
        ("optimizer__name", "adam"),
        ("optimizer__schedule", "linear"),
        ("optimizer__cooldown_steps", 10),
        ("optimizer__cooldown_steps", -1),
        ("optimizer__beta1", 1.0),
        ("optimizer__beta2", -0.5),
        ("optimizer__epsilon", 0.0),
        ("optimizer__epsilon", INF),
        ("optimizer__decayed", "all"),
        ("optimizer__decay_times_rate", 1),
        ("reference__patch_size", "8"),
        ("reference__text_model", "text_b"),
        ("reference__interpolation", "nearest"),
        ("learner__interpolation", "linear"),
        ("reference__options", "{}"),
        ("reference__checkpoint", "runs/some"),
        ("reference__super_batch", -1),
        ("reference__learning_rate_factor", 0.0),
        ("reference__learning_rate_factor", INF),
        ("replay__capacity", -5),
        ("replay__capacity", 100),
        ("replay__shards", 0),
        ("replay__compression", "zip"),
        ("replay__shards", 2),
        ("inference__servers", 0),
        ("inference__run_loops", -1),
        ("inference__run_loops_as_nodes", 1),
        ("inference__batch_size", 10),
        ("inference__max_wait_seconds", -1.0),
        ("inference__max_wait_seconds", INF),
        ("evaluation__every", 0),
        ("evaluation__batch_size", 0),
        ("log_every", 0),
        ("checkpoint_every", -1),
        ("no_data_seconds", 0.0),
        ("restarts_per_hour", -1),
        ("hung_seconds", -1.0),
        ("hung_seconds", 4.9),
        ("hung_seconds", INF),
        ("restarts_per_hour", 0.5),
        ("stop_notice_seconds", 0.0),
        ("stop_notice_seconds", INF),
        ("threads__learner", -1),
        ("cluster__hosts", -1),
        ("cluster__sbatch", "-A us"),
        ("cluster__sbatch", "--account='us"),
        ("cluster__sbatch", "'--comment=a\nb'"),
        ("cluster__sbatch", "--account=us --nodes=3"),
        ("cluster__sbatch", "--requeue"),
        ("cluster__requeue", 1),
        ("cluster__learner__cpus", 0),
        ("cluster__replay__gpus", -1),
        ("cluster__learner__gpus", 1.5),
        ("resources__learner__gpus", -2.0),
        ("resources__inference__gpus", 1.5),
        ("resources__inference__gpus", NAN),
        ("resources__evaluator__gpus", INF),
        ("cluster__inference__memory_gb", INF),
        ("mesh__hosts", 0),
        ("mesh__fsdp", 0),
        ("gradient_accumulation", 0),
        ("task", "regression"),
        ("weight", 0.0),
        ("caption_noise", -0.1),
        ("contrastive__context_length", 1),
        ("contrastive__embedding_size", 0),
        ("contrastive__negatives", "all"),
        ("learner__text_model", "text_b"),
        ("data_sets", 3),
    ],
)
def test_a_bad_value_is_refused_by_its_field(field, value):
    with pytest.raises(config.ConfigError) as caught:
        resolution.resolve(fields(**{field: value}))
    assert str(caught.value).startswith(f"{field.replace('__', '.')}=")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 60, "mesh__hosts": 8}, r"^batch_size=60: .*mesh\.hosts=8"),
        ({"batch_size": 60, "mesh__hosts": 4, "gradient_accumulation": 2}, r"^batch_size=60: .*tion=2"),
        (
            {"batch_size": 60, "mesh__hosts": 4, "replay__shards": 2, "inference__run_loops": 2},
            r"^batch_size=60: .*mesh\.hosts=4 times replay\.shards=2",
        ),
        (
            {"policy": "jest_hard", "task": "contrastive", "batch_size": 60, "filter_ratio": 0.09,
             "mesh__hosts": 4},
            r"^batch_size / \(1 - filter_ratio\)=66: .*mesh\.hosts=4",
        ),
        # Batches of 60 are well, but of the stream 66 examples are read at a time.
        (
            {"policy": "classact_online", "batch_size": 60, "filter_ratio": 0.09, "mesh__hosts": 4},
            r"^batch_size / \(1 - filter_ratio\)=66: .*mesh\.hosts=4",
        ),
        (
            {"policy": "classact_online", "batch_size": 8, "filter_ratio": 0.2, "gradient_accumulation": 8,
             "reference__super_batch": 20},
            r"^reference\.super_batch=20: .*gradient_accumulation=8",
        ),
    ],
)  # fmt: skip
def test_every_host_reads_equal_shares_in_equal_parts(changes, named):
    with pytest.raises(config.ConfigError, match=named):
        resolution.resolve(fields(**changes))


@pytest.mark.parametrize(
    ("policy", "changes", "named"),
    [
        ("jest_hard", {"task": "classification"}, "policy='jest_hard': .* with task='classification'"),
        ("jest_hard", {"selection__chunks": 0}, "selection.chunks=0: must be at least 1"),
        ("jest", {"reference__scores": "some"}, "reference.scores='some': must be empty with policy 'jest'"),
        (
            "jest",
            {"reference__checkpoint": "some", "selection__online_weight": 0.5},
            "selection.online_weight=0.5: must be 1 with policy 'jest'",
        ),
    ],
)
def test_what_a_joint_choice_cannot_use_is_refused(policy, changes, named):
    with pytest.raises(config.ConfigError, match=f"^{named}"):
        resolution.resolve(fields(**{"policy": policy, "task": "contrastive", **changes}))


def test_all_that_is_scored_leaves_the_table_of_a_joint_choice():
    found = resolution.resolve(
        fields(policy="jest_hard", task="contrastive", filter_ratio=0.8, batch_size=32)
    )
    (own,) = found.data_sets.values()
    assert (own.drawn_size, own.selection.chunks) == (160, 16)
    (own,) = resolution.resolve(
        fields(filter_ratio=0.8, batch_size=32, selection__chunks=4)
    ).data_sets.values()
    # Not used by a policy that does not choose jointly.
    assert (own.drawn_size, own.selection.chunks) == (32, 16)


def test_several_hosts_divide_the_defaults():
    found = resolution.resolve(fields(policy="classact_online", mesh__hosts=4, gradient_accumulation=2))
    assert found.mesh == config.MeshConfig(hosts=4, fsdp=1)


@pytest.mark.parametrize("name", ["policy", "steps"])
def test_a_missing_field_is_named(name):
    given = fields()
    del given[name]
    with pytest.raises(config.ConfigError, match=f"missing field {name}"):
        resolution.resolve(given)


def test_an_unknown_field_is_named():
    with pytest.raises(config.ConfigError, match=r"unknown field replay\.size"):
        resolution.resolve(fields(replay__size=3))


def test_the_nearest_policy_is_named():
    with pytest.raises(config.ConfigError, match="did you mean classact"):
        resolution.resolve(fields(policy="clasact"))


def test_a_policy_with_a_fixed_reference_asks_for_it():
    with pytest.raises(config.ConfigError, match=r"reference\.checkpoint=''.*run directory"):
        resolution.resolve(fields(policy="classact"))


@pytest.mark.parametrize("policy", ["rho", "classact_ho"])
def test_a_held_out_reference_asks_for_the_rest(policy):
    given = {"policy": policy, "reference__checkpoint": "runs/r"}
    with pytest.raises(config.ConfigError, match=r"train_split='all'.*'rest'"):
        resolution.resolve(fields(**given))
    with pytest.raises(config.ConfigError, match=r"held_out=0\.0.*above 0"):
        resolution.resolve(fields(**given, train_split="rest"))
    assert resolution.resolve(fields(**given, train_split="rest", held_out=0.2)).held_out == 0.2


def test_defaults_are_filled_in():
    found = resolution.resolve(fields(policy="hard_learner", batch_size=32, filter_ratio=0.75, steps=200))
    assert found.super_batch_size == 128
    assert found.warmup_steps == 20
    assert found.replay.capacity == 4 * 128
    assert found.inference.batch_size == 128
    assert found.inference.run_loops == 2
    assert not found.inference.run_loops_as_nodes
    assert found.reference.super_batch == 0


def test_what_is_set_stays():
    found = resolution.resolve(
        fields(
            policy="hard_learner",
            warmup_steps=0,
            replay__capacity=500,
            inference__batch_size=512,
            inference__run_loops=5,
        )
    )
    assert found.warmup_steps == 0
    assert found.replay.capacity == 500
    assert (found.inference.batch_size, found.inference.run_loops) == (512, 5)


@pytest.mark.parametrize(
    ("changes", "request_size", "server"),
    [
        ({"batch_size": 4096}, 512, 512),
        ({"batch_size": 4096, "inference__request_size": 2000}, 2000, 2000),
        ({"batch_size": 4096, "inference__batch_size": 4096}, 512, 4096),
        ({"batch_size": 4096, "task": "contrastive", "contrastive__act_loss": "dot"}, 512, 512),
        # These scores compare what is sent together.
        ({"batch_size": 4096, "task": "contrastive", "contrastive__act_loss": "infonce"}, 8192, 8192),
    ],
)
def test_a_request_is_a_super_batch_unless_that_is_large(changes, request_size, server):
    if "task" in changes:
        changes = {**changes, "train_data": "icon_pairs", "policy": "classact_online"}
    found = resolution.resolve(fields(**{"policy": "hard_learner", **changes}))
    assert (found.inference.request_size, found.inference.batch_size) == (request_size, server)


def test_a_run_loop_that_is_a_node_is_alone():
    found = resolution.resolve(fields(policy="hard_learner", inference__run_loops_as_nodes=True))
    assert found.inference.run_loops == 1


def test_uniform_filters_nothing():
    found = resolution.resolve(fields(filter_ratio=0.5, batch_size=64))
    assert found.filter_ratio == 0.0
    assert found.super_batch_size == 64
    assert found.replay.capacity == 4 * 64


@pytest.mark.parametrize(("wanted", "expected"), [(0, 640), (100, 128), (640, 640), (641, 768)])
def test_the_super_batch_is_a_multiple_of_what_is_read(wanted, expected):
    found = resolution.resolve(fields(policy="classact_online", reference__super_batch=wanted))
    assert found.reference.super_batch == expected


class TestShards:
    """Every shard must get its part of what is written, read and kept."""

    def fields(self, **changes):
        four = {"policy": "hard_learner", "batch_size": 60, "replay__shards": 4, "inference__servers": 2}
        return fields(**{**four, **changes})

    def test_the_capacity_is_of_all_together(self):
        assert resolution.resolve(self.fields()).replay.capacity == 4 * 120
        # Of 150 examples read per update, a shard gets up to 38.
        found = resolution.resolve(self.fields(filter_ratio=0.6))
        assert found.replay.capacity == 4 * 4 * 38
        assert resolution.resolve(self.fields(replay__capacity=244)).replay.capacity == 244

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"inference__servers": 1}, r"replay\.shards=4: must be at most 2,.*inference\.run_loops"),
            ({"inference__run_loops": 1}, r"replay\.shards=4: must be at most 2,.*inference\.run_loops"),
            ({"batch_size": 62}, r"batch_size=62: must be a multiple of replay\.shards=4"),
            ({"replay__capacity": 246}, r"replay\.capacity=246: must be a multiple of replay\.shards=4"),
            ({"replay__capacity": 236}, r"replay\.capacity=236: must be at least two super-batches, 240"),
            (
                {"policy": "classact_online", "filter_ratio": 0.6},
                r"replay\.shards=4: must be a divisor of the 150 examples.*filter_ratio",
            ),
        ],
    )
    def test_one_that_would_starve_is_refused(self, changes, message):
        with pytest.raises(config.ConfigError, match=message):
            resolution.resolve(self.fields(**changes))

    def test_a_run_from_before_there_were_shards_has_one(self):
        given = fields()
        given["replay"] = {"capacity": 0}
        assert resolution.resolve(given).replay.shards == 1


def test_a_run_from_before_nodes_were_started_again_has_the_defaults():
    given = fields()
    del given["restarts_per_hour"], given["stop_notice_seconds"], given["cluster"]["requeue"]
    found = resolution.resolve(given)
    assert (found.restarts_per_hour, found.stop_notice_seconds, found.cluster.requeue) == (10, 8.0, False)


def test_a_node_need_not_be_started_again_and_a_job_may_have_a_notice():
    found = resolution.resolve(fields(restarts_per_hour=0, cluster__sbatch="--signal=B:TERM@60"))
    assert (found.restarts_per_hour, found.cluster.sbatch) == (0, "--signal=B:TERM@60")


@pytest.mark.parametrize(
    ("policy", "given", "expected"),
    [
        ("classact", {"online_weight": 0.25}, (0.25, 0.25)),
        ("classact", {"online_weight": 1.0, "online_weight_end": 0.0}, (1.0, 0.0)),
        ("classact_online", {"online_weight": 0.5}, (0.5, 0.5)),
        # One term alone, or none.
        ("easy_reference", {"online_weight": 0.25, "online_weight_end": 0.5}, (1.0, 1.0)),
        ("uniform", {"online_weight": 0.25}, (1.0, 1.0)),
    ],
)
def test_the_online_loss_is_weighed_where_there_are_two_terms(policy, given, expected):
    chosen = fields(policy=policy, selection=given)
    if policy in ("classact", "easy_reference"):
        chosen["reference"]["checkpoint"] = "runs/some"
    found = resolution.resolve(chosen)
    assert (found.selection.online_weight, found.selection.online_weight_end) == expected
    assert resolution.resolve(json.loads(json.dumps(found.to_dict()))) == found


class TestDataSets:
    """A run of several data sets, each with what it has of its own."""

    def two(self, **changes):
        config_dict = base.get_config()
        config_dict.policy = "uniform"
        noisy = {"policy": "hard_learner", "batch_size": 96, "temperature": 0.1, **changes}
        config_dict.data_sets = {
            "noisy": base.data_set(config_dict, **noisy),
            "clean": base.data_set(config_dict, train_data="digits", batch_size=32),
        }
        return config_dict.to_dict()

    def test_each_is_resolved(self):
        found = resolution.resolve(self.two())
        noisy, clean = found.data_sets["noisy"], found.data_sets["clean"]
        assert (noisy.policy, noisy.super_batch_size, noisy.temperature) == ("hard_learner", 192, 0.1)
        assert (clean.policy, clean.super_batch_size, clean.train_data) == ("uniform", 32, "digits")
        assert noisy.inference.batch_size == 192
        assert resolution.resolve(json.loads(json.dumps(found.to_dict()))) == found

    def test_the_online_model_has_one_learning_rate(self):
        chosen = self.two(selection={"learning_rate_factor": 2.0})
        with pytest.raises(
            config.ConfigError, match=r"data_sets\.noisy\.selection\.learning_rate_factor=2\.0"
        ):
            resolution.resolve(chosen)
        chosen["selection"]["learning_rate_factor"] = 2.0
        assert resolution.resolve(chosen).selection.learning_rate_factor == 2.0

    def test_the_runs_own_fields_sum_them_up(self):
        found = resolution.resolve(self.two())
        assert found.policy == "uniform+hard_learner"  # In the order of their names.
        assert found.batch_size == 128
        assert found.super_batch_size == 192 + 32

    def test_without_any_there_is_one_by_the_sources_name(self):
        found = resolution.resolve(fields(train_data="icons?classes=9"))
        assert list(found.data_sets) == ["icons"]
        assert found.data_sets["icons"].batch_size == found.batch_size

    def test_a_group_is_changed_in_part(self):
        made = base.data_set(base.get_config(), reference={"checkpoint": "runs/a"})
        assert made.reference.to_dict() == {**model_fields.reference(), "checkpoint": "runs/a"}

    def test_entries_do_not_share_groups(self):
        config_dict = base.get_config()
        first, second = base.data_set(config_dict), base.data_set(config_dict)
        first.inference.servers = 3
        assert second.inference.servers == config_dict.inference.servers == 1

    def test_an_unknown_field_of_an_entry(self):
        with pytest.raises(KeyError, match="no field steps"):
            base.data_set(base.get_config(), steps=3)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"policy": "clasact"}, r"data_sets\.noisy\.policy='clasact'.*did you mean classact"),
            ({"policy": "classact"}, r"data_sets\.noisy\.reference\.checkpoint=''"),
            ({"replay": {"capacity": 7}}, r"data_sets\.noisy\.replay\.capacity=7"),
        ],
    )
    def test_a_bad_value_is_refused_by_its_data_set(self, changes, message):
        with pytest.raises(config.ConfigError, match=message):
            resolution.resolve(self.two(**changes))

    def test_a_name_that_is_no_name(self):
        given = self.two()
        given["data_sets"]["a/b"] = given["data_sets"].pop("clean")
        with pytest.raises(config.ConfigError, match="data_sets='a/b'"):
            resolution.resolve(given)


def contrastive(**changes):
    return fields(task="contrastive", **changes)


def test_a_text_tower_has_the_size_of_the_image_tower():
    found = resolution.resolve(contrastive(scorer__text_model="text_mu_1_1"))
    assert (found.learner.text_model, found.scorer.text_model) == ("text_mu_6_1", "text_mu_1_1")
    with pytest.raises(
        config.ConfigError, match=r"learner\.text_model='': must be .*haiku_resnet18 is no ViT"
    ):
        resolution.resolve(contrastive(learner__model="haiku_resnet18"))


def test_the_task_decides_the_evaluator():
    (classified,) = resolution.resolve(fields(eval_data="digits")).evaluation.evaluators.items()
    assert classified == ("test", config.EvaluatorConfig("accuracy", "digits"))
    (retrieved,) = resolution.resolve(contrastive()).evaluation.evaluators.items()
    assert retrieved == ("retrieval", config.EvaluatorConfig("retrieval", "icons"))


def test_evaluators_are_named_and_of_the_tasks_kinds():
    named = {"zero_shot": {"kind": "zero_shot", "data": "digits", "templates": "icons"}}
    found = resolution.resolve(contrastive(evaluation__evaluators=named))
    assert found.evaluation.evaluators == {
        "zero_shot": config.EvaluatorConfig("zero_shot", "digits", "icons")
    }
    with pytest.raises(config.ConfigError, match=r"evaluators\.zero_shot\.kind='zero_shot'.*classification"):
        resolution.resolve(fields(evaluation__evaluators=named))


def test_whole_numbers_pass_as_floats():
    found = resolution.resolve(fields(temperature=2))
    assert found.temperature == 2.0
    assert isinstance(found.temperature, float)


def test_the_resolved_configuration_resolves_to_itself():
    found = resolution.resolve(fields(policy="classact_online", learner__options={"pool": "mean"}))
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["learner"] == {**model_fields.learner(), "options": {"pool": "mean"}}
    assert resolution.resolve(stored) == found


@pytest.mark.parametrize("part", ["reference", "uniform", "classact"])
def test_the_demonstrations_parts_resolve(part):
    found = resolution.resolve(demo.get_config(part).to_dict())
    assert found.policy == ("classact" if part == "classact" else "uniform")
    if part == "reference":
        assert found.learner.model == found.scorer.model


def test_the_generic_configuration_resolves():
    assert resolution.resolve(classification.get_config().to_dict()).policy == "uniform"


@pytest.mark.parametrize(
    ("data", "changes", "tokenizer", "length"),
    [
        ("icon_pairs", {}, "icons", 16),
        ("icon_pairs?subset=clean", {}, "icons", 16),
        ("icons?classes=20", {}, "icons", 16),
        ("tar:pairs/*.tar", {}, "clip", 77),
        ("digits", {}, "clip", 77),
        # As runs from before this default have it in their `config.json`.
        ("tar:pairs/*.tar", {"tokenizer": "icons", "context_length": 16}, "icons", 16),
        ("tar:pairs/*.tar", {"tokenizer": "icons"}, "icons", 16),
        ("icon_pairs", {"tokenizer": "clip"}, "clip", 77),
        ("icon_pairs", {"context_length": 12}, "icons", 12),
        ("tar:pairs/*.tar", {"tokenizer": "file:words.json", "context_length": 32}, "file:words.json", 32),
    ],
)
def test_the_vocabulary_is_chosen_by_the_data(data, changes, tokenizer, length):
    chosen = {f"contrastive__{name}": value for name, value in changes.items()}
    found = resolution.resolve(fields(train_data=data, task="contrastive", **chosen)).contrastive
    assert (found.tokenizer, found.context_length) == (tokenizer, length)


def test_a_classification_records_the_same_vocabulary_whatever_its_data():
    # Also what runs from before this default have, so that they go on.
    for data in ("digits", "icons", "tar:pairs/*.tar"):
        found = resolution.resolve(fields(train_data=data)).contrastive
        assert (found.tokenizer, found.context_length) == ("icons", 16)


def test_a_data_set_of_a_user_s_function_is_called_by_the_function():
    found = resolution.resolve(fields(train_data="my_pkg.sources:Open_It:arg?size=3"))
    assert list(found.data_sets) == ["open_it"]


def test_gpus_are_said_once_for_every_launch():
    resolved = resolution.resolve(
        fields(resources__learner__gpus=2.0, cluster__inference__gpus=1, cluster__learner__partition="gpu")
    )
    on_cluster = resolved.on_cluster
    assert (on_cluster.learner.gpus, on_cluster.inference.gpus, on_cluster.evaluator.gpus) == (2, 1, 0)
    assert on_cluster.learner.partition == "gpu"
    # What a Slurm job reads back.
    again = resolution.resolve({**resolved.to_dict(), "cluster": config.dataclasses.asdict(on_cluster)})
    assert again.on_cluster == on_cluster


def test_gpus_that_are_said_twice_must_agree():
    said = {"resources__learner__gpus": 2.0, "cluster__learner__gpus": 1}
    with pytest.raises(config.ConfigError, match=r"cluster\.learner\.gpus=1.*resources\.learner\.gpus=2"):
        resolution.resolve(fields(**said))


def test_learner_hosts_do_not_share_a_gpu():
    with pytest.raises(config.ConfigError, match=r"resources\.learner\.gpus=0\.5: must be whole with mesh"):
        resolution.resolve(fields(resources__learner__gpus=0.5, mesh__hosts=2))


def test_a_run_from_before_there_were_resources_is_read():
    old = fields()
    del old["resources"]
    assert resolution.resolve(old).resources.said() == {}
