"""A plan as text for the terminal, and as values for JSON."""

import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

import rich.box
import rich.console
import rich.table

from classact.experiments.planning import needs as needs_lib
from classact.experiments.planning import plan
from classact.experiments.planning.needs import Needs, Rates
from classact.experiments.report.table import macs, percent, signed_percent

_WIDTH = 120
_LEDGER_ROWS = {
    "learner_training_macs": "the learner's updates",
    "online_training_macs": "the online model's updates",
    "reference_training_macs": "the reference's updates, in the run",
    "scoring_macs": "scoring",
    "joint_selection_macs": "choosing jointly",
    "reference_pretraining_macs": "the reference's training, before the run",
    "total_macs": "in all",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that `classact plan` says.

    Attributes:
        setting: what is planned.
        countings: of `plan.countings`.
        speedup: the learner speed-up that is taken to be in reach.
        speedup_source: who says so.
        suggestions: of `plan.suggestions`.
        least: the alternative of the lowest break-even; None if none has one below the setting's own.
        needs: of `needs.needs`.
        step_source: where the time of an update is from.
        rates: as stated or measured.
        measured: by part what was measured on this machine; empty if nothing was.
        remarks: what a reader must know besides, one sentence each.
    """

    setting: plan.Setting
    countings: Sequence[plan.Counting]
    speedup: float
    speedup_source: str
    suggestions: Sequence[plan.Alternative]
    least: Optional[plan.Alternative]
    needs: Needs
    step_source: str
    rates: Rates
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)
    remarks: Sequence[str] = ()


def about(number: float) -> str:
    """A number with two digits that count, as `280`, `6,800` or `0.35`."""
    if number == 0:
        return "0"
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 else f"{rounded:g}"


def with_unit(number: float, unit: str) -> str:
    """A number with a prefix of its unit, and three digits: `24.7 GB/s`."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor:
            return f"{number / factor:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}"


def format_plan(found: Plan) -> str:
    """The plan as text."""
    setting, text = found.setting, io.StringIO()
    console = rich.console.Console(file=text, width=_WIDTH, color_system=None, markup=False, highlight=False)
    scorer = f", scorer {setting.scorer.name}" if setting.scorer else ""
    others = "".join(f", reference {name}" for name in _other_references(setting))
    models = f"learner {setting.learner.name}{scorer}{others}"
    console.print(f"{models}, {setting.steps:,} updates", soft_wrap=True)
    for item in setting.data_sets:
        console.print(f"  {item.name}: {_selection(item)}", soft_wrap=True)
    console.print()
    console.print(_forward(setting), soft_wrap=True)
    console.print(_costs(setting))
    console.print(f"Held against a uniform run of {setting.uniform_steps:,} updates:", soft_wrap=True)
    console.print(_break_even(found))
    for line in _advice(found):
        console.print(line, soft_wrap=True)
    console.print()
    console.print(
        f"For an update in {with_unit(found.needs.step_seconds, 's')} ({found.step_source}):", soft_wrap=True
    )
    console.print(_machines(found))
    for line in (*_waits(found), *found.remarks):
        console.print(f"Note: {line}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def to_json(found: Plan) -> str:
    """The plan as JSON: one object, in plain units (MACs, seconds, bytes)."""
    setting = dataclasses.asdict(found.setting)
    for own, item in zip(setting["data_sets"], found.setting.data_sets, strict=True):
        own["policy"] = item.policy.name
    return json.dumps(
        {
            "setting": setting,
            "ledger": plan.predicted_ledger(found.setting),
            "examples_scored_ahead_at_most": plan.scored_ahead(found.setting),
            "countings": [
                {
                    **dataclasses.asdict(item),
                    "break_even": item.break_even,
                    "saving": item.saving(found.speedup),
                }
                for item in found.countings
            ],
            "speedup": found.speedup,
            "suggestions": [
                {"changes": dict(item.changes), "break_even": item.break_even} for item in found.suggestions
            ],
            "needs": dataclasses.asdict(found.needs),
            "rates": dataclasses.asdict(found.rates),
            "measured": dict(found.measured),
            "remarks": list(found.remarks),
        },
        indent=2,
    )


def _selection(item: plan.DataSetPlan) -> str:
    if not item.policy.scores:
        return f"{item.policy.name}, {item.batch_size:,} examples an update"
    ratio = item.super_batch_size / item.batch_size
    return (
        f"{item.policy.name}, {item.batch_size:,} of {item.super_batch_size:,} examples an update "
        f"(scores {ratio:.3g} for one that is trained on)"
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, header in enumerate(headers):
        drawn.add_column(header, justify="right" if number else "left", overflow="fold", vertical="bottom")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _costs(setting: plan.Setting) -> rich.table.Table:
    """MACs of each role."""
    spent = plan.predicted_ledger(setting)
    total = spent["total_macs"]
    rows = []
    for name, label in _LEDGER_ROWS.items():
        value = spent[name]
        if not value:
            continue
        once = name == "reference_pretraining_macs"
        each = "once" if once else macs(value / setting.steps)
        if name == "total_macs":
            each = macs(spent["macs_per_update"])
        rows.append((label, each, f"{value:,.0f}", percent(value / total)))
    return _table(("MACs", "an update", "the run", "share"), rows)


def _forward(setting: plan.Setting) -> str:
    said = f"A forward pass of an example takes the learner {macs(setting.learner.forward_macs)} MACs"
    if setting.scorer:
        ratio = setting.learner.forward_macs / setting.scorer.forward_macs
        said += f", the scorer {macs(setting.scorer.forward_macs)}, {ratio:.3g} times less"
    for name, network in _other_references(setting).items():
        said += f", the reference {name} {macs(network.forward_macs)}"
    return f"{said}."


def _other_references(setting: plan.Setting) -> dict[str, plan.Network]:
    """The references that are other models than the scorer, by name."""
    return {item.reference.name: item.reference for item in setting.data_sets if item.reference is not None}


def _break_even(found: Plan) -> rich.table.Table:
    rows = []
    for item in found.countings:
        uniform = item.uniform_macs / item.uniform_steps
        rows.append(
            (
                item.name,
                f"{item.update_macs / uniform:.3f}",
                f"{item.once_macs / item.uniform_macs:.3f}",
                _speedup(item.break_even),
                signed_percent(item.saving(found.speedup)),
            )
        )
    headers = (
        "counted",
        "an update costs,\nuniform's = 1",
        "once,\nuniform run = 1",
        "pays from so many\nfewer updates on",
        f"compute saved at\n{percent(found.speedup)} fewer",
    )
    return _table(headers, rows)


def _speedup(value: Optional[float]) -> str:
    return "never" if value is None else percent(value)


def _advice(found: Plan) -> list[str]:
    own = plan.full(found.setting).break_even
    reach = f"{percent(found.speedup)} fewer updates ({found.speedup_source})"
    if own is not None and own <= found.speedup:
        return [f"It pays, everything counted, if it needs {reach}."]
    said = [f"It does not pay with {reach}, everything counted."]
    if not found.suggestions:
        least = "Nor does it with a smaller scorer of classact's and a lower filter ratio"
        if found.least is None:
            return [*said, f"{least}."]
        needs_least = _speedup(found.least.break_even)
        return [*said, f"{least}; {_flags(found.least)} needs least, {needs_least} fewer."]
    said.append("It would with one of these (a smaller scorer may steer less well):")
    for item in found.suggestions:
        said.append(f"  {_flags(item)}: from {_speedup(item.break_even)} fewer on")
    return said


def _flags(item: plan.Alternative) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in item.changes)


def _machines(found: Plan) -> rich.table.Table:
    """What `docs/scaling.md` has as tables."""
    needed, rates = found.needs, found.rates
    in_gb, out_gb = with_unit(needed.replay_in, "B/s"), with_unit(needed.replay_out, "B/s")
    measured_reads = rates.reads is not None
    rows = [
        ("trained", f"{about(needed.trained)} examples/s", ""),
        ("scored", f"{about(needed.scored)} examples/s", ""),
        (
            "learner",
            with_unit(needed.update_flops / needed.step_seconds, "FLOP/s"),
            f"{_count(math.ceil(needed.learner_accelerators), 'accelerator')}, "
            f"{_count(needed.learner_hosts, 'host')} of them",
        ),
        (
            "inference servers",
            with_unit(needed.scored * needed.scoring_flops, "FLOP/s"),
            f"{needed.servers}, {with_unit(needed.server_out, 'B/s')} out of each",
        ),
        ("run loops, writing", "", f"{about(needed.run_loop_cores)} cores"),
        (
            "reading and decoding",
            "as measured here" if measured_reads else "if it is JPEG: 1 to 2 ms an image",
            _cores(needed.decode_cores),
        ),
        ("replay, processors", "", f"{about(needed.replay_cores)} cores"),
        ("replay, network", f"{in_gb} in, {out_gb} out", _count(needed.replay_hosts, "host")),
        ("replay, memory", "", with_unit(needed.replay_bytes, "B")),
        ("replay, shards", "", f"{needed.shards}" + _spread(needed)),
        (
            "the learner's readers",
            f"{with_unit(needed.host_in, 'B/s')} into each host",
            f"{about(needed.reader_cores)} cores",
        ),
        *(
            [("the learner's decoding", "of what was chosen, once more", _cores(needed.learner_decode_cores))]
            if needed.learner_decode_cores[1]
            else []
        ),
        (
            "clocks of the tables",
            f"{about(needed.questions)} questions/s",
            f"{about(needed.question_cores)} cores",
        ),
        (
            "parameters",
            f"{with_unit(needed.parameter_bytes, 'B')} to each server",
            f"{with_unit(needed.parameters_out, 'B/s')}, {about(needed.parameter_cores)} cores",
        ),
    ]
    return _table(("", "rate", "needed"), rows)


def _cores(least_and_most: tuple[float, float]) -> str:
    low, high = map(about, least_and_most)
    return f"{low} cores" if low == high else f"{low} to {high} cores"


def _count(number: int, what: str) -> str:
    return f"{about(number)} {what}" + ("" if number == 1 else "s")


def _spread(needed: Needs) -> str:
    return f"; {needed.shards_spread} spread over the hosts" if needed.shards_spread > needed.shards else ""


def _waits(found: Plan) -> list[str]:
    """Which parts of the configuration are too slow for the learner, by what was measured."""
    shares = needs_lib.share_of_learner(found.setting, found.needs.step_seconds, found.rates)
    slow = {name: share for name, share in shares.items() if share < 1}
    if not shares:
        return []
    if not slow:
        least = min(shares, key=lambda name: shares[name])
        return [
            f"each part alone keeps up with the learner; the least to spare has {least}, "
            f"{shares[least]:.2g} times what is needed"
        ]
    return [
        f"{name} gives {percent(share)} of what the learner could take; with these alone it waits "
        f"{percent(1 - share)} of its time"
        for name, share in slow.items()
    ]
