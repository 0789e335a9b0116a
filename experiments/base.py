"""The configuration with every field and its default; experiments change some."""

import ml_collections


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
            "score_shift": 0.0,
            "max_nonfinite_share": 0.01,
            # Data. `eval_data` empty: the held-out split of `train_data`.
            # `label_noise`: probability that a training label is redrawn.
            # `held_out`: share of the training data for a held-out reference;
            # `train_split`: "all", "held_out" or "rest".
            "train_data": "icons",
            "eval_data": "",
            "label_noise": 0.0,
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
            "learner": {"model": "vit_mu_6_1", "options": {}},
            "scorer": {"model": "vit_mu_2_1", "options": {}},
            # `checkpoint`: the run directory of a pretrained reference.
            # `super_batch`: of a reference trained online; 0: 10 · batch_size.
            "reference": {"checkpoint": "", "super_batch": 0, "learning_rate_factor": 2.0},
            # `capacity` 0: eight super-batches.
            "replay": {"capacity": 0},
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
            "evaluation": {"every": 50, "batch_size": 250},
            "log_every": 25,
            "checkpoint_every": 0,
            "no_data_seconds": 300.0,
            # Compute threads of each node with `--launch=processes`; 0: one per core.
            "threads": {"learner": 1, "inference": 1, "evaluator": 1, "replay": 1, "run_loop": 1},
        }
    )
