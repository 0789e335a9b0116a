"""What a learner does with what its tables give before it trains on it, where a policy chooses jointly."""

from collections.abc import Callable, Mapping

import numpy as np

from classact.experiments.config import ExperimentConfig
from classact.nodes import batches, joint
from classact.nodes import mesh as mesh_lib
from classact.selection import policies

Transfer = Callable[[Mapping[str, np.ndarray]], batches.Sampled]


def chosen_first(config: ExperimentConfig, data_set: str, transfer: Transfer) -> Transfer:
    """What moves a data set's sub-batches, which with a joint policy it chooses first.

    Each data set's sub-batch is chosen within its own super-batch: so each keeps its share, and its pairs
    are each other's negatives alone. Of several hosts each chooses its part among what it has read.

    Args:
        config: of the run.
        data_set: its name.
        transfer: moves a batch.
    """
    own, hosts = config.data_sets[data_set], config.mesh.hosts
    policy = policies.get(own.policy)
    if not policy.joint:
        return transfer
    choose = joint.Chooser(
        policy,
        config.contrastive.loss,
        size=own.batch_size // hosts,
        chunks=own.selection.chunks,
        temperature=own.temperature,
        mesh=mesh_lib.local_mesh(),
    )
    return joint.JointTransfer(choose, transfer)
