"""Opens a source by its spec: what `--config.train_data` and `--config.eval_data` take.

| spec | what it holds |
|---|---|
| `icons` | the embedded default: 32×32 colour icons, the class is the icon's name |
| `fashion_mnist`, `fashion_mnist:DIR` | Fashion-MNIST from its IDX files |
| `digits` | scikit-learn's 8×8 digits |
| `npz:PATH`, `npz:PATH?classes=K` | arrays `image` and `label` of one file |
| `folder:PATH`, `folder:PATH?size=64&channels=1` | image files, one directory a class |

Image–text pairs:

| spec | what it holds |
|---|---|
| `icon_pairs` | the embedded icons, the caption is the icon's full name |
| `icon_pairs?subset=clean` | of each name that many sets share one icon a set, by the bare name |
| `tar:PATTERN`, `tar:PATTERN?size=64&channels=1` | tar shards, of captions or of labels: `tar_shards` |
| `captioned_folder:PATH` with the same options | image files with a `.txt` file beside each |
| either with `?captions=lines` | each line of a `.txt` is a caption of its image |

Tables and objects, with labels or captions; `tables.openers` says what each takes:

| spec | what it holds |
|---|---|
| `parquet:PATTERN` | parquet files with images or their paths |
| `csv:PATTERN`, `tsv:PATTERN` | paths of images, by line |
| `hf:NAME_OR_PATH`, `hf:NAME_OR_PATH?split=train` | a data set of Hugging Face's library `datasets` |
| `python:module:function` | an object with a length and items, such as PyTorch's map-style data sets |
| `grain:module:function` | a Grain `MapDataset` |

Records of `tf.train.Example` or msgpack, with labels or captions; `records.openers` says what each takes:

| spec | what it holds |
|---|---|
| `tfrecord:PATTERN`, `arrayrecord:PATTERN` | shards with an image in each record |
| `tfds:NAME`, `tfds:NAME:CONFIG`, `tfds:DIR` | what TensorFlow Datasets has prepared, of either |

`builtin` says more about each. `my_sources:open_squares`, `my_sources:open_squares:ARGUMENT`
and either with options is a function of a user's own, in a module that Python can import;
`registry` says how, and `docs/extending.md` has an example.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Optional

# Importing it registers the names.
import classact.data.builtin
import classact.data.captioned_files
import classact.data.embedded_icons
import classact.data.folder
import classact.data.icon_pairs
import classact.data.records.openers
import classact.data.tables.openers
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
    "SPLITS", "importable_spec", "open_source", "opened_once", "register_source", "short_name",
    "source_names",
]  # fmt: skip

SPLITS = ("train", "eval")
_OPENED: contextvars.ContextVar[Optional[dict[tuple[str, str], Source]]] = contextvars.ContextVar(
    "opened", default=None
)


def open_source(spec: str, split: str) -> Source:
    """Opens a source.

    Args:
        spec: see the module's docstring.
        split: "train" or "eval". A source without a split of its own (`npz`,
            `folder`, `tar`, `captioned_folder`) is the whole of it for both, and says so
            in `Source.has_splits`.

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
    opened = _OPENED.get()
    if opened is not None and (spec, split) in opened:
        return opened[spec, split]
    opener, argument, options = find_opener(spec)
    with user_code.reported_as(DataError, f"data source {spec!r}"):
        source = opener(argument, split, **options)
        if is_users(spec):
            source = checked(source, spec)
    source.name = spec
    if opened is not None:
        opened |= {(spec, each): source for each in (SPLITS if not source.has_splits else (split,))}
    return source


@contextlib.contextmanager
def opened_once() -> Iterator[None]:
    """Within it `open_source` opens each source once; for one thread that reads them in turn.

    Listing a large folder and looking for copies in it take a part of a second each.
    """
    token = _OPENED.set({})
    try:
        yield
    finally:
        _OPENED.reset(token)
