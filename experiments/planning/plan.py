"""What a setting would cost, before it is trained: MACs by role, and what selection must save to pay.

Selection pays if the updates that it saves are worth more than the scoring, the online model's
training and the reference. All of it is linear in β, the fraction of the uniform run's
updates that remain (1 − learner speed-up), so each way of counting has one break-even point.
Pure functions of costs and sizes; `needs` makes machines of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Optional

from classact.experiments import ledger
from classact.selection.policies import Policy


@dataclasses.dataclass(frozen=True)
class Network:
    """A model's costs for one example.

    Attributes:
        name: of the model.
        forward_macs: of a forward pass.
        update_macs: of a training step, what is computed again included.
        parameters: how many there are.
    """

    name: str
    forward_macs: float
    update_macs: float
    parameters: int

    @property
    def recomputed_macs(self) -> float:
        """What a training step computes again."""
        return self.update_macs - ledger.TRAINING_PASSES * self.forward_macs


@dataclasses.dataclass(frozen=True)
class DataSetPlan:
    """One data set of a setting.

    Attributes:
        name: of the data set.
        policy: its selection policy.
        batch_size: b, examples of an update.
        super_batch_size: B, examples scored for it.
        reference_super_batch: examples of an update of a reference that is trained in the run.
        pretraining_macs: what training its fixed reference has cost, or would cost.
        record_bytes: of an example in the replay, and on its way.
        capacity: examples that its tables hold.
        shards: tables that it has.
        servers: inference servers that it has.
        run_loops: run loops that it has, of all servers.
        request_size: examples that each of them has scored at once.
        example_bytes: of an example with its pixels, as it is scored; 0: as in the replay.
        packed_bytes: of an example in the replay before it is compressed; 0: as many.
        decodes_again: whether the learner's hosts decode what they train on, as the replay has no pixels.
        read_ahead: batches that the learner reads ahead of its updates.
        reference: its reference, if that is another model than the scorer.
        joint_macs: of an update's joint choice; 0 with other policies.
    """

    name: str
    policy: Policy
    batch_size: int
    super_batch_size: int
    reference_super_batch: int = 0
    pretraining_macs: float = 0.0
    record_bytes: int = 0
    capacity: int = 0
    shards: int = 1
    servers: int = 1
    run_loops: int = 1
    request_size: int = 0
    example_bytes: int = 0
    packed_bytes: int = 0
    decodes_again: bool = False
    read_ahead: int = 1
    reference: Optional[Network] = None
    joint_macs: float = 0.0

    @property
    def taken_out(self) -> int:
        """Examples that leave the replay for an update: all where it is chosen jointly.

        A reference of the run reads the whole stream.
        """
        taken = self.super_batch_size if self.policy.joint else self.batch_size
        return taken + (self.super_batch_size if self.reference_super_batch else 0)

    @property
    def opened(self) -> int:
        """Examples of which the learner looks at the images: of a joint choice the chosen."""
        return self.batch_size if self.policy.joint else self.taken_out


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is planned.

    Attributes:
        steps: the run's updates.
        uniform_steps: updates of the uniform run that it is to be held against.
        learner: the model that is trained.
        scorer: the online model that is no learner, and the reference of each data set that has no
            other; None if there is neither.
        data_sets: at least one.
    """

    steps: int
    uniform_steps: int
    learner: Network
    scorer: Optional[Network]
    data_sets: tuple[DataSetPlan, ...]

    def reference_of(self, item: DataSetPlan) -> Optional[Network]:
        """The reference of a data set; None if there is none."""
        return (item.reference or self.scorer) if item.policy.reference is not None else None

    @property
    def scores(self) -> bool:
        """Whether anything is scored."""
        return any(item.policy.scores for item in self.data_sets)

    @property
    def batch_size(self) -> int:
        """Examples of an update, of all data sets."""
        return sum(item.batch_size for item in self.data_sets)

    @property
    def scored(self) -> int:
        """Examples that are scored for an update, of all data sets."""
        return sum(item.super_batch_size for item in self.data_sets if item.policy.scores)

    @property
    def pretraining_macs(self) -> float:
        """Of all references."""
        return sum(item.pretraining_macs for item in self.data_sets)


def predicted_ledger(setting: Setting) -> dict[str, float]:
    """The ledger that the run will have, but for what is scored ahead, evaluation and restarts.

    A run scores a super-batch for each update, and at its end has scored up to
    `scored_ahead` examples more that it did not get to.

    Returns:
        As `ledger.run_ledger`, of all data sets together.
    """
    return ledger.add([_of_data_set(setting, item) for item in setting.data_sets])


def _of_data_set(setting: Setting, item: DataSetPlan) -> dict[str, float]:
    reference = setting.reference_of(item)
    scorer = setting.scorer if item.policy.online == "proxy" else reference
    return ledger.run_ledger(
        item.policy,
        learner_macs=setting.learner.forward_macs,
        scorer_macs=scorer.forward_macs if scorer else 0.0,
        updates=setting.steps,
        batch_size=item.batch_size,
        examples_scored=setting.steps * item.super_batch_size if item.policy.scores else 0,
        super_batch_size=item.reference_super_batch,
        reference_pretraining_macs=item.pretraining_macs,
        learner_recomputed_macs=setting.learner.recomputed_macs,
        scorer_recomputed_macs=scorer.recomputed_macs if scorer else 0.0,
        reference_macs=reference.forward_macs if reference else None,
        reference_recomputed_macs=reference.recomputed_macs if reference else None,
        joint_macs=item.joint_macs,
    )


def scored_ahead(setting: Setting) -> int:
    """How many examples may be scored that no update of the run waits for.

    What the tables hold, what each run loop has in its hands (the request that it writes and the one
    that is being scored), the batches that the learner reads ahead and the one that it has taken.
    """
    return sum(
        item.capacity + 2 * item.run_loops * item.request_size + (item.read_ahead + 1) * item.super_batch_size
        for item in setting.data_sets
        if item.policy.scores
    )


@dataclasses.dataclass(frozen=True)
class Counting:
    """One way to count.

    Attributes:
        name: what is counted.
        update_macs: of an update of the run.
        once_macs: whatever the number of updates.
        uniform_macs: of the whole uniform run.
        uniform_steps: its updates.
    """

    name: str
    update_macs: float
    once_macs: float
    uniform_macs: float
    uniform_steps: int

    @property
    def break_even(self) -> Optional[float]:
        """The learner speed-up (1 − β) from which on the run costs less than the uniform one.

        Negative where it may even take more updates; None if no speed-up is enough.
        """
        remaining = (self.uniform_macs - self.once_macs) / (self.update_macs * self.uniform_steps)
        return 1.0 - remaining if remaining > 0 else None

    def saving(self, speedup: float) -> float:
        """The share of the uniform run's compute that is saved with a learner speed-up; negative: lost."""
        spent = self.update_macs * (1.0 - speedup) * self.uniform_steps + self.once_macs
        return 1.0 - spent / self.uniform_macs


PAPER, FULL = "paper's formula", "everything counted"
WITH_ONLINE = "paper's formula, with online training"


def _forward(network: Optional[Network]) -> float:
    return network.forward_macs if network else 0.0


def countings(setting: Setting, reference_runs: int = 1) -> tuple[Counting, ...]:
    """All ways to count a setting.

    Args:
        setting: what is planned.
        reference_runs: among how many runs a reference's training is shared in one of them.

    Returns:
        `PAPER` (Appendix A.1: without the online model's training, and with a reference trained on
        as many examples as the uniform run), `WITH_ONLINE` (the same with that), `FULL`, and, where
        there is a fixed reference, `FULL` with a part of its training and without it.
    """
    steps, uniform = setting.uniform_steps, setting.uniform_steps * setting.batch_size
    f_learn = setting.learner.forward_macs
    f_online = _forward(setting.scorer)

    def by_formula(online: bool, reference: bool) -> float:
        """MACs of an update, with or without what a reference costs for each update of the uniform run."""
        return sum(item.joint_macs for item in setting.data_sets) + sum(
            item.batch_size
            * ledger.cost_per_update(
                item.policy,
                f_learn=f_learn,
                f_ref=_forward(setting.reference_of(item)),
                f_online=f_online,
                rho=item.super_batch_size / item.batch_size,
                include_online_training=online,
                include_reference_training=reference,
            )
            for item in setting.data_sets
        )

    plain = ledger.TRAINING_PASSES * f_learn * uniform
    found = []
    for name, online in ((PAPER, False), (WITH_ONLINE, True)):
        update = by_formula(online, reference=False)
        once = (by_formula(online, reference=True) - update) * steps
        found.append(Counting(name, update, once, plain, steps))
    update, once = predicted_ledger(setting)["macs_per_update"], setting.pretraining_macs
    really = setting.learner.update_macs * uniform
    ways = {FULL: once}
    if once:
        ways |= {
            f"{FULL}, 1/{reference_runs} of the reference": once / reference_runs,
            f"{FULL}, without the reference": 0.0,
        }
    return (*found, *(Counting(name, update, paid, really, steps) for name, paid in ways.items()))


def full(setting: Setting) -> Counting:
    """`FULL`, with all of a reference's training."""
    return next(item for item in countings(setting) if item.name == FULL)


@dataclasses.dataclass(frozen=True)
class Alternative:
    """A setting with something changed.

    Attributes:
        changes: fields and their values, as they are typed.
        setting: the changed setting.
    """

    changes: tuple[tuple[str, str], ...]
    setting: Setting

    @property
    def break_even(self) -> Optional[float]:
        """Everything counted."""
        return full(self.setting).break_even


def least(setting: Setting, alternatives: Sequence[Alternative]) -> Optional[Alternative]:
    """The alternative of the lowest break-even, if that is below the setting's own."""

    def needed(found: Optional[float]) -> float:
        return 1.0 if found is None else found

    best = min(alternatives, key=lambda item: needed(item.break_even), default=None)
    return best if best and needed(best.break_even) < needed(full(setting).break_even) else None


def suggestions(
    setting: Setting, alternatives: Sequence[Alternative], speedup: float, most: int = 5
) -> list[Alternative]:
    """What to change so that a setting pays.

    Args:
        setting: as it is.
        alternatives: what could be instead.
        speedup: a learner speed-up that is taken to be in reach.
        most: how many to name.

    Returns:
        Those whose break-even is below that, and below the setting's own: first what changes
        fewest fields, then what needs least. Empty if the setting pays as it is.
    """

    def pays(found: Optional[float]) -> bool:
        return found is not None and found <= speedup

    own = full(setting).break_even
    if pays(own):
        return []
    better = [item for item in alternatives if pays(item.break_even)]
    return sorted(better, key=lambda item: (len(item.changes), item.break_even))[:most]
