"""`classact plan`: what a configuration would cost and need, before it is trained."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from classact.launch.commands import arguments, terminal

if TYPE_CHECKING:
    from classact.experiments.config import ExperimentConfig
    from classact.experiments.planning.plan_text import Plan

USAGE = """\
  plan      --config=FILE.py [--config.FIELD=VALUE …] [--step-seconds=T] [--measure] [--json]
            says what a run would cost and need: MACs of each model, how many updates selection must
            save to pay, machines. Trains nothing, writes nothing
"""
MORE_HELP = """a reference that is not trained yet is counted as if it were trained as long as the uniform
run; docs/scaling.md explains the sums
"""
# The paper's smallest actors (Figure 4), rounded down: its others save more.
_SPEEDUP, _SPEEDUP_SOURCE = 0.16, "what the paper's smallest scorers saved; --speedup says another"
_IMAGE = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)x([1-9][0-9]*)")
_POSITIVE = 1e-9


@dataclasses.dataclass(frozen=True)
class Options:
    """What the flags say; 0 or None is not said."""

    step_seconds: float = 0.0
    uniform_steps: int = 0
    reference_steps: int = 0
    reference_runs: int = 3
    speedup: float | None = None
    tflops: float = 110.0
    image: str = ""
    classes: int = 0
    measure: bool = False
    measure_seconds: float = 15.0


def main(argv: Sequence[str]) -> int:
    """Prints a plan; see `cli.main`."""
    from classact.experiments.planning import plan_text
    from classact.launch.commands import config_file

    names = _define_flags()
    as_json = flags.DEFINE_bool("json", False, "Print JSON in place of text.")
    config = config_file.parse(argv)
    options = Options(**{name: holder.value for name, holder in names.items()})
    found = make(config.to_dict(), options)
    if found is None:
        print("policy uniform: nothing is scored, so there is nothing to plan; name a policy that selects")
    else:
        print(plan_text.to_json(found) if as_json.value else plan_text.format_plan(found))
    return 0


def _define_flags() -> dict[str, flags.FlagHolder[Any]]:
    """The flags, by the name of their option."""
    number, count = flags.DEFINE_float, flags.DEFINE_integer
    return {
        "step_seconds": number("step-seconds", 0.0, "Seconds of the learner's update.", 0.0),
        "uniform_steps": count("uniform-steps", 0, "Updates of the uniform run; 0: as many as `steps`.", 0),
        "reference_steps": count(
            "reference-steps", 0, "Updates of a reference that is not trained yet; 0: as the uniform run.", 0
        ),
        "reference_runs": count("reference-runs", 3, "Among how many runs the reference is shared.", 1),
        "speedup": number("speedup", None, "Share of the uniform run's updates that you expect to save."),
        "tflops": number("tflops", 110.0, "TFLOP/s that an accelerator of yours reaches.", _POSITIVE),
        "image": flags.DEFINE_string("image", "", "HEIGHTxWIDTHxCHANNELS of data that are not here."),
        "classes": count("classes", 0, "Number of classes of such data.", 0),
        "measure": flags.DEFINE_bool("measure", False, "Measure each part's speed on this machine."),
        "measure_seconds": number(
            "measure-seconds", 15.0, "How long to measure each part, after compiling.", 0.1, 60.0
        ),
    }


def make(fields: dict[str, Any], options: Options) -> "Plan | None":
    """Makes a plan; None of a configuration that scores nothing.

    With `options.measure` it blocks for some minutes.

    Args:
        fields: of the configuration, see `experiments/base.py`.
        options: what the flags say.

    Raises:
        arguments.UsageError: for a field or an option that cannot be.
    """
    from classact.data.source import DataError
    from classact.experiments import resolution
    from classact.experiments.config import ConfigError
    from classact.experiments.curves import RunError
    from classact.launch.commands import measuring

    _check(options)
    _name_references(fields)
    try:
        config = resolution.resolve(fields)
        return _made(config, options)
    except (ConfigError, DataError, RunError, measuring.MeasureError) as error:
        raise arguments.UsageError(str(error)) from None


def _check(options: Options) -> None:
    for name in ("step_seconds", "tflops"):
        if not math.isfinite(getattr(options, name)):
            flag = name.replace("_", "-")
            raise arguments.UsageError(f"--{flag}={getattr(options, name)}: expected a finite number")
    if options.speedup is not None and not -1 < options.speedup < 1:
        raise arguments.UsageError(f"--speedup={options.speedup}: expected a share of the updates below 1")
    if options.image and not _IMAGE.fullmatch(options.image):
        raise arguments.UsageError(f"--image={options.image}: expected such as 224x224x3")
    if options.image and options.measure:
        raise arguments.UsageError("--image: not with --measure, which reads the data")
    if options.classes and not options.image:
        raise arguments.UsageError("--classes: only with --image; else the data say it")


def _name_references(fields: dict[str, Any]) -> None:
    """Puts a name where a policy's reference is not said: it need not be trained yet."""
    from classact.launch.assembly.parts import planned
    from classact.selection import policies

    for own in (fields, *fields.get("data_sets", {}).values()):
        try:
            fixed = policies.get(policies.importable_name(own["policy"])).reference == "fixed"
        except (ValueError, KeyError, TypeError):
            # Resolving it says what is wrong.
            continue
        if fixed and not own["reference"]["checkpoint"]:
            own["reference"]["checkpoint"] = planned.UNTRAINED


def _made(config: "ExperimentConfig", options: Options) -> "Plan | None":
    from classact.experiments.planning import needs, plan, plan_text
    from classact.launch.assembly.parts import planned
    from classact.launch.assembly.parts.first_lines import FirstLines
    from classact.launch.commands import measuring
    from classact.selection import policies

    if not any(policies.get(own.policy).scores for own in config.data_sets.values()):
        return None
    if options.image:
        height, width, channels = (int(size) for size in options.image.split("x"))
        data = planned.stated_shapes(config, (height, width, channels), options.classes or 1000)
    else:
        said = FirstLines()
        data = planned.opened_shapes(config, said)
        terminal.say_first(said.lines())
    try:
        setting = planned.make_setting(config, data, options.uniform_steps, options.reference_steps)
    except ValueError as error:
        raise arguments.UsageError(str(error)) from None
    steps = options.reference_steps or setting.uniform_steps
    remarks = [
        f"the reference of {name} is not trained yet; counted are {steps:,} updates of {own.batch_size:,} "
        "(--reference-steps)"
        for name, own in config.data_sets.items()
        if policies.get(own.policy).reference == "fixed"
        and own.reference.pretraining_macs < 0
        and not planned.is_trained(own)
    ]
    rates = needs.Rates(accelerator_flops=options.tflops * 1e12)
    measured: Mapping[str, float] = {}
    step_seconds, step_source = options.step_seconds, "--step-seconds"
    if options.measure:
        measured = measuring.measure(config, options.measure_seconds)
        rates = dataclasses.replace(
            rates, scorings=measured["scorings"], reads=measured["reads"], inserts=measured["inserts"]
        )
        if not step_seconds:
            step_seconds, step_source = measured["step_seconds"], "measured on this machine"
    if not step_seconds:
        step_seconds = 1.0
        step_source = "not known: say --step-seconds or --measure; all rates are in proportion to 1 / this"
    speedup = _SPEEDUP if options.speedup is None else options.speedup
    others = planned.alternatives(config, data, setting)
    return plan_text.Plan(
        setting,
        plan.countings(setting, options.reference_runs),
        speedup,
        _SPEEDUP_SOURCE if options.speedup is None else "--speedup",
        plan.suggestions(setting, others, speedup),
        plan.least(setting, others),
        needs.needs(setting, step_seconds, rates),
        step_source,
        rates,
        measured,
        remarks,
    )
