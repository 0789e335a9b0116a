"""What a joint choice adds to a learner's update: CPU time of the similarities and of the draw.

Chooses sub-batches of half and of a fifth of a super-batch, of random embeddings of two models as
records carry them, in 16 chunks, as a learner's reading thread does; beside it the similarities
alone. CPU seconds of this process, which is one learner's without its devices.

Command:
    python benchmarks/joint_selection.py
"""

import argparse
import itertools
import time

import jax
import numpy as np

from classact.models import cost
from classact.nodes import joint, joint_fields
from classact.selection import policies
from classact.selection.joint import LOSSES, Embedded, JointScore

_ROLES = ("online", "reference")
_POLICY = policies.get("jest")


def records(examples: int, width: int) -> dict[str, np.ndarray]:
    """A super-batch of random embeddings."""
    rng = np.random.default_rng(0)
    batch = {
        "id": np.arange(examples),
        "score": rng.normal(size=examples).astype(np.float32),
        "scored_step": np.zeros(examples, np.int64),
    }
    for role in _ROLES:
        both = rng.normal(size=(examples, 2, width))
        both /= np.linalg.norm(both, axis=-1, keepdims=True)
        batch[joint_fields.PREFIX + role] = both.astype(np.float16)
        batch[joint_fields.scale_field(role)] = np.tile(np.float32([10.0, -10.0]), (examples, 1))
    return batch


def cpu_seconds(work: object, seconds: float) -> float:
    """Of a call, on average over so much CPU time, after one to compile."""
    work()  # type: ignore[operator]
    began = time.process_time()
    for number in itertools.count(1):
        work()  # type: ignore[operator]
        spent = time.process_time() - began
        if spent >= seconds:
            return spent / number
    raise AssertionError("unreachable")


def main() -> None:
    """Prints a row for each loss, B, D and b."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of each figure")
    parser.add_argument("--examples", type=int, nargs="+", default=[512, 2048], help="B")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512], help="D")
    arguments = parser.parse_args()
    print("| loss | B | D | b | CPU ms, all | CPU ms, similarities | million MACs |")
    print("|---|---|---|---|---|---|---|")
    for loss, examples, width in itertools.product(LOSSES, arguments.examples, arguments.widths):
        batch = records(examples, width)
        score = JointScore(_POLICY, loss)
        embedded = {
            role: Embedded(
                *np.moveaxis(batch[joint_fields.PREFIX + role], 1, 0), np.float32(10), np.float32(-10)
            )
            for role in _ROLES
        }
        terms = jax.jit(score.terms)
        alone = cpu_seconds(lambda: jax.block_until_ready(terms(embedded)), arguments.seconds)  # noqa: B023
        macs = cost.count_macs(score.terms, embedded)
        for size in (examples // 2, examples // 5):
            choose = joint.Chooser(_POLICY, loss, size=size, chunks=16, temperature=1.0)
            whole = cpu_seconds(lambda: choose(batch), arguments.seconds)  # noqa: B023
            row = (
                loss,
                examples,
                width,
                size,
                f"{whole * 1e3:.1f}",
                f"{alone * 1e3:.1f}",
                f"{macs / 1e6:,.0f}",
            )
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
