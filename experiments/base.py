"""The configuration with every field and its default; experiments change some."""

from typing import Any

import ml_collections

from classact.experiments import model_fields

# What each data set of a run has of its own; see `data_set`.
DATA_SET_FIELDS = (
    "policy", "batch_size", "filter_ratio", "temperature", "selection", "weight", "train_data",
    "label_noise", "caption_noise", "held_out", "train_split", "reference", "replay", "inference",
    "top_share", "curriculum", "augment",
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
            # ── Selection. For each update b examples are trained on out of a super-batch:
            # B = b / (1 − filter_ratio) examples that are read from the data and scored.
            # How examples are chosen: the README's table of policies, or `module:function`
            # for a policy of your own. "uniform" scores nothing, and is the baseline.
            "policy": "classact",
            # b, the examples of an update (the sub-batch, in the paper).
            "batch_size": 64,
            # Share of the scored examples that is never trained on, from 0 to below 1. 0.5
            # scores two examples for one that is trained on; the more, the stronger the
            # selection, and the more the scoring costs. Not used by "uniform".
            "filter_ratio": 0.5,
            # Of the softmax over the scores, in their units (nats for a classification): an
            # example's chance is in proportion to exp(score / temperature). Lower prefers
            # high scores more strongly; very high is the same as "uniform".
            "temperature": 1.0,
            # More on the scores.
            "selection": {
                # α of a score with two terms, α · ℓ(online) − ℓ(reference), at least 0. 1 is the
                # paper's; less where the reference has learned from the same noisy data in
                # several epochs (docs/results.md). Policies with one term or none do not use it.
                "online_weight": 1.0,
                # α at the last update, reached in a straight line; -1: it does not change.
                "online_weight_end": -1.0,
                # The learning rate of an online model that is no learner, as a multiple of
                # `learning_rate`; of several data sets, which share it, the run's own counts.
                "learning_rate_factor": 1.0,
                # Parts that a sub-batch is drawn in where it is chosen jointly (`jest`), at least 1: each
                # looks at what the ones before it have taken. At most `batch_size` are made.
                "chunks": 16,
            },
            # The run fails if more than this share of all scores so far (and more than ten)
            # is NaN or infinite: then the scorer or its data is broken.
            "max_nonfinite_share": 0.01,
            # Several data sets at once: by name, entries made by `data_set`, each with its own
            # values of DATA_SET_FIELDS. Empty: one data set, of the fields here.
            "data_sets": {},
            # What this data set's loss counts in the mean over all data sets, relative to
            # the others; only with several.
            "weight": 1.0,
            # ── Data.
            # "classification" of labelled images, or "contrastive" for pairs of images and texts.
            "task": "classification",
            # The source to train on: docs/data.md's tables, or `module:function` for your own.
            "train_data": "icons",
            # The source to measure on. Empty: the eval split of `train_data`, or what is held out of it.
            "eval_data": "",
            # Share of `train_data` that is held out to measure on and never trained on, from 0
            # to below 1, if `eval_data` is empty and the source has no eval split of its own
            # (npz, folder, tar, captioned_folder; your own with `has_splits = False`). Each class
            # gives one image at least, if it has two. Chosen by `data_seed`. 0: the run
            # measures on its training data.
            "eval_share": 0.05,
            # What is done with images before they are scored and trained on: "none", or some of "flip",
            # "crop", "inception", "resize_small_crop" and `module:function`, joined by + as in
            # "inception+flip" (docs/augmentation.md). Evaluation sees the middle of each image.
            "augment": "none",
            # Probability that a training label is redrawn at random, 0 to 1: for experiments
            # with noise, whose true labels are known. Evaluation labels stay as they are.
            "label_noise": 0.0,
            # Share of the training pairs whose captions are shuffled among each other, 0 to 1.
            "caption_noise": 0.0,
            # Share of the training data that is set aside for the reference of `rho` and
            # `classact_ho`, 0 to below 1; which part this run trains on says `train_split`.
            "held_out": 0.0,
            # "all" of the training data; "held_out", the part set aside (for the reference's
            # run); "rest", all but that part (for the run that it is the reference of).
            "train_split": "all",
            # Seed of label noise, shuffled captions and the held-out part. The same one
            # in the runs that are compared, and in a reference and what it scores.
            "data_seed": 0,
            # ── Training (Appendix A.2). The optimiser is AdamW with a cosine schedule to 0.
            # Updates in all. There are no epochs: steps · batch_size examples are trained on.
            "steps": 1500,
            # Seed of the initial parameters and of the order of the data. Change it to
            # repeat an experiment; `compare` shows runs that differ in it alone together.
            "seed": 0,
            # The highest learning rate, at the end of the warm-up.
            "learning_rate": 1e-3,
            # Updates in which the learning rate rises from 0; -1: a tenth of `steps`.
            "warmup_steps": -1,
            # Of AdamW, on every parameter with two or more axes; `optimizer` has other ways.
            "weight_decay": 1e-3,
            # The optimiser and its schedule: `experiments/model_fields.py` has the fields.
            "optimizer": model_fields.optimizer(),
            # Gradients with a larger norm are scaled down to it; 0: never. 1.0 is usual
            # where the loss jumps, as in contrastive runs.
            "clip_norm": 0.0,
            # Share of the target that is spread over all classes, 0 to below 1; in the
            # learner's loss only, scores are without.
            "label_smoothing": 0.1,
            # Side of a ViT's square patches, in pixels; it must divide the image's sides. 8 is
            # for 32-pixel images, 16 for 224. Smaller ones see more, and cost more.
            "patch_size": 8,
            # The model that is trained; `experiments/model_fields.py` has the fields of all models.
            "learner": model_fields.learner(),
            # The scorer: the small model that scores examples, as the online model, and as the
            # reference too where that has no model of its own.
            "scorer": model_fields.scorer(),
            # The learner's devices (GPUs, TPUs). `hosts`: processes that train together, each
            # on all devices that it sees. `fsdp`: devices of a host that share one copy of the
            # parameters, for a model that does not fit one; the rest is data parallel.
            "mesh": {"hosts": 1, "fsdp": 1},
            # Parts of a batch that go through the device one after another, for a batch
            # that does not fit. In a contrastive task `contrastive.negatives` says what that changes.
            "gradient_accumulation": 1,
            # ── The contrastive task (Appendix A.3); not used in classification.
            "contrastive": {
                # What the learner learns by: "infonce" (CLIP's) or "sigmoid" (SigLIP's).
                "loss": "infonce",
                # What scores compare: "dot" (Eq. 9, of one pair alone) or "infonce" (against
                # the other pairs that are scored together).
                "act_loss": "dot",
                # With `gradient_accumulation` a pair's negatives: those of its "part" alone, or the
                # whole "batch", as without it, for one more forward pass of each update.
                "negatives": "part",
                # Of the products that compare images and texts: "default", what JAX takes
                # (TF32 on GPUs, bfloat16 on TPUs), "high" or "highest" (float32).
                "similarity_precision": "default",
                # Makes tokens of captions: "clip", "icons" (a small vocabulary of icon names),
                # "file:PATH" or `module:function`. Empty: "icons" if all training data are the
                # icons that ship with classact, and "clip" for any other.
                "tokenizer": "",
                # Tokens of a text, start and end included; longer captions are cut, and the
                # first lines of a run say how many. 0: 16 with "icons", else CLIP's 77.
                "context_length": 0,
                # Width of the space in which images and texts are compared; CLIP's is 512.
                "embedding_size": 64,
                # Whether a token of a text sees only those before it (as in CLIP), or all.
                "causal": True,
                # Prompts that make captions of class names where a source has labels alone:
                # "simple", "icons", "imagenet" or a file.
                "templates": "simple",
            },
            # ── The reference: a small model that is already good, or learns on the side.
            "reference": model_fields.reference(),
            # ── Of `top_share`, which scores nothing: it trains, uniformly, on the best share of the
            # data by what was scored before the run, as offline curation does.
            "top_share": {
                # Share of the examples that is kept, above 0 to 1.
                "share": 0.5,
                # Which are best: "hard", the highest losses of `scores`; "easy", the lowest;
                # "learnability", the highest of `scores` minus `reference_scores`.
                "by": "hard",
                # Folder of `classact score`; for "learnability" a learner's,
                "scores": "",
                # and here a reference's.
                "reference_scores": "",
            },
            # ── Of `curriculum`, which scores nothing: it trains on the examples that another run
            # has trained on, update by update.
            "curriculum": {
                # Directory of a run that had `record_examples`, or such a file. `batch_size` must
                # be that run's, and `steps` at most its.
                "record": "",
                # What that run calls the data set; empty: as this one, or its only one.
                "data_set": "",
            },
            # ── The replay: the buffer of scored examples that the learner draws from, each
            # at most once.
            "replay": {
                # Examples that it holds, in all shards together; 0: four super-batches. More makes
                # scores older, less makes the learner wait.
                "capacity": 0,
                # Servers that share it, for more examples a second than one can take. A batch
                # has equally many examples of each, by the softmax over what that one holds
                # (`replay/dataset.py`).
                "shards": 1,
                # Whether examples are compressed on the wire and in memory: "auto": where that makes
                # them smaller by a fifth, as icons are and photographs are not; "none"; "snappy".
                "compression": "auto",
                # What is carried of an image: "pixels"; "encoded": its file where that is smaller,
                # decoded again for the learner; "ids": nothing, the learner's hosts read it from the
                # data, which they must have. What is trained on is the same (docs/scaling.md).
                "images": "pixels",
                # Batches that the learner reads ahead at most, while it needs them: an update that takes
                # less time than reading its batch has several read at once. Each may make scores one
                # update older, and what a crash repeats one batch more.
                "read_ahead": 1,
            },
            # ── Inference servers, which score, and run loops, which read data and ask them.
            "inference": {
                # How many servers. More if `classact status` says that the learner waits for data.
                "servers": 1,
                # Run loops of each server; 0: two if they are threads, one if they are nodes.
                "run_loops": 0,
                # Whether each run loop is a process of its own instead of a thread of
                # its server: for data that takes much decoding.
                "run_loops_as_nodes": False,
                # Examples that a run loop reads, sends for scores and writes at once; 0: one
                # super-batch, at most 512 (with contrastive.act_loss="infonce", whose scores are
                # among those of a request, always one super-batch).
                "request_size": 0,
                # Examples that are scored in one computation; 0: one request. Larger where
                # a GPU is not busy.
                "batch_size": 0,
                # How long a batch that is not full waits for more, in seconds.
                "max_wait_seconds": 0.005,
            },
            # ── Evaluation and files.
            "evaluation": {
                # Updates between two evaluations.
                "every": 50,
                # Examples that go through the model at once; changes speed and memory only.
                "batch_size": 250,
                # By name {"kind": "accuracy", "retrieval" or "zero_shot", "data": a source,
                # "templates": for zero_shot, "distinct": for retrieval, one pair a caption}.
                # Empty: "test" (accuracy) or "retrieval" on `eval_data`.
                "evaluators": {},
            },
            # Updates between two lines of the learner's metrics.
            "log_every": 25,
            # Updates between checkpoints, from which a run that was interrupted is resumed;
            # 0: only at the end, or when it is stopped. Each takes disk and some time.
            "checkpoint_every": 250,
            # Whether to write which examples each update was made from, by their ids, and their
            # scores to `trained_examples.jsonl` (of several hosts: the first one's).
            "record_examples": False,
            # If the learner gets no batch of a data set for so long, in seconds, what should
            # deliver it is started again, and if that was done within the hour before, the run
            # fails. The time that run loops take to open it does not count, up to an hour of it.
            "no_data_seconds": 300.0,
            # ── Of `classact serve`, which hands sub-batches on to a trainer of yours (docs/any_trainer.md).
            "serve": {
                # Whether they are: that command sets it. The learner is then the selector, a model as
                # the scorer is, whatever `learner` says.
                "on": False,
                # Where trainers reach it: an IP address's number and a port (0: any that is free), or
                # unix:/PATH on one machine. Its key is in the run directory.
                "listen": "127.0.0.1:0",
                # Sub-batches that are made before some rank of the trainer has taken the first of
                # them, at most. More makes scores older.
                "ahead": 4,
                # Sub-batches that stay on the disk after all ranks have taken them, at most, for a
                # trainer that goes back to a state of its own.
                "kept": 64,
            },
            # ── When something dies or is stopped.
            # How often a node that died is started again within an hour (0: never; nor with
            # `--launch=threads` or `synchronous`, which are one process).
            "restarts_per_hour": 10,
            # A node that says nothing for so long, in seconds, or does not get on with work that it
            # has, hangs: it is killed, which is a death as any other. More than the longest update
            # or evaluation of a batch takes; 0: never. Compiling, opening data, saving a checkpoint
            # and waiting for others are no hanging. Less than `no_data_seconds`.
            "hung_seconds": 120.0,
            # Seconds from asking a run to stop to killing what is left. The learner saves its
            # state in it: more for a large model. A second signal does not wait.
            "stop_notice_seconds": 8.0,
            # ── Machines.
            # Threads of each process; 0: one a core.
            "threads": {
                # Compute threads of the learner, with `--launch=processes`.
                "learner": 1,
                # Of each inference server.
                "inference": 1,
                # Of each evaluator.
                "evaluator": 1,
                # Of each replay node.
                "replay": 1,
                # Of each run loop that is a process.
                "run_loop": 1,
                # Threads that decode images in each process that reads, with any launch.
                "decoding": 0,
            },
            # GPUs of each node by its kind, with `--launch=processes`, `slurm` and `ray`: whole ones, or
            # a share of one's memory, such as 0.25. -1: on a cluster what `cluster` says; on one
            # machine the learner and the servers that score divide what there is, and evaluators
            # have none (docs/devices.md). What has none computes on the CPU.
            "resources": {
                # Of the learner, on each of its hosts.
                "learner": {"gpus": -1.0},
                # Of each inference server.
                "inference": {"gpus": -1.0},
                # Of each evaluator.
                "evaluator": {"gpus": -1.0},
            },
            # What to ask a cluster for (`--launch=slurm`, `--launch=ray`).
            "cluster": {
                # Hosts to use; 0: as few as have room. Not those of `mesh.hosts`, which train.
                "hosts": 0,
                # More options for a Slurm job that is submitted, "--account=… --time=…".
                "sbatch": "",
                # Whether Slurm may start that job again after a preemption or the loss of a
                # host; the run is then resumed.
                "requeue": False,
                # Of each node, by its kind: `cpus`, which is also how many threads it computes
                # with; `memory_gb`, 0: not limited; `gpus`, where
                # `resources` does not say it; `partition` of Slurm, "": any.
                **{
                    kind: {"cpus": 1, "memory_gb": 0.0, "gpus": 0, "partition": ""}
                    for kind in ("learner", "inference", "evaluator", "replay", "run_loop")
                },
            },
        }
    )
