"""The compute ledger: what a policy costs per learner update, and what a run has cost.

The unit is the multiply-accumulate (MAC) per example. A forward pass costs F,
a backward pass twice that, so a training step costs 3·F per example (Appendix
A.1). What each policy pays follows from the models it uses, which
`classact.selection.policies.Policy` says; no policy is known here by name.

Two countings are kept side by side, since the paper's leaves out a term:

*The paper's formula* (Appendix A.1), per example and per update of an IID run:
`(3·F_learn + ρ·F_act)·β + 3·F_ref`. β is the fraction of the IID run's updates
that remain, 1 − learner speed-up (section 3.3 calls it "the saving"), ρ = B/b
is how many examples are scored for each one trained on, and F_act is what
scoring one costs: F_ref for easy reference, F_learn + F_ref for RHO, 2·F_ref
for ClassAct. The last term is the training of the reference on as many
examples as the IID run sees.

*The full count* adds what Algorithms 1 and 2 do besides: training the online
model on each sub-batch, `3·F_ref·β`, and, where the reference is trained in
the same run, training it on super-batches (10·b in the paper):
`3·F_ref·β·(super-batch / b)` in place of `3·F_ref`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from classact.selection.policies import Policy

TRAINING_PASSES = 3
"""A gradient update in forward passes: one forward, and a backward worth two."""


def acting_cost(
    policy: Policy,
    f_learn: float,
    f_ref: float,
    reference_from_file: bool = False,
    f_online: Optional[float] = None,
) -> float:
    """The cost of scoring one example, F_act of section 3.3.

    Args:
        policy: the policy.
        f_learn: MACs of the learner's forward pass for one example.
        f_ref: MACs of the reference's.
        reference_from_file: whether the reference's losses are read from score files, which
            costs nothing here.
        f_online: MACs of a proxy online model's; None: it has the reference's architecture.

    Returns:
        MACs; 0 for a policy that scores nothing.
    """
    proxy = f_ref if f_online is None else f_online
    online = {None: 0.0, "learner": f_learn, "proxy": proxy}[policy.online]
    return online + (0.0 if policy.reference is None or reference_from_file else f_ref)


def cost_per_update(
    policy: Policy,
    *,
    f_learn: float,
    f_ref: float = 0.0,
    rho: float = 2.0,
    learner_speedup: float = 0.0,
    include_online_training: bool = False,
    include_reference_training: bool = True,
    reference_batch_ratio: Optional[float] = None,
    f_online: Optional[float] = None,
) -> float:
    """The cost of a run per example and per update of the IID run it replaces.

    With the default arguments this is C of Appendix A.1: C_IID, C_easy_ref,
    C_RHO or C_ClassAct, whichever the policy's models make it.

    Args:
        policy: the policy.
        f_learn: MACs of the learner's forward pass for one example.
        f_ref: MACs of the reference's forward pass; a policy without scorer
            ignores it.
        rho: examples scored per example trained on, B/b.
        learner_speedup: share of the IID run's updates that are not needed to
            reach its result, 1 − β; negative if more were needed.
        include_online_training: adds the training of the online model
            (Algorithm 1, line 8), which the paper's formula leaves out.
        include_reference_training: False amortises the reference, as for one
            taken off the shelf (Figure 2).
        reference_batch_ratio: for a reference trained in the same run, its
            super-batch in units of b (10 in the paper), to count its training
            exactly. None keeps the paper's 3·F_ref for it as well.
        f_online: MACs of a proxy online model's forward pass; None: as the reference's.

    Returns:
        MACs per example of a batch.

    Raises:
        ValueError: if a cost is negative, `f_learn` is not positive, ρ is less
            than 1, or the speed-up is not less than 1.
    """
    _check("f_learn", f_learn, f_learn > 0, "more than 0")
    _check("f_ref", f_ref, f_ref >= 0, "at least 0")
    f_online = f_ref if f_online is None else f_online
    _check("f_online", f_online, f_online >= 0, "at least 0")
    _check("rho", rho, rho >= 1, "at least 1")
    _check("learner_speedup", learner_speedup, learner_speedup < 1, "less than 1")
    remaining = 1.0 - learner_speedup
    per_update = TRAINING_PASSES * f_learn + rho * acting_cost(policy, f_learn, f_ref, f_online=f_online)
    if include_online_training and policy.online == "proxy":
        per_update += TRAINING_PASSES * f_online
    once = 0.0
    if policy.reference is not None and include_reference_training:
        if policy.reference == "trained" and reference_batch_ratio is not None:
            _check("reference_batch_ratio", reference_batch_ratio, reference_batch_ratio > 0, "more than 0")
            per_update += TRAINING_PASSES * f_ref * reference_batch_ratio
        else:
            once = TRAINING_PASSES * f_ref
    return per_update * remaining + once


def compute_speedup(
    policy: Policy,
    f_learn: float,
    f_ref: float = 0.0,
    rho: float = 2.0,
    learner_speedup: float = 0.0,
    **counting: Any,
) -> float:
    """The share of an IID run's compute that a policy saves; Table 1's last column.

    Args:
        policy: the policy.
        f_learn: MACs of the learner's forward pass for one example.
        f_ref: MACs of the scorer's.
        rho: examples scored per example trained on, B/b.
        learner_speedup: 1 − β.
        **counting: what is counted, as for `cost_per_update`, for instance
            `include_online_training=True`.

    Returns:
        1 − C_policy / C_IID: 0.03 for 3 % saved; negative (Eq. 6 not met) if
        the selection costs more than it saves.

    Raises:
        ValueError: as for `cost_per_update`.
    """
    cost = cost_per_update(
        policy, f_learn=f_learn, f_ref=f_ref, rho=rho, learner_speedup=learner_speedup, **counting
    )
    return 1.0 - cost / (TRAINING_PASSES * f_learn)


def run_ledger(
    policy: Policy,
    *,
    learner_macs: float,
    scorer_macs: float,
    updates: int,
    batch_size: int,
    examples_scored: int,
    super_batch_size: int = 0,
    reference_pretraining_macs: float = 0.0,
    learner_recomputed_macs: float = 0.0,
    scorer_recomputed_macs: float = 0.0,
    slots_padded: int = 0,
    updates_redone: int = 0,
    evaluation_macs: float = 0.0,
    reference_from_file: bool = False,
    reference_macs: Optional[float] = None,
    reference_recomputed_macs: Optional[float] = None,
    joint_macs: float = 0.0,
) -> dict[str, float]:
    """What a run has cost, from what it has counted.

    `total_macs` is what a comparison rests on: the updates that the result consists of, and
    all examples scored for them. Evaluation is not in it, as both sides pay the same for
    it; nor are padding and updates that were made twice, which say something of the
    machines and not of the policy. They stand beside it.

    Args:
        policy: the run's policy.
        learner_macs: MACs of the learner's forward pass for one example.
        scorer_macs: MACs of the scorer's, which is the proxy online model and, unless
            `reference_macs` is given, the reference; ignored if the policy has neither.
        updates: learner updates made.
        batch_size: b, examples per learner update.
        examples_scored: examples that went through the inference servers.
        super_batch_size: examples per update of a reference that is trained in
            the same run (10·b in the paper); otherwise ignored.
        reference_pretraining_macs: what training the fixed reference has cost,
            the `total_macs` of its own run; 0 if it came from elsewhere. Of score files
            what made them, of a recorded order what the run that recorded it has cost.
        learner_recomputed_macs: what an update of the learner computes again for one
            example, because it rematerialises (`cost.recomputed_macs`).
        scorer_recomputed_macs: the same of the scorer.
        slots_padded: rows that inference servers computed to fill their batches up.
        updates_redone: updates that were made again, after a process died.
        evaluation_macs: of all evaluations of the run.
        reference_from_file: whether the reference's losses were read from score files.
        reference_macs: MACs of the forward pass of a reference of another architecture or input than
            the scorer; None: the scorer's.
        reference_recomputed_macs: what an update of such a reference computes again; None: the scorer's.
        joint_macs: what an update's joint choice takes, the similarities of all pairs of a super-batch.

    Returns:
        MACs by what they were spent on, all zero where a policy does not:

        - `learner_training_macs`, `online_training_macs`, `reference_training_macs`
          (in this run), `scoring_macs`, `joint_selection_macs`, `reference_pretraining_macs`;
        - `total_macs`: their sum;
        - `total_macs_paper_formula`: the sum as Appendix A.1 counts, without
          the online model's training, and with a reference trained in the run
          counted as if on sub-batches of b;
        - `macs_per_update`: `total_macs` without the pretraining, by update;
        - `learner_forward_macs`, `scorer_forward_macs`, `reference_forward_macs`: the costs
          per example that all this rests on, and `learner_update_macs`, `scorer_update_macs`,
          `reference_update_macs`: of a training step, three times that and what is computed again.
          The scorer's are the proxy online model's, and without one the reference's; those of
          models that there are not are 0;
        - `evaluation_macs`, `padding_macs`, `redone_macs`: in none of the sums above;
        - `computed_macs`: all that this run itself computed, these three included, the
          pretraining not.

    Raises:
        ValueError: if a count is negative, the learner's cost is not positive,
            a policy without fixed reference was given its pretraining, or one
            that trains the reference was given no super-batch size.
    """
    for name, value in (
        ("scorer_macs", scorer_macs),
        ("updates", updates),
        ("batch_size", batch_size),
        ("examples_scored", examples_scored),
        ("super_batch_size", super_batch_size),
        ("reference_pretraining_macs", reference_pretraining_macs),
        ("learner_recomputed_macs", learner_recomputed_macs),
        ("scorer_recomputed_macs", scorer_recomputed_macs),
        ("reference_macs", reference_macs or 0.0),
        ("reference_recomputed_macs", reference_recomputed_macs or 0.0),
        ("slots_padded", slots_padded),
        ("updates_redone", updates_redone),
        ("evaluation_macs", evaluation_macs),
        ("joint_macs", joint_macs),
    ):
        _check(name, value, value >= 0, "at least 0")
    _check("learner_macs", learner_macs, learner_macs > 0, "more than 0")
    if policy.reference != "fixed" and policy.prepared is None:
        fixed = f"0, as policy {policy.name!r} reads no fixed reference"
        _check(
            "reference_pretraining_macs", reference_pretraining_macs, reference_pretraining_macs == 0, fixed
        )
    trains_reference = policy.reference == "trained"
    if trains_reference:
        _check("super_batch_size", super_batch_size, super_batch_size > 0, "more than 0")
    has_reference = policy.reference is not None and not reference_from_file
    has_scorer = has_reference or policy.online == "proxy"
    of_reference = (
        scorer_macs if reference_macs is None else reference_macs,
        scorer_recomputed_macs if reference_recomputed_macs is None else reference_recomputed_macs,
    )
    f_ref, again_ref = of_reference if has_reference else (0.0, 0.0)
    proxy = (scorer_macs, scorer_recomputed_macs) if policy.online == "proxy" else (f_ref, again_ref)
    f_scorer, again_scorer = proxy if has_scorer else (0.0, 0.0)
    examples_trained = updates * batch_size

    learner_update = TRAINING_PASSES * learner_macs + learner_recomputed_macs
    scorer_update = TRAINING_PASSES * f_scorer + again_scorer
    reference_update = TRAINING_PASSES * f_ref + again_ref
    learner = learner_update * examples_trained
    online = scorer_update * examples_trained if policy.online == "proxy" else 0.0
    reference = reference_update * updates * super_batch_size if trains_reference else 0.0
    f_act = acting_cost(policy, learner_macs, f_ref, reference_from_file, f_scorer)
    scoring = f_act * examples_scored
    joint = joint_macs * updates
    during_run = learner + online + reference + scoring + joint
    by_paper = TRAINING_PASSES * learner_macs * examples_trained
    by_paper += TRAINING_PASSES * f_ref * examples_trained if trains_reference else 0.0
    redone = (learner + online + reference + joint) / updates * updates_redone if updates else 0.0
    padding = f_act * slots_padded
    ledger = {
        "learner_training_macs": learner,
        "online_training_macs": online,
        "reference_training_macs": reference,
        "scoring_macs": scoring,
        "joint_selection_macs": joint,
        "reference_pretraining_macs": reference_pretraining_macs,
        "total_macs": during_run + reference_pretraining_macs,
        "total_macs_paper_formula": by_paper + scoring + joint + reference_pretraining_macs,
        "macs_per_update": during_run / updates if updates else 0.0,
        "learner_forward_macs": learner_macs,
        "scorer_forward_macs": f_scorer,
        "reference_forward_macs": f_ref,
        "learner_update_macs": learner_update,
        "scorer_update_macs": scorer_update,
        "reference_update_macs": reference_update,
        "evaluation_macs": evaluation_macs,
        "padding_macs": padding,
        "redone_macs": redone,
        "computed_macs": during_run + evaluation_macs + padding + redone,
    }
    return {name: float(macs) for name, macs in ledger.items()}


def add(ledgers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Adds up the ledgers of one run's data sets, at least one; costs per example do not add up."""
    return {
        name: max(own[name] for own in ledgers)
        if name.endswith(("_forward_macs", "_update_macs"))
        else float(sum(own[name] for own in ledgers))
        for name in ledgers[0]
    }


def _check(field: str, value: float, accepted: bool, expected: str) -> None:
    """Raises a ValueError that names the field unless its value is accepted."""
    if not accepted:
        raise ValueError(f"{field}={value!r}, expected {expected}")
