"""The index of tar shards: one file that says where each image is and what belongs to it, memory-mapped.

The file is a line of magic, the length of a header, the header as JSON, and sections of numbers and
bytes, each from a multiple of a page on; the header says where. Its numbers are little-endian. A pair
takes 24 bytes for its image, 16 for its caption (or 4 for its label), and what name and caption have.
"""

import contextlib
import dataclasses
import io
import json
import mmap
import os
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import IO, Any, BinaryIO, Optional

import numpy as np

from classact.data.tar_members import TarMember

_MAGIC = b"classact shard index 1\n"
_PAGE = 4096
# Of each image: where its bytes begin in its shard, how many they are, and where its name ends.
IMAGE = np.dtype([("offset", "<i8"), ("size", "<i8"), ("name_end", "<i8")])


@dataclasses.dataclass
class Summary:
    """What an index says of all shards together, as its header has it.

    Attributes:
        shards: of each its name from the first one's folder on, and its stamp.
        image_starts: the number of the first image of each shard, and at the end how many there are.
        pair_starts: the same of examples.
        digest: as `Source.digest`.
        alike: how many images have a size that another one has.
        class_names: what labels are the numbers of, sorted; None: they are numbers.
        left_out: (reason, count, first names).
        remarks: as `LeftOut.remarks`.
    """

    shards: list[list[Any]]
    image_starts: list[int] = dataclasses.field(default_factory=lambda: [0])
    pair_starts: list[int] = dataclasses.field(default_factory=lambda: [0])
    digest: str = ""
    alike: int = 0
    class_names: Optional[list[str]] = None
    left_out: list[tuple[str, int, list[str]]] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)


class IndexWriter:
    """Takes shards one by one, and writes the index of all; holds those of one shard in memory.

    Args:
        folder: where to keep what is written until it is whole.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files = contextlib.ExitStack()
        self._sections: dict[str, IO[bytes]] = {}
        self._ends: dict[str, int] = {}

    def section(self, name: str) -> IO[bytes]:
        """The file that a section is written to until then; others may read it too."""
        if name not in self._sections:
            made = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._sections[name] = self._files.enter_context(made)
        return self._sections[name]

    def add_images(self, members: Sequence[TarMember]) -> None:
        """Takes the images of a shard."""
        rows = np.zeros(len(members), IMAGE)
        rows["offset"] = [member.offset for member in members]
        rows["size"] = [member.size for member in members]
        rows["name_end"] = self._add_bytes("names", [name_bytes(member) for member in members])
        self.section("images").write(rows.tobytes())

    def add_captions(self, captions: Sequence[Sequence[str]], first_image: int) -> int:
        """Takes the captions of each image of a shard; returns how many there are."""
        encoded = [text.encode(errors="surrogatepass") for texts in captions for text in texts]
        counts = [len(texts) for texts in captions]
        image_of = np.repeat(np.arange(first_image, first_image + len(captions)), counts)
        self.section("image_of").write(image_of.astype("<i8").tobytes())
        self.section("text_ends").write(self._add_bytes("texts", encoded).astype("<i8").tobytes())
        return len(encoded)

    def add_labels(self, labels: np.ndarray) -> None:
        """Takes the labels of a shard, int32[N]."""
        self.section("labels").write(labels.astype("<i4").tobytes())

    def array(self, name: str, kind: Any) -> np.ndarray:
        """A section so far as numbers, mapped from its file; not to be used once it has changed."""
        file = self.section(name)
        file.flush()
        return np.memmap(file, kind, mode="r")

    def replace(self, name: str, content: bytes) -> None:
        """Puts something else in a section's place."""
        file = self.section(name)
        file.seek(0)
        file.truncate()
        file.write(content)

    def texts(self) -> Iterator[bytes]:
        """All captions in order, UTF-8, one at a time."""
        ends, texts = self.section("text_ends"), self.section("texts")
        ends.seek(0)
        texts.seek(0)
        start = 0
        while block := ends.read(8 << 16):
            for end in np.frombuffer(block, "<i8").tolist():
                yield texts.read(end - start)
                start = end

    def write(self, key: str, summary: Summary, file: BinaryIO) -> None:
        """Writes the whole index; `OSError` if it cannot be."""
        lengths = {}
        for name, section in self._sections.items():
            lengths[name] = section.seek(0, io.SEEK_END)
        header: dict[str, Any] = {"key": key, **dataclasses.asdict(summary), "sections": lengths}
        encoded = json.dumps(header).encode()
        file.write(_MAGIC + len(encoded).to_bytes(8, "little") + encoded)
        for section in self._sections.values():
            file.write(bytes(-file.tell() % _PAGE))
            section.seek(0)
            shutil.copyfileobj(section, file, 1 << 20)

    def close(self) -> None:
        """Forgets what was written until now."""
        self._files.close()

    def _add_bytes(self, name: str, pieces: Sequence[bytes]) -> np.ndarray:
        """Adds pieces to a section; returns where each ends in it, int64[N]."""
        self.section(name).write(b"".join(pieces))
        ends = self._ends.get(name, 0) + np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        self._ends[name] = int(ends[-1]) if len(ends) else self._ends.get(name, 0)
        return ends


class Index:
    """An index that was written; holds its header. Any number of threads may read it.

    What is asked of all examples is mapped from the file. Single places are read from it: a page that
    is mapped for a few bytes, with those around it, would stay, and all of them in the end.

    Attributes:
        summary: what it says of all shards together.
        image_of: int64[pairs], as `Source.image_of`; None for labels.
        labels: int32[images]; None for captions.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Maps it; ValueError if it is not whole, or another kind of file."""
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._map[: len(_MAGIC)] != _MAGIC:
            raise ValueError("no index, or of another version")
        start = len(_MAGIC) + 8
        length = int.from_bytes(self._map[start - 8 : start], "little")
        header = json.loads(self._map[start : start + length])
        self.key = str(header.pop("key"))
        places, end = {}, start + length
        for name, size in header.pop("sections").items():
            end += -end % _PAGE
            places[name] = (end, size)
            end += size
        if len(self._map) != end:
            raise ValueError(f"{len(self._map)} bytes, expected {end}")
        self.summary = Summary(**header)
        # The map has a descriptor of its own; this one ends with the index.
        self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._images_at, self._names_at = places["images"][0], places["names"][0]
        self._images = self._array(places["images"], IMAGE)
        self.image_of = self._array(places["image_of"], "<i8") if "image_of" in places else None
        self.labels = self._array(places["labels"], "<i4") if "labels" in places else None
        self._text_ends_at = places["text_ends"][0] if "text_ends" in places else 0
        self._texts_at = places["texts"][0] if "texts" in places else 0

    @property
    def num_images(self) -> int:
        """How many images there are."""
        return len(self._images)

    def place(self, image: int) -> tuple[int, int, str]:
        """(offset in its shard, size in bytes, name) of an image."""
        before = IMAGE.itemsize if image else 0
        found = self._read(self._images_at + image * IMAGE.itemsize - before, before + IMAGE.itemsize)
        *start, (offset, size, end) = np.frombuffer(found, IMAGE).tolist()
        first = start[0][2] if start else 0
        name = self._read(self._names_at + first, end - first)
        return offset, size, name.decode(errors="surrogateescape")

    def sizes(self) -> np.ndarray:
        """The size of each image in bytes, int64[images]."""
        return self._images["size"]

    def caption(self, pair: int) -> str:
        """The caption of an example."""
        before = 8 if pair else 0
        ends = np.frombuffer(self._read(self._text_ends_at + pair * 8 - before, before + 8), "<i8").tolist()
        first = ends[0] if pair else 0
        return self._read(self._texts_at + first, ends[-1] - first).decode(errors="surrogatepass")

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, size, offset)

    def _array(self, place: tuple[int, int], kind: Any) -> np.ndarray:
        count = place[1] // np.dtype(kind).itemsize
        return np.frombuffer(self._map, kind, count, place[0])


def name_bytes(member: TarMember) -> bytes:
    """A member's name as it is in the tar file."""
    return member.name.encode(errors="surrogateescape")


def read_index(path: pathlib.Path, key: str, shards: Sequence[Sequence[Any]]) -> Optional[Index]:
    """The index in a file; None if there is none that is whole, or it is of shards as they were once.

    Args:
        path: the file.
        key: what the index is of.
        shards: as in `Summary.shards`.
    """
    try:
        with path.open("rb") as file:
            index = Index(file)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    theirs = index.summary.shards
    same = len(theirs) == len(shards) and all(map(_same_shard, theirs, shards))
    return index if same and index.key == key else None


def _same_shard(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two are the same shard in the same state.

    A disk says its time as a number, and a server its version as text: of these, names and sizes count.
    """
    comparable = [type(each) for each in one] == [type(each) for each in other]
    return list(one) == list(other) if comparable else list(one[:2]) == list(other[:2])


def write_index(writer: IndexWriter, key: str, summary: Summary, path: pathlib.Path) -> Index:
    """Writes an index, and opens it; who calls it keeps others out, as for `begun`.

    Raises:
        OSError: if it cannot be written.
    """
    with begun(path) as file:
        writer.write(key, summary, file)
        file.flush()
        return Index(file)


@contextlib.contextmanager
def begun(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file that gets its path at the end: whoever opens that finds all of it, or what was there before.

    What others have left who died before that is removed: nobody else may be writing the same file.
    """
    for left in path.parent.glob(f"{path.name}.*.part"):
        left.unlink(missing_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            # mkstemp makes it private: others who read the shards read the index too.
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    # Whatever cut it short, an interrupt too: half an index is of no use to anybody.
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise
