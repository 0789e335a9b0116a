"""Data sets of Hugging Face's library `datasets`: of its hub, saved by it, or made by it of a directory."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classact.data.samples import evenly
from classact.data.source import DataError
from classact.data.tables.parts import split_of
from classact.data.tables.table import Table

_PROBED = 200
_SAVED = ("state.json", "dataset_dict.json")


def open_rows(
    argument: str,
    use: str,
    split: Optional[str],
    config: Optional[str],
    revision: Optional[str],
) -> tuple["HuggingFaceTable", bool]:
    """Opens a data set; the first time, `datasets` downloads or converts it into its cache.

    It may block for as long as a download takes; the hub's time-outs are the library's
    (`HF_HUB_DOWNLOAD_TIMEOUT`), and one that cannot be reached is given up after some 20 s.

    Args:
        argument: a directory of `save_to_disk`, one of files that `datasets` knows, or a name on the hub.
        use: "train" or "eval".
        split: the split to take for both; None: "train", and one to measure on if there is one.
        config: the configuration of a data set that has several.
        revision: of a data set on the hub.

    Returns:
        The rows, and whether those of "train" and of "eval" are different ones.

    Raises:
        DataError: if the library is not installed, or finds no such data set or split.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"data source 'hf': {error}: pip install 'classact[hf]'") from None
    datasets.disable_progress_bars()
    found = _loaded(argument, split, config, revision)
    has_splits = False
    if isinstance(found, Mapping):
        wanted, has_splits = split_of(f"hf:{argument}", list(found), use, split)
        found = found[wanted]
    elif split is not None and _is_saved(argument):
        raise DataError(
            f"hf:{argument}: one data set was saved there, without splits: leave out ?split={split}"
        )
    if not hasattr(found, "features") or not hasattr(found, "__len__"):
        raise DataError(f"hf:{argument}: a {type(found).__name__}, expected a data set with a length")
    return HuggingFaceTable(f"hf:{argument}", found), has_splits


def _loaded(argument: str, split: Optional[str], config: Optional[str], revision: Optional[str]) -> Any:
    import datasets

    path = os.path.expanduser(argument)
    try:
        if _is_saved(path):
            return datasets.load_from_disk(path)
        local = os.path.exists(path)
        return datasets.load_dataset(path if local else argument, config, split=split, revision=revision)
    # Of many kinds: of the hub's client, of the network, of each reader of files.
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        hint = (
            ""
            if os.path.isdir(path) or "Unknown split" in said
            else (
                "; expected a directory that is there, or a name on the hub that can be reached "
                "(with HF_HUB_OFFLINE=1, only what was fetched before is taken)"
            )
        )
        raise DataError(f"hf:{argument}: {type(error).__name__}: {said}{hint}") from error


def _is_saved(path: str) -> bool:
    return any(os.path.isfile(os.path.join(os.path.expanduser(path), name)) for name in _SAVED)


class HuggingFaceTable(Table):
    """A `datasets.Dataset`, whose rows are memory-mapped from its cache; see `Table`.

    Args:
        where: what it is called in errors.
        dataset: the data set.
    """

    folder = ""

    def __init__(self, where: str, dataset: Any) -> None:
        import datasets

        self.where = where
        images = [name for name, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
        for name in images:
            # As bytes: `decode` reads them as it reads those of all sources.
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
        labels = {
            name: list(kind.names)
            for name, kind in dataset.features.items()
            if isinstance(kind, datasets.ClassLabel) and kind.names
        }
        self._rows = dataset.with_format("arrow")
        self._columns: dict[str, Any] = {}
        self.num_rows = len(dataset)
        schema = dataset.features.arrow_schema
        self.types = dict(zip(schema.names, schema.types, strict=True))
        self.known: Mapping[str, Sequence[str]] = {"image": images, "label": list(labels)}
        self.class_names: Mapping[str, Sequence[str]] = labels

    def column(self, name: str) -> pa.ChunkedArray:
        """See `Table`."""
        return self._only(name)[:].column(name)

    def paths(self, name: str) -> Optional[pa.ChunkedArray]:
        """See `Table`; of a data set that was made of image files."""
        kind = self.types[name]
        if not pa.types.is_struct(kind):
            return self.column(name) if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None
        names = [field.name for field in kind]
        if "path" not in names:
            return None
        column = self.column(name)
        if "bytes" in names and pc.struct_field(column, "bytes").null_count < len(column):
            return None
        return pc.struct_field(column, "path")

    def images(self, name: str, rows: Sequence[int]) -> list[Any]:
        """See `Table`."""
        return list(self._only(name)[list(rows)].column(name).to_pylist())

    def image_bytes(self, name: str) -> int:
        """See `Table`; of all columns of the files behind it."""
        del name
        return int(self._rows.data.nbytes)

    def probes(self) -> np.ndarray:
        """See `Table`."""
        return evenly(self.num_rows, _PROBED)

    def _only(self, name: str) -> Any:
        if name not in self._columns:
            self._columns[name] = self._rows.select_columns([name])
        return self._columns[name]
