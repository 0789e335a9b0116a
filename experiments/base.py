"""The configuration with every field and its default; experiments change some."""

from typing import Any

import ml_collections

# What each data set of a run has of its own; see `data_set`.
DATA_SET_FIELDS = (
    "policy", "batch_size", "filter_ratio", "temperature", "weight", "train_data",
    "label_noise", "caption_noise", "held_out", "train_split", "reference", "replay", "inference",
)  # fmt: skip


def data_set(config: ml_collections.ConfigDict, **changes: Any) -> ml_collections.ConfigDict:
    """Makes an entry of `data_sets`: the configuration's own fields, with changes.

    Example:
        >>> config.data_sets.noisy = base.data_set(config, train_data="tar:pairs/*.tar", batch_size=96)

    Args:
        config: gives the fields that are not changed.
        **changes: of fields in `DATA_SET_FIELDS`; of a group, such as `reference`, a
            dict with what differs.

    Raises:
        KeyError: for a field that a data set does not have.
    """
    made = ml_collections.ConfigDict(
        {name: config[name] for name in DATA_SET_FIELDS}
    ).copy_and_resolve_references()
    made.update(ml_collections.ConfigDict(changes))
    unknown = sorted(set(made) - set(DATA_SET_FIELDS))
    if unknown:
        raise KeyError(f"a data set has no field {', '.join(unknown)}: it has {', '.join(DATA_SET_FIELDS)}")
    return made


def get_config() -> ml_collections.ConfigDict:
    """Returns the defaults: ClassAct on the icons that ship with the repository."""
    return ml_collections.ConfigDict(
        {
            # Selection. `filter_ratio`: share of the scored examples that is never
            # trained on. `temperature` of the softmax, in the units of the score.
            "policy": "classact",
            "batch_size": 64,
            "filter_ratio": 0.5,
            "temperature": 1.0,
            "max_nonfinite_share": 0.01,
            # Several data sets: by name, entries made by `data_set`. Empty: one,
            # of the fields here. `weight` of its loss in the mean over data sets.
            "data_sets": {},
            "weight": 1.0,
            # "classification", or "contrastive" for pairs of images and texts.
            "task": "classification",
            # Data. `eval_data` empty: the eval split of `train_data`, or what is held out of it.
            # `label_noise`: probability that a training label is redrawn;
            # `caption_noise`: share of the captions that is shuffled.
            # `held_out`: share of the training data for a held-out reference;
            # `train_split`: "all", "held_out" or "rest".
            "train_data": "icons",
            "eval_data": "",
            # Share of `train_data` that is held out to measure on and never trained on, from 0
            # to below 1, if `eval_data` is empty and the source has no eval split of its own
            # (npz, folder, tar, captioned_folder). Each class gives one image at least, if it
            # has two. Chosen by `data_seed`. 0: the run measures on its training data.
            "eval_share": 0.05,
            "label_noise": 0.0,
            "caption_noise": 0.0,
            "held_out": 0.0,
            "train_split": "all",
            "data_seed": 0,
            # Training of the learner (Appendix A.2); `warmup_steps` -1: a tenth
            # of the run.
            "steps": 1500,
            "seed": 0,
            "learning_rate": 1e-3,
            "warmup_steps": -1,
            "weight_decay": 1e-3,
            "clip_norm": 0.0,
            "label_smoothing": 0.1,
            "patch_size": 8,
            # `text_model`: of a contrastive task's text tower; empty: of the size
            # of the image tower, a ViT. `options` of the family, for ViTs "pool",
            # and "dtype" and "remat", which a text tower follows; as an argument
            # --config.learner.options="{'dtype': 'bfloat16', 'remat': True}".
            "learner": {"model": "vit_mu_6_1", "text_model": "", "options": {}},
            "scorer": {"model": "vit_mu_2_1", "text_model": "", "options": {}},
            # The learner's devices. `hosts`: processes that train together, each on
            # all devices that it sees; `fsdp`: devices of a host that share one copy
            # of the parameters, the rest of the devices is data parallel.
            # `gradient_accumulation`: parts of a batch that go through the device one
            # after another.
            "mesh": {"hosts": 1, "fsdp": 1},
            "gradient_accumulation": 1,
            # The contrastive task (A.3). `loss`: "infonce" or "sigmoid"; `act_loss`:
            # "dot" (Eq. 9) or "infonce"; `tokenizer`: "icons", "clip" or "file:PATH";
            # `templates` make captions of class names where a source has only labels.
            "contrastive": {
                "loss": "infonce",
                "act_loss": "dot",
                "tokenizer": "icons",
                "context_length": 16,
                "embedding_size": 64,
                "causal": True,
                "templates": "simple",
            },
            # `checkpoint`: the run directory of a pretrained reference.
            # `super_batch`: of a reference trained online; 0: 10 · batch_size.
            "reference": {"checkpoint": "", "super_batch": 0, "learning_rate_factor": 2.0},
            # `shards`: servers over which a data set's run loops are spread; a batch has
            # equally many examples of each, by the softmax over what that one holds
            # (`replay/dataset.py`). `capacity`: of all shards together; 0: four super-batches.
            "replay": {"capacity": 0, "shards": 1},
            # `batch_size` 0: one super-batch. `run_loops`: per server; 0:
            # two as threads, one as a node.
            # `run_loops_as_nodes`: as nodes of their own instead of threads.
            "inference": {
                "servers": 1,
                "run_loops": 0,
                "run_loops_as_nodes": False,
                "batch_size": 0,
                "max_wait_seconds": 0.005,
            },
            # `evaluators`: by name {"kind": "accuracy", "retrieval" or "zero_shot",
            # "data": a source, "templates": for zero_shot, "distinct": for retrieval,
            # one pair a caption}. Empty: "test" (accuracy) or "retrieval" on `eval_data`.
            "evaluation": {"every": 50, "batch_size": 250, "evaluators": {}},
            "log_every": 25,
            # Updates between checkpoints, from which a run goes on that was interrupted;
            # 0: only at the end, or when it is stopped.
            "checkpoint_every": 250,
            # Whether to write which examples each update was made from, by their ids, to
            # `trained_examples.jsonl` (of several hosts: the first one's).
            "record_examples": False,
            # How long a data set may deliver nothing to the learner before the run fails. The
            # time that run loops take to open it does not count, up to an hour of it.
            "no_data_seconds": 300.0,
            # A node that died is started again, each at most `restarts_per_hour` times
            # within an hour (0: never; nor with `--launch=threads` or `synchronous`,
            # which are one process). `stop_notice_seconds`: from asking a run to stop to
            # killing what is left; the learner saves its state in it, which takes a large
            # model longer than this. A second signal does not wait. `synchronous` ends
            # after the update that it is at.
            "restarts_per_hour": 10,
            "stop_notice_seconds": 8.0,
            # Compute threads of each node with `--launch=processes`; 0: one per core.
            "threads": {"learner": 1, "inference": 1, "evaluator": 1, "replay": 1, "run_loop": 1},
            # What each node has of a cluster's host (`--launch=slurm`, `--launch=ray`),
            # by kind; it computes with as many threads as it has CPUs. `memory_gb` 0:
            # not limited; `partition` "": any. `hosts` 0: as few as have room.
            # `sbatch`: more options for a job that is submitted, "--account=… --time=…".
            # `requeue`: lets Slurm start that job again after a preemption or the loss of a
            # host; the run then goes on.
            "cluster": {
                "hosts": 0,
                "sbatch": "",
                "requeue": False,
                **{
                    kind: {"cpus": 1, "memory_gb": 0.0, "gpus": 0, "partition": ""}
                    for kind in ("learner", "inference", "evaluator", "replay", "run_loop")
                },
            },
        }
    )
