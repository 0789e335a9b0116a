"""Opens a source by its spec: what `--config.train_data` and `--config.eval_data` take.

| spec | what it holds |
|---|---|
| `icons` | the embedded default: 32×32 colour icons, the class is the icon's name |
| `fashion_mnist`, `fashion_mnist:DIR` | Fashion-MNIST from its IDX files |
| `digits` | scikit-learn's 8×8 digits |
| `npz:PATH`, `npz:PATH?classes=K` | arrays `image` and `label` of one file |
| `folder:PATH`, `folder:PATH?size=64&channels=1` | PNG and JPEG files, one directory a class |

Image–text pairs:

| spec | what it holds |
|---|---|
| `icon_pairs` | the embedded icons, the caption is the icon's full name |
| `icon_pairs?subset=clean` | of each name that many sets share one icon a set, by the bare name |
| `tar:PATTERN`, `tar:PATTERN?size=64&channels=1` | tar shards of `.png`/`.jpg` and `.txt` members |
| `captioned_folder:PATH` with the same options | PNG and JPEG files with a `.txt` file beside each |

`builtin` says more about each. `my_sources:open_squares`, `my_sources:open_squares:ARGUMENT`
and either with options is a function of a user's own, in a module that Python can import;
`registry` says how, and `docs/extending.md` has an example.
"""

# Importing it registers the names.
import classact.data.builtin
import classact.data.captioned_files
import classact.data.embedded_icons
import classact.data.folder
import classact.data.icon_pairs
import classact.data.tar_shards  # noqa: F401
from classact import user_code
from classact.data.checked import checked
from classact.data.registry import (
    find_opener,
    importable_spec,
    is_users,
    register_source,
    short_name,
    source_names,
)
from classact.data.source import DataError, Source

__all__ = [
    "SPLITS", "check_same_task", "importable_spec", "open_source", "register_source", "short_name",
    "source_names",
]  # fmt: skip

SPLITS = ("train", "eval")


def open_source(spec: str, split: str) -> Source:
    """Opens a source.

    Args:
        spec: see the module's docstring.
        split: "train" or "eval". A source without a split of its own (`npz`,
            `folder`, `tar`, `captioned_folder`) is the whole of it for both.

    Returns:
        The source; its name is the spec.

    Raises:
        DataError: for an unknown name or option (with the nearest ones), or if
            the data is missing or damaged, or a user's function fails or opens
            something that is no source.
        ValueError: for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}, expected one of {SPLITS}")
    opener, argument, options = find_opener(spec)
    with user_code.reported_as(DataError, f"data source {spec!r}"):
        source = opener(argument, split, **options)
        if is_users(spec):
            source = checked(source, spec)
    source.name = spec
    return source


def check_same_task(train: Source, evaluation: Source) -> None:
    """Checks that what is learned on one source can be measured on another.

    Raises:
        DataError: if images have another shape, or labels another meaning. What is
            learned from captions can be measured on any labels and on captions.
    """
    both = f"{train.name} (training) and {evaluation.name} (evaluation)"
    if train.image_shape != evaluation.image_shape:
        raise DataError(
            f"{both}: images of shape {train.image_shape} and {evaluation.image_shape}, must be the same"
        )
    if train.captioned:
        return
    if not evaluation.num_classes:
        raise DataError(f"{both}: {evaluation.name} has no labels")
    if train.class_names and evaluation.class_names and train.class_names != evaluation.class_names:
        different = sorted(set(train.class_names) ^ set(evaluation.class_names))
        raise DataError(f"{both}: classes differ: {', '.join(different[:5]) or 'another order'}")
    if evaluation.num_classes > train.num_classes:
        raise DataError(
            f"{both}: labels up to {evaluation.num_classes - 1}, expected at most {train.num_classes - 1}"
        )
