"""What each kind of evaluator measures."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from classact.data import classes, prompts, source
from classact.experiments.config import EvaluatorConfig, ExperimentConfig
from classact.launch.assembly.parts import learning, networks, shapes, sources
from classact.launch.assembly.parts.first_lines import FirstLines, describe_source
from classact.nodes import evaluator, per_class, retrieval, tally, zero_shot
from classact.nodes import mesh as mesh_lib

# Beside an evaluator's figures, 1 where they are of data that the run trains on.
TRAINING_DATA = "on_training_data"


def make_measure(
    config: ExperimentConfig,
    own: EvaluatorConfig,
    data: shapes.DataShape,
    said: FirstLines | None = None,
    held: np.ndarray | None = None,
    on_training_data: bool = False,
    counts: tally.Tally | None = None,
    mesh: Mesh | None = None,
) -> evaluator.Measure:
    """Builds what an evaluator computes from the learner's variables.

    Args:
        config: the resolved configuration.
        own: the evaluator's kind and data.
        data: what the models are built for. "accuracy" maps labels to its classes, of
            which the evaluator's data may lack some.
        said: is told what was found of the evaluator's data, and where classes are lacking or
            only numbers can be compared; None: nobody is.
        held: see `sources.open_eval_source`.
        on_training_data: whether its data are trained on; then `TRAINING_DATA` says so
            with each of its figures.
        counts: told of each evaluation how many `images` and `texts` went through the model, and
            the `busy_seconds` that it took; None: nobody counts.
        mesh: the devices that share each batch; None: one, and none is looked for yet.

    Returns:
        A function of variables. "accuracy" gives `top1`, `worst_class_top1` and `loss`,
        "retrieval" `i2t_r1` and the other recalls, "zero_shot" `zero_shot_top1`.

    Raises:
        source.DataError: if the data cannot be opened, its images have another shape, or
            it has classes that the models do not know.
    """
    opened = sources.open_eval_source(config, own, held)
    if said is not None:
        trained_on = any(own.data == each.train_data for each in config.data_sets.values())
        for line in describe_source(opened, "measures on"):
            # What is left out of both is said once.
            if not (trained_on and line in said.lines()):
                said.say(line)
    read: list[int] = []
    measure = _of_kind(config, own, data, opened, said, read, mesh)
    if counts is not None:
        named = opened.class_names if own.kind == "zero_shot" else None
        prompted = len(named) * len(prompts.templates(own.templates)) if named else 0
        measure = _counted(measure, read, prompted, counts, 1 if mesh is None else mesh.size)
    return _marked(measure) if on_training_data else measure


def _marked(measure: evaluator.Measure) -> evaluator.Measure:
    """Says with each figure that it is of data that is trained on."""

    def marked(variables: Any) -> Mapping[str, float]:
        values = measure(variables)
        found = values if isinstance(values, per_class.Measured) else per_class.Measured(values)
        return found.adding({TRAINING_DATA: 1.0})

    return marked


def _counted(
    measure: evaluator.Measure, read: list[int], prompted: int, counts: tally.Tally, devices: int
) -> evaluator.Measure:
    """Tells what each evaluation took.

    Args:
        measure: of `_of_kind`.
        read: grows by the size of each batch that is read.
        prompted: texts that name the classes.
        counts: is told.
        devices: that share an evaluation.
    """

    def counted(variables: Any) -> Mapping[str, float]:
        began = time.monotonic()
        read.clear()
        values = measure(variables)
        # An image is embedded once, whatever the number of its captions.
        images, texts = int(values.get("images", sum(read))), int(values.get("pairs", prompted))
        busy = time.monotonic() - began
        counts.add({"devices": devices}, evaluations=1, images=images, texts=texts, busy_seconds=busy)
        return values

    return counted


def in_run(
    config: ExperimentConfig,
    name: str,
    data: Mapping[str, shapes.DataShape],
    counts: tally.Tally | None = None,
) -> evaluator.Measure:
    """Builds what one of a run's own evaluators computes.

    Args:
        config: the resolved configuration.
        name: of the evaluator; all devices of this process share its batches.
        data: shapes of all data sets of the run.
        counts: see `make_measure`.

    Raises:
        source.DataError: as `make_measure`.
    """
    own = config.evaluation.evaluators[name]
    held = [data[other].held_out for other in data if config.data_sets[other].train_data == own.data]
    trained_on = any(name in shape.measured_by for shape in data.values())
    shape, held_out = next(iter(data.values())), next(iter(held), None)
    mesh = mesh_lib.local_mesh()
    return make_measure(config, own, shape, None, held_out, trained_on, counts, mesh)


def _of_kind(
    config: ExperimentConfig,
    own: EvaluatorConfig,
    data: shapes.DataShape,
    opened: source.Source,
    said: FirstLines | None,
    read: list[int],
    mesh: Mesh | None,
) -> evaluator.Measure:
    if opened.image_shape != data.image_shape:
        raise source.DataError(
            f"{opened.name} (evaluation): images of shape {opened.image_shape}, "
            f"expected {data.image_shape} as in {data.name} (training)"
        )
    size = config.evaluation.batch_size
    if own.kind == "accuracy":
        whose = data.classes_of or data.name
        remark = classes.remark(classes.of_source(opened), data.classes, opened.name, whose)
        if remark and said is not None:
            said.say(remark)
        opened = classes.in_order_of(opened, data.classes, whose)
    model = networks.learner(config, data)
    whole = evaluator.whole_data_set(opened, size)

    def batches() -> Iterator[Mapping[str, np.ndarray]]:
        for batch in whole():
            read.append(len(batch["id"]))
            yield batch

    if own.kind == "accuracy":
        return evaluator.classification_accuracy(
            model, learning.make_task(config), batches, data.classes.names, mesh
        )
    if own.kind == "retrieval":
        assert opened.image_of is not None  # It is captioned.
        if said is not None and len(np.unique(opened.image_of)) == 1:
            said.warn(f"{opened.name}: retrieval among the captions of one image is always right")
        return retrieval.retrieval(model, _numbered(batches, opened), opened.image_of, size, mesh=mesh)
    assert opened.class_names is not None  # Checked when it was opened.
    encode = sources.make_tokenizer(config).encode
    templates = prompts.templates(own.templates)
    try:
        return zero_shot.zero_shot(model, encode, opened.class_names, templates, batches, size, mesh)
    except ValueError as error:
        raise source.DataError(f"{opened.name}: {error}") from None


def _numbered(
    batches: Callable[[], Iterator[Mapping[str, np.ndarray]]], opened: source.Source
) -> Callable[[], Iterator[Mapping[str, np.ndarray]]]:
    """Numbers the examples within the source: the ids of a part of one are those of the whole."""
    ids = opened.ids(np.arange(opened.num_examples))
    order = np.argsort(ids)

    def numbered() -> Iterator[Mapping[str, np.ndarray]]:
        for batch in batches():
            yield {**batch, "id": order[np.searchsorted(ids, batch["id"], sorter=order)]}

    return numbered
