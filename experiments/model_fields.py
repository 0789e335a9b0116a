"""The fields of the models in a configuration, with their defaults; `base.get_config` puts them in."""

from typing import Any


def learner() -> dict[str, Any]:
    """Of the model that is trained."""
    return {
        # vit_l, vit_b, vit_s, vit_ti or a smaller vit_mu_… (models/transformer.py lists them),
        # haiku_…, or `module:function`.
        "model": "vit_mu_6_1",
        # The text tower of a contrastive task, for instance text_b; empty: of the image tower's
        # size, if that is a ViT.
        "text_model": "",
        # Of the family, for ViTs "pool", and "dtype", "remat", "scan" and "attention", which a text tower
        # follows (docs/models.md); --config.learner.options="{'dtype': 'bfloat16', 'remat': 'dots'}".
        "options": {},
        # Of the text tower, such as "pool" (models/text_options.py lists them).
        "text_options": {},
        # Weights to start from: a run directory, whose learner's are taken, or a checkpoint of another
        # tool, such as hf:FOLDER (docs/checkpoints.md); empty: random ones. With model="init" the model
        # is what it is there, and in a contrastive task so are the tokenizer and the common space.
        "init": "",
        # What stays as it is there: "image" or "text", a tower of a contrastive task; "all_but_head",
        # all but the outputs; empty: nothing.
        "freeze": "",
        # What the learning rate is multiplied by from each layer to the one before it, from the outputs to
        # the images, above 0 to 1; 0.65 to 0.9 is usual where a ViT is fine-tuned. 1: all learn alike.
        "layer_decay": 1.0,
        **_input(),
    }


def scorer() -> dict[str, Any]:
    """Of the small model that scores examples: the online model, and the reference if that has no model."""
    return {
        # As of the learner.
        "model": "vit_mu_2_1",
        # As of the learner.
        "text_model": "",
        # As of the learner.
        "options": {},
        # As of the learner.
        "text_options": {},
        # As of the learner, for the online model, and for a reference that is trained in the run and has
        # no model of its own.
        "init": "",
        **_input(),
    }


def optimizer() -> dict[str, Any]:
    """Of what trains all models of the run, beside its learning rate and weight decay."""
    return {
        # "adamw"; "lion", usually with a tenth of AdamW's learning rate and ten times its decay;
        # "adafactor", as big_vision sets it, with half the memory; "sgd", with momentum `beta1`.
        "name": "adamw",
        # Of the learning rate after the warm-up: "cosine", to 0 at the last update; "rsqrt", in
        # proportion to 1 / √update; "constant".
        "schedule": "cosine",
        # With the latter two the last updates, in which the rate falls in a straight line to 0.
        "cooldown_steps": 0,
        # β₁, how much of the mean of gradients is kept from update to update.
        "beta1": 0.9,
        # β₂, the same of their squares; -1: 0.999, and 0.99 of Lion.
        "beta2": -1.0,
        # ε, of AdamW.
        "epsilon": 1e-8,
        # What `weight_decay` is for: "matrices", all with two or more axes, with positions and embeddings;
        # "kernels", the weights of layers alone, as in big_vision.
        "decayed": "matrices",
        # Whether an update decays by `weight_decay` times the learning rate, as in PyTorch, or times
        # its share of the highest, as in big_vision: then the same figure is far stronger.
        "decay_times_rate": True,
    }


def reference() -> dict[str, Any]:
    """Of the model that is already good, or learns on the side."""
    return {
        # Run directory of a trained reference, or a checkpoint of another tool, such as hf:FOLDER
        # (docs/checkpoints.md), for policies with a fixed one.
        "checkpoint": "",
        # Its model. Empty: what the run of its checkpoint says, with its options, image size, patch
        # size and interpolation; of one that is trained in the run, the scorer's.
        "model": "",
        # Its text tower; empty: as `model`.
        "text_model": "",
        # Its options, which are added to those that it has otherwise.
        "options": {},
        # Those of its text tower, likewise.
        "text_options": {},
        # What a classification reads its logits from: empty: its own outputs; "zero_shot": of two towers,
        # the similarities of an image to the names of the classes, in prompts of `contrastive.templates`.
        "head": "",
        **_input(),
        # In its place, a folder of `classact score`: the reference's loss on each example
        # is read and not computed (docs/amortised.md).
        "scores": "",
        # Of `classact_online`, whose reference is trained in the run: the examples of
        # each of its updates, drawn IID; rounded up to whole super-batches of scored
        # examples. 0: 10 · batch_size.
        "super_batch": 0,
        # Of the same: its learning rate, as a multiple of `learning_rate`.
        "learning_rate_factor": 2.0,
        # What training the fixed reference has cost, in MACs, for the ledger alone; -1: what
        # the run of its checkpoint says, and 0 of another tool's; 0: nothing, as of a model taken off
        # the shelf.
        "pretraining_macs": -1.0,
    }


def _input() -> dict[str, Any]:
    return {
        # Side of the square images that the model looks at, in pixels: those of the data are resized on
        # the device. A scorer at half the learner's costs a quarter. 0: as the data are.
        "image_size": 0,
        # Side of its patches, in pixels; 0: the run's `patch_size`.
        "patch_size": 0,
        # How its images are resized, "bilinear" or "bicubic", both antialiased; empty: bilinear.
        "interpolation": "",
    }
