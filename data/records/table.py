"""Records as a table: a row a record, a column a field."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import pyarrow as pa

from classact.data.class_names import GivenClasses
from classact.data.damage import accepted_damage, too_many_damaged
from classact.data.left_out import LeftOut
from classact.data.records.examples import fields, values
from classact.data.records.index import index_of
from classact.data.records.shards import Shards
from classact.data.samples import evenly
from classact.data.shown import shown
from classact.data.source import DataError
from classact.data.tables.columns import choose
from classact.data.tables.options import TableOptions
from classact.data.tables.parts import images_folder
from classact.data.tables.table import Table

# So many records tell which fields there are.
_LOOKED_AT = 16
_PROBED = 200


class Described(NamedTuple):
    """What a data set says of itself, beside its records.

    Attributes:
        known: see `Table.known`.
        class_names: of fields, see `Table.class_names`.
        classes: of fields whose classes have no names, how many there are.
        lengths: of each file, how many records it has; None: not said.
    """

    known: Mapping[str, Sequence[str]] = {}
    class_names: Mapping[str, Sequence[str]] = {}
    classes: Mapping[str, GivenClasses] = {}
    lengths: Optional[Sequence[int]] = None


NOTHING = Described()


class RecordTable(Table):
    """The records of files, one file behind the other; see `Table`.

    All records are read when it is opened, for their labels or captions, and compared with
    their checksums; `index_of` says what is kept of that. Records that are damaged
    are no rows: they are counted in what is left out, and too many of them end the run, as damaged
    images do.

    Args:
        shards: reads the files.
        paths: the files, in order.
        options: which fields, what share may be damaged.
        described: what the data set says of itself.

    Attributes:
        options: the same, with the number of classes that the data set says.

    Raises:
        DataError: if a file cannot be read, a field cannot be told, or too many records are damaged.
    """

    def __init__(
        self, shards: Shards, paths: Sequence[str], options: TableOptions, described: Described = NOTHING
    ) -> None:
        self.where = shown(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        self.folder = images_folder(None, paths[0])
        self._shards, self._paths = shards, paths
        columns = self._fields()
        self.known = {
            role: [name for name in names if name in columns] for role, names in described.known.items()
        }
        self.class_names = described.class_names
        given = {"image": options.image, "label": options.label, "caption": options.caption}
        chosen = choose(columns, given, self.known, self.where)
        self.options = options
        if options.classes is None and chosen.label is not None:
            self.options = options._replace(classes=described.classes.get(chosen.label))
        told = chosen.label or chosen.caption
        assert told is not None  # `choose` has chosen one of the two.
        self._told = told
        self._index = index_of(shards, paths, told, chosen.label is None, described.lengths)
        self.num_rows = len(self._index.places)
        self._check_broken(options.damaged)
        # Fields that are not read have no type: nothing asks for it.
        self.types = {name: pa.null() for name in columns}
        self.types |= {chosen.image: pa.binary(), told: self._index.told.type}

    @property
    def digest(self) -> str:
        """See `Table`; of all records, wherever they are and whatever files they are in."""
        return self._index.contents

    def column(self, name: str) -> pa.ChunkedArray:
        """See `Table`; of the field with labels or captions."""
        assert name == self._told
        return self._index.told

    def paths(self, name: str) -> Optional[pa.ChunkedArray]:
        """See `Table`; images are in the records."""
        del name
        return None

    def images(self, name: str, rows: Sequence[int]) -> list[Any]:
        """See `Table`; reads a record for each. OSError if a file cannot be opened."""
        numbers = np.asarray(rows, np.int64)
        shard_of = np.searchsorted(self._index.starts, numbers, side="right") - 1
        images: list[Any] = [None] * len(rows)
        for shard in np.unique(shard_of).tolist():
            # In the order in which they are on the disk.
            wanted = np.flatnonzero(shard_of == shard)
            wanted = wanted[np.argsort(numbers[wanted], kind="stable")]
            places, sizes = (
                each[numbers[wanted]].tolist() for each in (self._index.places, self._index.sizes)
            )
            contents = self._shards.read(self._paths[shard], places, sizes)
            for place, content in zip(wanted.tolist(), contents, strict=True):
                images[place] = content if isinstance(content, OSError) else _image_in(content, name)
        return images

    def row_name(self, row: int) -> str:
        """See `Table`; the file, and where in it the record is."""
        shard = int(np.searchsorted(self._index.starts, row, side="right")) - 1
        return self._shards.name(self._paths[shard], int(self._index.places[row]))

    def image_bytes(self, name: str) -> int:
        """See `Table`; of all fields."""
        del name
        return int(self._index.sizes.sum())

    def probes(self) -> np.ndarray:
        """See `Table`."""
        return evenly(self.num_rows, _PROBED)

    def remarks(self, name: str) -> list[str]:
        """See `Table`."""
        del name
        if self._index.kept is None:
            return []
        return [f"all records are read once; what they say of {self._told} is kept in {self._index.kept}"]

    def count_left_out(self, left_out: LeftOut) -> None:
        """See `Table`."""
        self._index.count_broken(left_out)

    def _fields(self) -> list[str]:
        """The fields that the first records have, by name."""
        found: dict[str, None] = {}
        problem = ""
        records = itertools.chain.from_iterable(map(self._shards.scan, self._paths))
        for record in itertools.islice(records, _LOOKED_AT):
            problem = record.problem
            if record.content is not None:
                try:
                    found |= dict.fromkeys(fields(record.content))
                except ValueError as error:
                    problem = str(error)
        if found:
            return sorted(found)
        if problem:
            raise DataError(
                f"{self.where}: the first records: {problem}; expected a tf.train.Example or a map of msgpack"
            )
        raise DataError(f"{self.where}: no records, expected one for each image")

    def _check_broken(self, share: float) -> None:
        broken = self._index.num_broken
        total = self.num_rows + broken
        if not too_many_damaged(broken, total, share):
            return
        left_out = LeftOut()
        self._index.count_broken(left_out)
        raise DataError(
            f"{self.where}: {broken:,} of {total:,} records are damaged, expected "
            f"{accepted_damage(total, share)}: {'; '.join(left_out.lines())}; ?damaged=SHARE accepts more"
        )


def _image_in(content: bytes, field: str) -> Any:
    """The image of a record, as `images.opened` takes it; an OSError if it has none."""
    try:
        found = values(content, field)
    except ValueError as error:
        return OSError(str(error))
    if len(found) != 1:
        return OSError("several images in the record" if found else "no image in the record")
    return found[0]
