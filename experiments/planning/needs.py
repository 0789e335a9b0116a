"""What machines a setting needs so that its learner never waits: the sums of `docs/scaling.md`.

From the time that an update takes follow the rates of everything else, and from measured
costs processors, accelerators, hosts, network and memory.
"""

import dataclasses
import math
from typing import Optional

from classact.experiments import ledger
from classact.experiments.planning.plan import DataSetPlan, Setting

_FLOPS = 2  # Of a MAC.
_BYTES = 4  # Of a parameter, in float32.
# CPU seconds per insert, by the bytes of a record: of writers, servers and the learner's readers
# (BUILD_NOTES.md, "Many machines and devices": the larger of one shard and of four; readers by
# `benchmarks/reading.py`, for half a sample).
_INSERT_SECONDS = {
    "writer": ((3_072, 17e-6), (150_528, 125e-6)),
    "server": ((3_072, 24e-6), (150_528, 127e-6)),
    "reader": ((3_072, 8e-6), (150_528, 31e-6)),
}


@dataclasses.dataclass(frozen=True)
class Rates:
    """What parts do, as stated or measured; the defaults are those of `docs/scaling.md`.

    Attributes:
        accelerator_flops: FLOP/s that an accelerator reaches.
        accelerators_per_host: of the learner.
        network_bytes: bytes/s that a host moves in each direction: 60 % of 100 Gbit/s.
        decode_seconds: CPU seconds to read and decode an image, least and most: as is usual for JPEG.
        shard_inserts: inserts/s that one replay server took, of records of 3 KB.
        inserts_per_question: inserts for which a run loop asks once for the race's clock.
        question_seconds: CPU seconds of such a question, both sides.
        parameter_seconds: CPU seconds to give out a byte of parameters.
        scorings: examples/s of one inference server; None: as its MACs and `accelerator_flops` allow.
        reads: examples/s that one thread reads and decodes; None: by `decode_seconds`.
        inserts: inserts/s of one shard with records of this size; None: by `shard_inserts`.
    """

    accelerator_flops: float = 110e12
    accelerators_per_host: int = 8
    network_bytes: float = 0.6 * 100e9 / 8
    decode_seconds: tuple[float, float] = (1e-3, 2e-3)
    shard_inserts: float = 42_550.0
    inserts_per_question: int = 24
    question_seconds: float = 1e-4
    parameter_seconds: float = 0.5e-9
    scorings: Optional[float] = None
    reads: Optional[float] = None
    inserts: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Needs:
    """What it takes, of all data sets together. Rates are per second, sizes in bytes.

    Attributes:
        step_seconds: of an update.
        update_flops: of an update, of all models that it trains.
        trained, scored: examples.
        replay_in, replay_out: bytes that come into the replay and leave it.
        learner_accelerators: that do the updates in this time.
        learner_hosts: of them.
        scoring_flops: to score one example.
        servers: inference servers, each with an accelerator.
        server_out: bytes that leave each of them.
        run_loop_cores: for writing.
        decode_cores: for reading and decoding, least and most.
        replay_cores: of the replay servers.
        replay_hosts: for their network.
        replay_bytes: of memory, for all tables.
        shards: replay servers for the tables' sake.
        shards_spread: as many that each host has several, and one that is late holds little up.
        reader_cores: of the learner, for reading.
        learner_decode_cores: of the learner, for decoding what has come without pixels, least and most.
        host_in: bytes that come into each of the learner's hosts.
        questions: for the tables' clocks.
        question_cores: for them.
        parameter_bytes: of the models that a server follows.
        parameters_out: bytes of parameters that leave the learner's first host.
        parameter_cores: for them.
    """

    step_seconds: float
    update_flops: float
    trained: float
    scored: float
    replay_in: float
    replay_out: float
    learner_accelerators: float
    learner_hosts: int
    scoring_flops: float
    servers: int
    server_out: float
    run_loop_cores: float
    decode_cores: tuple[float, float]
    replay_cores: float
    replay_hosts: int
    replay_bytes: float
    shards: int
    shards_spread: int
    reader_cores: float
    learner_decode_cores: tuple[float, float]
    host_in: float
    questions: float
    question_cores: float
    parameter_bytes: float
    parameters_out: float
    parameter_cores: float


def insert_seconds(part: str, record_bytes: float) -> float:
    """CPU seconds of an insert, along the line through what was measured for 3 KB and 150 KB.

    Args:
        part: "writer", "server" or "reader" (which reads half as many as are inserted).
        record_bytes: of a record.
    """
    (small, least), (large, most) = _INSERT_SECONDS[part]
    return least + (most - least) * (record_bytes - small) / (large - small)


def needs(setting: Setting, step_seconds: float, rates: Rates | None = None) -> Needs:
    """What a setting takes if an update is to take so long.

    Args:
        setting: what is planned; it scores.
        step_seconds: of an update; all rates are in proportion to its inverse.
        rates: what the parts do; None: the defaults.

    Raises:
        ValueError: if `step_seconds` is not positive.
    """
    if not step_seconds > 0:
        raise ValueError(f"step_seconds={step_seconds}: expected more than 0")
    rates = rates or Rates()
    parts = setting.data_sets
    trained, read = (
        sum(sizes) / step_seconds
        for sizes in ((item.batch_size for item in parts), (item.super_batch_size for item in parts))
    )
    scored = setting.scored / step_seconds
    scoring = sum(_scoring_flops(setting, item) * item.super_batch_size for item in parts) / setting.scored
    replay_in = sum(item.super_batch_size * item.record_bytes for item in parts) / step_seconds
    replay_out = sum(item.taken_out * item.record_bytes for item in parts) / step_seconds
    servers = _servers(scored, scoring, rates)
    accelerators = _update_flops(setting) / step_seconds / rates.accelerator_flops
    learner_hosts = _ceil(accelerators / rates.accelerators_per_host)
    replay_hosts = _ceil(max(replay_in, replay_out) / rates.network_bytes)
    shards = _ceil(read / (rates.inserts or rates.shard_inserts))
    followed = _followed_bytes(setting)

    def cores(part: str) -> float:
        # Writers and readers handle files with the zeros behind them.
        sizes = [(part != "server" and item.packed_bytes) or item.record_bytes for item in parts]
        seconds = (insert_seconds(part, size) for size in sizes)
        return sum(i.super_batch_size * each for i, each in zip(parts, seconds, strict=True)) / step_seconds

    again = sum(item.opened for item in parts if item.decodes_again) / step_seconds
    decode = (1 / rates.reads, 1 / rates.reads) if rates.reads else rates.decode_seconds
    return Needs(
        step_seconds=step_seconds,
        update_flops=_update_flops(setting),
        trained=trained,
        scored=scored,
        replay_in=replay_in,
        replay_out=replay_out,
        learner_accelerators=accelerators,
        learner_hosts=learner_hosts,
        scoring_flops=scoring,
        servers=servers,
        server_out=sum(
            i.super_batch_size * (i.example_bytes or i.record_bytes) for i in parts if i.policy.scores
        )
        / step_seconds
        / servers,
        run_loop_cores=cores("writer"),
        decode_cores=(read * decode[0], read * decode[1]),
        replay_cores=cores("server"),
        replay_hosts=replay_hosts,
        replay_bytes=sum(item.capacity * item.record_bytes for item in parts),
        shards=shards,
        shards_spread=max(shards, 4 * replay_hosts) if replay_hosts > 1 else shards,
        reader_cores=cores("reader"),
        learner_decode_cores=(again * decode[0], again * decode[1]),
        host_in=replay_out / learner_hosts,
        questions=read / rates.inserts_per_question,
        question_cores=read / rates.inserts_per_question * rates.question_seconds,
        parameter_bytes=followed,
        parameters_out=followed * servers / step_seconds,
        parameter_cores=followed * servers / step_seconds * rates.parameter_seconds,
    )


def share_of_learner(setting: Setting, step_seconds: float, rates: Rates) -> dict[str, float]:
    """How much of the learner's appetite each part meets, as the setting has them; below 1 it waits.

    Returns:
        By part ("scoring", "reading", "replay"), of the parts whose rates are stated or measured.
    """
    parts = [item for item in setting.data_sets if item.policy.scores]
    found = {}
    for name, rate, number in (
        ("scoring", rates.scorings, lambda item: item.servers),
        ("reading", rates.reads, lambda item: item.run_loops),
        ("replay", rates.inserts, lambda item: item.shards),
    ):
        if rate:
            # Of several data sets the slowest holds up the update.
            found[name] = min(number(item) * rate * step_seconds / item.super_batch_size for item in parts)
    return found


def _update_flops(setting: Setting) -> float:
    scorer = setting.scorer.update_macs if setting.scorer else 0.0
    macs = 0.0
    for item in setting.data_sets:
        macs += setting.learner.update_macs * item.batch_size + item.joint_macs
        macs += scorer * item.batch_size if item.policy.online == "proxy" else 0.0
        reference = setting.reference_of(item) if item.policy.reference == "trained" else None
        macs += reference.update_macs * item.reference_super_batch if reference else 0.0
    return _FLOPS * macs


def _scoring_flops(setting: Setting, item: DataSetPlan) -> float:
    reference, scorer = setting.reference_of(item), setting.scorer
    f_ref, f_online = (network.forward_macs if network else 0.0 for network in (reference, scorer))
    return _FLOPS * ledger.acting_cost(item.policy, setting.learner.forward_macs, f_ref, f_online=f_online)


def _servers(scored: float, scoring_flops: float, rates: Rates) -> int:
    if rates.scorings:
        return _ceil(scored / rates.scorings)
    return _ceil(scored * scoring_flops / rates.accelerator_flops)


def _followed_bytes(setting: Setting) -> float:
    """Bytes of the models that an inference server takes after an update; of several data sets the most."""

    def followed(item: DataSetPlan) -> int:
        models = {
            "learner": setting.learner, "online": setting.scorer, "reference": setting.reference_of(item),
        }  # fmt: skip
        found = (models[name] for name in item.policy.published_models)
        return sum(network.parameters for network in found if network is not None)

    return _BYTES * max(map(followed, setting.data_sets))


def _ceil(number: float) -> int:
    """At least 1; a rounding above a whole number is none."""
    return max(1, math.ceil(number * (1 - 1e-9)))
