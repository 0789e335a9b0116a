"""A run's models as checkpoints, as those of other tools are: `weights` knows no run."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from classact.launch.assembly.parts import class_meaning
from classact.models import execution, text_options, transformer
from classact.models.variant import Variant
from classact.nodes import checkpoints
from classact.weights import opening
from classact.weights.architecture import (
    Architecture,
    Checkpoint,
    ImageTower,
    TextTower,
    Tokenizer,
    input_of,
)
from classact.weights.errors import WeightsError
from classact.weights.files.opened import read_json

MODELS = ("learner", "online", "reference")


def open_checkpoint(spec: str) -> Checkpoint:
    """Reads a checkpoint by its spec: one of `weights.opening`, or a run directory, whose learner it is.

    Raises:
        WeightsError: if it is missing or damaged, or a model that the towers here are not.
    """
    return opening.read(spec) if opening.is_outside(spec) else of_run(pathlib.Path(spec), "learner")


def of_run(run: pathlib.Path, name: str) -> Checkpoint:
    """Reads a model of a run's newest checkpoint.

    Sizes are read off the arrays, so this holds for every run whose models are ViTs.

    Args:
        run: its directory.
        name: one of `MODELS`.

    Raises:
        WeightsError: if it is no run, has no such model, or one that is no vision transformer.
    """
    config = read_json(run / "config.json")
    label = f"{name} of {run}"
    try:
        model = _named(config, name, label)
        data = next(iter(config["started"]["data"].values()))
        shape = tuple(int(side) for side in data["image_shape"])
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        raise WeightsError(f"{run / 'config.json'}: it is no run's, or of an older version") from None
    if not str(model.get("model")).startswith("vit"):
        raise WeightsError(f"{label}: it is a {model.get('model')}: only models vit_… can be written or read")
    variables = _variables(run, name, config, label)
    params = variables["params"]
    paired = config.get("task") == "contrastive"
    try:
        image = _image(params["image"] if paired else params, model, shape)
        text, bound = (
            _text(params["text"], model, config["contrastive"], data) if paired else (None, math.inf)
        )
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{label}: its arrays are not those of {model.get('model')}: {error}") from None
    architecture = Architecture(image, text, bound) if text else Architecture(image)
    tokenizer = None
    if text is not None:
        spec = str(config["contrastive"].get("tokenizer"))
        tokenizer = Tokenizer("clip" if spec == "clip" else "classact", spec, text.end_id)
    classes = None if paired else class_meaning.recorded(run)
    names = classes.names if classes else None
    return Checkpoint(
        label, architecture, input_of(architecture, crop=0.0, tokenizer=tokenizer), variables, names
    )


def _named(config: Mapping[str, Any], name: str, label: str) -> Mapping[str, Any]:
    """The fields of a model: the reference's are the scorer's where it has none of its own."""
    if name == "learner":
        return dict(config["learner"])
    scorer = dict(config["scorer"])
    own = config.get("reference") if name == "reference" else None
    if isinstance(own, Mapping) and own.get("model"):
        scorer |= {
            field: own[field]
            for field in ("model", "text_model", "options", "text_options")
            if own.get(field)
        }
    return scorer


def _variables(run: pathlib.Path, name: str, config: Mapping[str, Any], label: str) -> dict[str, Any]:
    directory = run / "checkpoints"
    step = checkpoints.latest_step(directory)
    if step is None:
        raise WeightsError(f"{label}: the run has no checkpoint yet")
    if not (directory / str(step) / name).exists():
        reference = config.get("reference")
        fixed = reference.get("checkpoint") if isinstance(reference, Mapping) else None
        hint = f": it is fixed, of the run {fixed}" if name == "reference" and fixed else ""
        raise WeightsError(f"{label}: the run trains no such model{hint}")
    try:
        return checkpoints.load_model(directory, name)
    except checkpoints.CheckpointError as error:
        raise WeightsError(f"{label}: {error}") from None


def _image(params: Mapping[str, Any], model: Mapping[str, Any], shape: tuple[int, ...]) -> ImageTower:
    options = dict(model.get("options") or {})
    for setting in execution.OPTIONS:
        options.pop(setting, None)
    pool = options.pop("pool", "cls")
    sized = {name: options.pop(name) for name in ("width", "depth", "mlp", "heads") if name in options}
    variant = Variant(**options)
    named = transformer.SIZES.get(str(model["model"]).removeprefix("vit_"))
    size = Variant(**sized).size(named)
    kernel = params["patch_embedding"]["kernel"]
    height, width, channels = shape
    # A model may look at images of another size than the data has.
    height, width = (model["image_size"],) * 2 if model.get("image_size") else (height, width)
    own_channels = len(variant.mean) or channels
    patch = round((kernel.shape[0] / own_channels) ** 0.5)
    if patch * patch * own_channels != kernel.shape[0]:
        raise ValueError(f"patches of {kernel.shape[0]} numbers, of {own_channels} channels")
    outputs = params["head"]["kernel"].shape[1] if variant.head else size.width
    tower = ImageTower(size, patch, (height, width), outputs, pool, own_channels, variant)
    if variant.positions != "learned":
        return tower
    count = params["positions"].shape[1] - int(tower.class_token and variant.class_position)
    # Else the fields say less than the arrays.
    if height % patch or width % patch or tower.grid[0] * tower.grid[1] != count:
        side = round(count**0.5)
        if side * side != count:
            raise ValueError(f"{count} positions, of images of {height}×{width} pixels")
        tower = dataclasses.replace(tower, image_size=(side * patch, side * patch))
    return tower


def _text(
    params: Mapping[str, Any], model: Mapping[str, Any], own: Mapping[str, Any], data: Mapping[str, Any]
) -> tuple[TextTower, float]:
    """The text tower, and the bound of the similarities' factor."""
    vocabulary, _ = params["tokens"]["embedding"].shape
    length, _ = params["positions"].shape
    name = str(model["text_model"])
    options = text_options.from_options(name, model.get("text_options") or {})
    tower = TextTower(
        text_options.size(name, options),
        vocabulary,
        length,
        int(data["end_id"]) if options.end_id < 0 else options.end_id,
        bool(own["causal"]),
        options.pool,
        options.projection_bias,
        options.style,
    )
    return tower, options.scale_bound
