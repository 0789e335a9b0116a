"""What the records of a data set carry for a joint policy, beside its examples."""

import dataclasses

from classact.experiments.config import DataSetConfig, ExperimentConfig
from classact.launch.assembly.parts import reference_models
from classact.launch.assembly.parts.shapes import DataShape
from classact.nodes import joint_fields
from classact.selection import policies


def with_embeddings(config: ExperimentConfig, own: DataSetConfig, shape: DataShape) -> DataShape:
    """A data set's shape with records that also carry what a joint choice needs, if its policy is joint.

    Args:
        config: of the run.
        own: the data set.
        shape: of `shapes.data_shape`.

    Raises:
        ConfigError: if the reference's run, which knows the width of its embeddings, cannot be read.
    """
    if not policies.get(own.policy).joint:
        return shape
    fields = joint_fields.empty_fields(widths(config, own, shape))
    codec = shape.codec.with_fields(fields)
    more = codec.num_bytes - shape.codec.num_bytes
    return dataclasses.replace(shape, codec=codec, sent_bytes=shape.sent_bytes + more)


def widths(config: ExperimentConfig, own: DataSetConfig, shape: DataShape) -> dict[str, int]:
    """D of the models that score a data set, by role."""
    policy = policies.get(own.policy)
    found = {}
    if policy.online is not None:
        found["online"] = config.contrastive.embedding_size
    if policy.reference is not None:
        described = reference_models.described(config, own, shape)
        found["reference"] = described.contrastive.embedding_size
    return found
