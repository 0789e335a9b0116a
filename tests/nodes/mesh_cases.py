"""What the tests of many devices train, in one process or in several.

    python mesh_cases.py OUT HOSTS HOST COORDINATOR CASE…

trains cases on all devices and leaves in OUT what became of them; what one device
makes of them, with which that is compared, comes from the same functions.
"""

import dataclasses
import functools
import json
import pathlib
import sys
import threading
from typing import Any

import jax
import numpy as np

from classact.models import registry, text, transformer, two_tower
from classact.nodes import (
    batches,
    compiled_ahead,
    evaluator,
    inference_server,
    joint,
    retrieval,
    scoring,
    training,
    two_passes,
)
from classact.nodes import mesh as mesh_lib
from classact.replay import records
from classact.selection import contrastive, losses, policies

STEPS, BATCH, CLASSES, IMAGE, LENGTH, VOCABULARY = 20, 32, 10, (8, 8, 1), 6, 50
# Of an inference server; no multiple of eight.
SCORED, REQUEST = 12, 10
# Of an evaluator's data set.
EXAMPLES = 34


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, on how many parts of the parameters and of the batch."""

    task: str = "classification"
    fsdp: int = 1
    accumulation: int = 1
    whole_loss: bool = False


CASES = {
    "data_parallel": Case(),
    "contrastive": Case("contrastive"),
    "split_by_four_and_accumulated": Case(fsdp=4, accumulation=2),
    "contrastive_split_by_two": Case("contrastive", fsdp=2),
    "contrastive_in_two_passes": Case("contrastive", fsdp=2, accumulation=2, whole_loss=True),
}
# Few, since each is compiled.
ONE_HOST = (
    "data_parallel",
    "split_by_four_and_accumulated",
    "contrastive_split_by_two",
    "contrastive_in_two_passes",
)
SEVERAL_HOSTS = ("data_parallel", "contrastive")


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


@functools.cache
def make_update(case: Case, mesh: Any) -> Any:
    """The case's update, compiled once."""
    task = contrastive.Contrastive(mesh=mesh) if case.task == "contrastive" else losses.Classification()
    return training.make_update(trained(case.task), task, mesh, case.accumulation, case.whole_loss)


def train(case: Case, mesh: Any, order: Any = None) -> tuple[Any, float]:
    """Makes `STEPS` updates of this host's share of the batches.

    Args:
        case: what is trained.
        mesh: the devices; None: one.
        order: of the examples of a batch; None: as they are.

    Returns:
        The parameters and the last metrics; the share of the parameters and moments
        that the first device holds.
    """
    fields = ("image", "text") if case.task == "contrastive" else ("image", "label")
    whole = batch(0, BATCH)
    record = {name: whole[name] for name in fields}
    update = compiled_ahead.CompiledAhead(
        make_update(case, mesh),
        training.state_shapes(trained(case.task), mesh),
        {"data": compiled_ahead.batch_shapes(record, BATCH, mesh)},
        {"data": compiled_ahead.batch_shapes(record, 2 * BATCH, mesh)},
    )
    state = training.init_state(trained(case.task), 0, mesh)
    hosts, host = jax.process_count(), jax.process_index()
    join = mesh_lib.concatenator(mesh)

    def placed(seed: int) -> dict[str, jax.Array]:
        whole = batch(seed, BATCH)
        share = BATCH // hosts
        mine = {name: whole[name] if order is None else whole[name][order] for name in fields}
        return mesh_lib.place(mesh, {n: a[host * share : (host + 1) * share] for n, a in mine.items()})

    metrics = None
    for step in range(STEPS):
        sub, older = placed(step), placed(step + 1000)
        before = jax.tree.leaves_with_path(state.models)
        # At most one update ahead, as the learner.
        jax.block_until_ready(metrics)
        state, metrics = update(state, {"data": sub}, {"data": join([older, sub])})
    jax.block_until_ready(state.models)
    kept = [jax.tree_util.keystr(path) for path, array in before if not array.is_deleted()]
    assert not kept, f"not donated: {kept}"
    arrays = [array for model in state.models.values() for array in jax.tree.leaves(model)]
    held = sum(array.addressable_data(0).nbytes for array in arrays) / sum(array.nbytes for array in arrays)
    return jax.device_get((mesh_lib.first_copy(mesh, state.variables()), metrics)), held


def score(mesh: Any) -> np.ndarray:
    """What an inference server on these devices answers; a score depends on the whole request."""
    models = trained("contrastive")
    model = models["learner"].model
    scorer = scoring.make_scorer(
        policies.get("easy_reference"), contrastive.Contrastive(act="infonce"), {"reference": model}
    )
    stop = threading.Event()
    fixed = {"reference": jax.device_get(model.init(jax.random.key(0)))}
    server = inference_server.InferenceServer(scorer, fixed, None, {}, SCORED, stop, mesh=mesh)
    request = {name: array for name, array in batch(0, REQUEST).items() if name != "label"}
    values = server.score(request).values
    stop.set()
    # A thread that is in C++ when the interpreter ends would abort the process.
    server.wait()
    return values


def whole_gradients(mesh: Any, loss: str, parts: int, weight: float = 1.0) -> Any:
    """(Gradients, state, (loss, metrics)) of a batch, in two passes over `parts` micro-batches."""
    rng = np.random.default_rng(1)
    shapes = {"image": (6, 5), "text": (4, 5), "log_scale": (), "bias": ()}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    pairs = {name: rng.normal(size=(BATCH, shapes[name][0])).astype(np.float32) for name in ("image", "text")}

    def apply(variables: Any, examples: Any, *, train: bool, rng: Any = None) -> Any:
        own = variables["params"]
        outputs = {f"{name}_embedding": jax.numpy.tanh(examples[name] @ own[name]) for name in examples}
        return {**outputs, "scale": jax.numpy.exp(own["log_scale"]), "bias": own["bias"]}, variables["state"]

    model = registry.Model("pairs", lambda key: {"params": params, "state": {}}, apply)
    task = contrastive.Contrastive(loss, mesh=mesh)
    variables = {"params": params, "state": {}}
    placed, key = mesh_lib.place(mesh, pairs), jax.random.key(0)
    if parts == 1:

        def whole(params: Any) -> Any:
            outputs, _ = apply({"params": params, "state": {}}, placed, train=True)
            value = task.learn_loss(outputs, placed)
            return weight * value, (value, task.metrics(outputs, placed))

        gradients, found = jax.jit(jax.grad(whole, has_aux=True))(params)
        return gradients, {}, found
    compute = jax.jit(two_passes.differentiate, static_argnums=(0, 1, 2, 3))
    return compute(model, task, mesh, parts, variables, placed, key, weight)


def choose(mesh: Any) -> np.ndarray:
    """Which pairs a learner on these devices chooses jointly, of a number that eight do not divide."""
    rng = np.random.default_rng(0)
    records = {"id": np.arange(EXAMPLES), "score": rng.normal(size=EXAMPLES).astype(np.float32)}
    records["scored_step"] = np.zeros(EXAMPLES, np.int64)
    for role in ("online", "reference"):
        embedding = rng.normal(size=(EXAMPLES, 2, CLASSES)) / 3
        records[f"joint_{role}"] = embedding.astype(np.float16)
        records[f"joint_{role}_scale"] = np.full((EXAMPLES, 2), 5.0, np.float32)
    policy = policies.get("jest")
    found = [
        joint.Chooser(
            policy, loss, size=10, chunks=4, temperature=0.5, mesh=mesh, rng=np.random.default_rng(1)
        )
        for loss in ("infonce", "sigmoid")
    ]
    return np.stack([chooser(records).batch["id"] for chooser in found])


def check_placing(mesh: Any) -> None:
    """Sees that devices have a batch's images where they were read into, and what packed records give."""
    share = BATCH // jax.process_count()
    examples = batch(jax.process_index(), share)
    codec = records.RecordCodec(examples)
    added = {name: np.zeros(share, kind) for name, kind in records.SCORE_FIELDS}
    packed = codec.pack({**examples, **added})
    rows = codec.taken_apart(packed)
    direct, copied = (
        mesh_lib.place(mesh, batches.device_fields(codec.unpack(which))) for which in (rows, packed)
    )
    memory = range(rows.largest.ctypes.data, rows.largest.ctypes.data + rows.largest.nbytes)
    for name, array in direct.items():
        for one, other in zip(array.addressable_shards, copied[name].addressable_shards, strict=True):
            assert one.device == other.device and one.index == other.index
            np.testing.assert_array_equal(one.data, other.data)
            assert name != "image" or one.data.unsafe_buffer_pointer() in memory
        expected = np.sort(examples[name].reshape(share, -1), axis=0)
        there = np.concatenate([np.asarray(part.data) for part in array.addressable_shards])
        np.testing.assert_array_equal(np.sort(there.reshape(share, -1), axis=0), expected)


def evaluate(mesh: Any) -> dict[str, float]:
    """What evaluators measure on these devices, of a data set that no number of devices divides."""
    whole = {**batch(0, EXAMPLES), "id": np.arange(EXAMPLES)}

    def requests() -> Any:
        for start in range(0, EXAMPLES, REQUEST):
            yield {name: array[start : start + REQUEST] for name, array in whole.items()}

    # Small, since each is compiled.
    model = registry.create("haiku_mlp", num_classes=CLASSES, image_shape=IMAGE, patch_size=4)
    accuracy = evaluator.classification_accuracy(model, losses.Classification(), requests, mesh=mesh)
    towers = trained("contrastive")["learner"].model
    recalls = retrieval.retrieval(towers, requests, np.arange(EXAMPLES), REQUEST, mesh=mesh)
    return {
        **accuracy(jax.device_get(model.init(jax.random.key(0)))),
        **recalls(jax.device_get(towers.init(jax.random.key(0)))),
    }


def main(out: str, hosts: str, host: str, coordinator: str, *names: str) -> None:
    """Trains cases; see the module's docstring."""
    folder = pathlib.Path(out)
    if int(hosts) > 1:
        mesh_lib.join_hosts(coordinator, int(hosts), int(host))
        last = int(host) == int(hosts) - 1
        ask = mesh_lib.any_host(mesh_lib.make_mesh())
        assert [bool(ask(said)) for said in (False, last, False)] == [False, True, False]
    for name in names:
        values, held = train(CASES[name], mesh_lib.make_mesh(CASES[name].fsdp))
        np.savez(folder / f"{name}-{host}.npz", held, *jax.tree.leaves(values))
    check_placing(mesh_lib.make_mesh())
    if int(hosts) == 1:
        for loss in contrastive.LEARN_LOSSES:
            found = jax.tree.leaves(whole_gradients(mesh_lib.make_mesh(2), loss, 4, 0.25))
            np.savez(folder / f"{loss}.npz", *found)
    np.save(folder / f"scores-{host}.npy", score(mesh_lib.local_mesh()))
    if int(hosts) == 1:
        np.save(folder / "chosen.npy", choose(mesh_lib.local_mesh()))
        (folder / "evaluated.json").write_text(json.dumps(evaluate(mesh_lib.local_mesh())))


if __name__ == "__main__":
    main(*sys.argv[1:])
