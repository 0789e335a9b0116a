"""What the tests of many devices train, in one process or in several.

    python -m tests.nodes.mesh_cases OUT HOSTS HOST COORDINATOR

trains every case on all devices and leaves its parameters in OUT; those of one
device, which they are compared with, come from the same functions.
"""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from classact.models import registry, text, transformer, two_tower
from classact.nodes import mesh as mesh_lib
from classact.nodes import training
from classact.selection import contrastive, losses

STEPS, BATCH, CLASSES, IMAGE, LENGTH, VOCABULARY = 20, 32, 10, (8, 8, 1), 6, 50
SUPER_BATCH = 2 * BATCH


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, on how many parts of the parameters and of the batch."""

    task: str = "classification"
    fsdp: int = 1
    accumulation: int = 1


# Few, since each is compiled.
CASES = {
    "data_parallel": Case(),
    "split_by_four_and_accumulated": Case(fsdp=4, accumulation=2),
    "contrastive_split_by_two": Case("contrastive", fsdp=2),
}


def trained(task: str) -> dict[str, training.TrainedModel]:
    """The learner, and for classification the reference of Algorithm 2."""
    image = registry.create("vit_mu_1_1", num_classes=CLASSES, image_shape=IMAGE, patch_size=4)
    optimizer = training.OptimizerConfig(1e-3, steps=100, warmup_steps=0, clip_norm=1.0)
    if task == "contrastive":
        texts = text.TextTransformer(transformer.SIZES["mu_1_1"], VOCABULARY, LENGTH, 1, CLASSES)
        return {"learner": training.TrainedModel(two_tower.build(image, texts), optimizer, {"data": 1.0})}
    return {
        "learner": training.TrainedModel(image, optimizer, {"data": 1.0}),
        "reference": training.TrainedModel(image, optimizer, {"data": 1.0}, on_super_batch=True),
    }


def batch(seed: int, size: int) -> dict[str, np.ndarray]:
    """Random examples with something to learn: the label shows in the brightness."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, size).astype(np.int32)
    image = rng.integers(0, 100, (size, *IMAGE)) + 15 * label[:, None, None, None]
    tokens = rng.integers(2, VOCABULARY, (size, LENGTH)).astype(np.int32)
    tokens[:, -1] = 1
    return {"image": image.astype(np.uint8), "label": label, "text": tokens}


def train(case: Case, mesh: Any, order: Any = None) -> dict[str, Any]:
    """The parameters after `STEPS` updates of this host's share of the batches, and the last metrics.

    Args:
        case: what is trained.
        mesh: the devices; None: one.
        order: of the examples of a batch; None: as they are.
    """
    models = trained(case.task)
    fields = ("image", "text") if case.task == "contrastive" else ("image", "label")
    task = contrastive.Contrastive(mesh=mesh) if case.task == "contrastive" else losses.Classification()
    update = training.make_update(models, task, mesh, case.accumulation)
    state = training.init_state(models, 0, mesh)
    hosts, host = jax.process_count(), jax.process_index()
    join = mesh_lib.concatenator(mesh)

    def placed(seed: int) -> dict[str, jax.Array]:
        whole = batch(seed, BATCH)
        share = BATCH // hosts
        mine = {name: whole[name] if order is None else whole[name][order] for name in fields}
        return mesh_lib.place(mesh, {n: a[host * share : (host + 1) * share] for n, a in mine.items()})

    for step in range(STEPS):
        sub, older = placed(step), placed(step + 1000)
        state, metrics = update(state, {"data": sub}, {"data": join([older, sub])})
    return {
        "params": jax.device_get(mesh_lib.first_copy(mesh, state.variables())),
        "metrics": jax.device_get(metrics),
        "state": state,
    }


def main(out: str, hosts: str, host: str, coordinator: str) -> None:
    """Trains every case; see the module's docstring."""
    if int(hosts) > 1:
        mesh_lib.join_hosts(coordinator, int(hosts), int(host))
    for name, case in CASES.items():
        found = train(case, mesh_lib.make_mesh(case.fsdp))
        leaves = jax.tree.leaves((found["params"], found["metrics"]))
        np.savez(pathlib.Path(out) / f"{name}-{host}.npz", *leaves)


if __name__ == "__main__":
    main(*sys.argv[1:])
