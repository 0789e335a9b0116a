"""Whether a data set names what its policy goes by: a reference, score files, a recorded order."""

from classact.experiments.config import ConfigError, DataSetConfig, ReferenceConfig, require
from classact.experiments.model_config import MODEL_FIELDS
from classact.selection import policies


def checked_policy(config: DataSetConfig) -> policies.Policy:
    """The policy, with the reference, or what else was made before the run, that it asks for.

    Raises:
        ConfigError: for an unknown policy, if what it needs is not named, or something is
            that it does not use.
    """
    try:
        policy = policies.get(policies.importable_name(config.policy))
    except ValueError as error:
        raise ConfigError(f"policy={config.policy!r}: {error}") from None
    _check_prepared(config, policy)
    checkpoint, scores = config.reference.checkpoint, config.reference.scores
    if policy.reference != "fixed":
        for name, value in (("checkpoint", checkpoint), ("scores", scores)):
            if value:
                raise ConfigError(
                    f"reference.{name}={value!r}: must be empty, policy {config.policy!r} uses no fixed "
                    "reference"
                )
        stated = config.reference.pretraining_macs
        require(stated == -1, "reference.pretraining_macs", stated, f"-1 with policy {config.policy!r}")
        return policy
    require(
        bool(checkpoint or scores),
        "reference.checkpoint",
        checkpoint,
        f"the run directory of a pretrained reference: policy {config.policy!r} scores with one"
        + ("" if policy.joint else " (or reference.scores, a folder of its score files)"),
    )
    if policy.reference_data == "held_out":
        require(
            config.train_split == "rest",
            "train_split",
            config.train_split,
            f"'rest' with policy {config.policy!r}: its reference learned from the held-out part",
        )
    return policy


def _check_prepared(config: DataSetConfig, policy: policies.Policy) -> None:
    """What a policy without scores goes by is named, and nothing is named that it does not use."""
    kept, order = config.top_share, config.curriculum
    two = policy.prepared == "share" and kept.by == "learnability"
    asked = {
        "top_share.scores": (kept.scores, policy.prepared == "share", "a folder of score files"),
        "top_share.reference_scores": (kept.reference_scores, two, "a folder of the reference's score files"),
        "curriculum.record": (order.record, policy.prepared == "order", "a run that had record_examples"),
    }
    for field, (value, wanted, what) in asked.items():
        if wanted:
            require(bool(value), field, value, f"{what}, with policy {config.policy!r}")
        else:
            by = " with by='learnability'" if field.endswith("reference_scores") else ""
            owner = {"top_share": "'top_share'", "curriculum": "'curriculum'"}[field.partition(".")[0]]
            require(not value, field, value, f"empty: it is of policy {owner}{by}")


def check_joint(config: DataSetConfig, policy: policies.Policy, task: str) -> None:
    """Checks that a policy that chooses jointly has pairs to compare.

    Raises:
        ConfigError: with another task, with score files, or with a weight of the online loss.
    """
    if not policy.joint:
        return
    named = f"with policy {config.policy!r}, which chooses pairs jointly"
    if task != "contrastive":
        raise ConfigError(
            f"policy={config.policy!r}: must be one that does not choose jointly with task={task!r}"
        )
    scores, own = config.reference.scores, config.selection
    require(not scores, "reference.scores", scores, f"empty {named}: they have no embeddings")
    for name, value in (("online_weight", own.online_weight), ("online_weight_end", own.online_weight_end)):
        require(value in (1.0, -1.0), f"selection.{name}", value, f"1 {named}")


def check_one_reference(of_run: ReferenceConfig, data_set: DataSetConfig) -> None:
    """Checks that a reference that is trained in the run, and learns from all data sets, is one model.

    Args:
        of_run: the run's own fields of it.
        data_set: one of several, resolved.

    Raises:
        ConfigError: naming the field in which they differ.
    """
    if policies.get(data_set.policy).reference != "trained":
        return
    for name in MODEL_FIELDS:
        own, common = getattr(data_set.reference, name), getattr(of_run, name)
        one = f"the run's own, reference.{name}={common!r}: one reference learns from all"
        # Its text tower is filled in by now.
        require(own == common or (name == "text_model" and not common), f"reference.{name}", own, one)
