"""Configurations on digits, and the data that they name, for the tests of what is built from them."""

from classact.experiments import base, resolution
from classact.launch.assembly.parts import sources


def resolved(**changes):
    """A configuration on digits; dotted names as `reference__checkpoint`."""
    fields = base.get_config().to_dict()
    defaults = {
        "policy": "uniform",
        "train_data": "digits",
        "patch_size": 4,
        "learner__model": "vit_mu_1_1",
        "scorer__model": "vit_mu_1_1",
    }
    for name, value in {**defaults, **changes}.items():
        group, _, inner = name.rpartition("__")
        (fields[group] if group else fields)[inner] = value
    return resolution.resolve(fields)


def only(chosen):
    """The data set of a configuration that has one."""
    (own,) = chosen.data_sets.values()
    return own


def open_train(images="pixels", **changes):
    chosen = resolved(**changes)
    return sources.open_train_source(chosen, only(chosen), images=images)
