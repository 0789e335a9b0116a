"""Finds the index of shards, or makes it: who opens them first reads all headers and texts, once."""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any, BinaryIO

import filelock
import numpy as np

from classact.data import announced, digests
from classact.data.cache_folder import VARIABLE, cache_folder
from classact.data.caption_text import CaptionedImages
from classact.data.decode import FORMATS_IN_WORDS
from classact.data.file_patterns import is_url
from classact.data.pairing import pair_up
from classact.data.shards.index_file import (
    IMAGE,
    Index,
    IndexWriter,
    Summary,
    begun,
    name_bytes,
    read_index,
    write_index,
)
from classact.data.shards.labels import LabelledImages
from classact.data.shards.storage import Shard, members_in, opened
from classact.data.source import DataError
from classact.data.tar_members import TarMember
from classact.data.walk import reason_of_ending

# Shards of fewer bytes are read in well under a second: their index is not kept.
SMALL_BYTES = 64 << 20
# How long to wait for another process that makes the same index.
LOCK_SECONDS = 6 * 3600.0
# What is read of shards in another way, or kept in another form, has another key.
_VERSION = 1
_SAY_SECONDS = 30.0
# After that, it is said that one waits.
_PATIENCE_SECONDS = 1.0
# Of a server, for the state of shards.
_ASKED_AT_ONCE = 32

_log = logging.getLogger(__name__)

Found = CaptionedImages[TarMember] | LabelledImages


@dataclasses.dataclass(frozen=True)
class Reading:
    """What is read of each example besides its image.

    Attributes:
        text: "caption" or "label".
        key: where in a `.json` member it is; empty: it is a `.txt` or `.cls` member.
        lines: whether each line is a caption.
    """

    text: str
    key: str = ""
    lines: bool = False

    @property
    def suffix(self) -> str:
        """The ending of the members that have it."""
        return ".json" if self.key else ".txt" if self.text == "caption" else ".cls"


def open_index(shards: Sequence[Shard], reading: Reading, name: str) -> Index:
    """The index of shards: the one beside the first of them, or in the cache, or a new one.

    A new one is written beside the first shard, hidden, or where that cannot be, or its lock is another
    user's, into `index_cache()`, under a name of that folder's own. It counts as long as each shard has
    the size and the time of change that it had. Of URLs, one that was made where the shards were
    written, and copied with them, is taken; it counts if names and sizes are the same. Of files of less
    than `SMALL_BYTES` together none is kept. While one is made, which takes some 20 µs of CPU a pair,
    others who open the same shards wait for it, up to `LOCK_SECONDS`.

    Args:
        shards: in order; each is there.
        reading: what is read of them.
        name: of the source, for messages.

    Raises:
        DataError: if a shard is missing, cut off, compressed or no tar file; if there is no example
            in them, or what is read of them is damaged; or after `LOCK_SECONDS`.
    """
    folder = os.path.dirname(shards[0].path) or "."
    listed = _listed(shards, folder)
    key = _key([entry[0] for entry in listed], reading)
    local = all(shard.is_local for shard in shards)
    if sum(entry[1] for entry in listed) < SMALL_BYTES and local:
        with tempfile.TemporaryDirectory() as made:
            return _build(shards, listed, reading, name, key, pathlib.Path(made) / "index")
    file = f".classact-{key}.index"
    places = [pathlib.Path(folder) / file] if local else []
    places.append(index_cache() / _cached_name(key, folder))
    for path in places:
        index = read_index(path, key, listed)
        if index is not None:
            return index
    path, lock = _locked_place(places, name)
    try:
        # Another process may have made it meanwhile.
        index = read_index(path, key, listed)
        if index is None and not local and _fetched(shards[0].sibling(file), path):
            index = read_index(path, key, listed)
        return _build(shards, listed, reading, name, key, path) if index is None else index
    finally:
        lock.release()


def _may_write(folder: pathlib.Path) -> bool:
    """Whether files can be made in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _fetched(published: Shard, path: pathlib.Path) -> bool:
    """Fetches the index that lies beside shards far away; whether there is one."""
    try:
        published.stamp()
    except DataError as error:
        _log.info("no index is beside the shards: %s", error)
        return False
    with opened(published) as file, begun(path) as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
    return True


def _listed(shards: Sequence[Shard], folder: str) -> list[list[Any]]:
    """What an index says of each shard: its name from a folder on, and its stamp."""
    names = [os.path.relpath(shard.path, folder) for shard in shards]
    if all(shard.is_local for shard in shards):
        stamps = [shard.stamp() for shard in shards]
    else:
        with futures.ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            stamps = list(pool.map(lambda shard: shard.stamp(), shards))
    return [[name, *stamp] for name, stamp in zip(names, stamps, strict=True)]


def index_cache() -> pathlib.Path:
    """Where indexes are that cannot be beside their shards."""
    return cache_folder("indexes")


def _cached_name(key: str, folder: str) -> str:
    """What an index is called in `index_cache()`, where those of all folders are."""
    place = folder if is_url(folder) else os.path.abspath(folder)
    said = f"{key}\0{place}".encode(errors="surrogateescape")
    return f".classact-{hashlib.blake2b(said, digest_size=8).hexdigest()}.index"


def _locked_place(places: Sequence[pathlib.Path], name: str) -> tuple[pathlib.Path, filelock.BaseFileLock]:
    """The first place where an index can be written, and its lock, as `_locked`; the last one is the cache.

    Raises:
        DataError: if there is none, or as `_locked`.
    """
    *others, last = places
    for path in others:
        if _may_write(path.parent):
            try:
                return path, _locked(path, name)
            except OSError as error:
                _log.warning("%s: its index is kept in %s: %s.lock: %s", name, last, path, error.strerror)
    try:
        last.parent.mkdir(parents=True, exist_ok=True)
        return last, _locked(last, name)
    except OSError as error:
        raise DataError(
            f"{name}: no folder for its index: {last.parent} cannot be made or written ({error.strerror}); "
            f"{VARIABLE} names another"
        ) from error


def _locked(path: pathlib.Path, name: str) -> filelock.BaseFileLock:
    """Keeps others out who would make the same index, until it is released; waits for who does.

    Raises:
        DataError: after `LOCK_SECONDS`.
        OSError: if there cannot be a lock, or it is a file of another user.
    """
    lock = filelock.FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=min(_PATIENCE_SECONDS, LOCK_SECONDS))
    except filelock.Timeout:
        _log.warning("%s: waiting for another process that makes its index, %s", name, path)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except filelock.Timeout as error:
            raise DataError(
                f"{name}: another process has been making the index {path} for {LOCK_SECONDS:.0f} s; "
                f"if there is none, remove {path}.lock"
            ) from error
    return lock


def _key(names: Sequence[str], reading: Reading) -> str:
    said = json.dumps([_VERSION, names, dataclasses.astuple(reading)], ensure_ascii=True)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def _build(
    shards: Sequence[Shard],
    listed: list[list[Any]],
    reading: Reading,
    name: str,
    key: str,
    path: pathlib.Path,
) -> Index:
    """Makes an index, and writes it to a path."""
    found = _new(reading, name)
    summary = Summary(listed)
    writer = IndexWriter(str(path.parent))
    digest = digests.PlacesDigest("members")
    began = said = time.monotonic()
    # What was fetched is known by where it came from.
    fetched: dict[str, str] = {}
    try:
        for number, shard in enumerate(shards):
            with opened(shard) as file:
                if not shard.is_local:
                    fetched[file.name] = str(shard)
                _add_shard(shard, file, reading, found, summary, writer, digest)
            announced.progressed()
            if time.monotonic() > said + _SAY_SECONDS:
                said = time.monotonic()
                _log.warning(
                    "%s: %d of %d shards are indexed, after %.0f s; it is done once, and kept in %s",
                    name, number + 1, len(shards), said - began, path,
                )  # fmt: skip
        found.finish()
        if not summary.image_starts[-1]:
            raise DataError(f"{name}: {_nothing(found, reading)}")
        _finish(shards, found, summary, writer, digest, fetched)
        return write_index(writer, key, summary, path)
    except DataError as error:
        raise DataError(_renamed(str(error), fetched)) from error
    except OSError as error:
        raise DataError(f"{name}: its index, {path}, cannot be made ({error.strerror or error})") from error
    finally:
        writer.close()


def _add_shard(
    shard: Shard,
    file: BinaryIO,
    reading: Reading,
    found: Found,
    summary: Summary,
    writer: IndexWriter,
    digest: digests.PlacesDigest,
) -> None:
    """Reads a shard's headers and texts, in the order of its images."""
    members = members_in(shard, file, found.left_out)
    names = [member.name for member in members]
    pairs, beside = pair_up(
        names, str(shard), found.left_out, members.__getitem__, reading.suffix, reading.text
    )
    found.beside += beside
    for image, text in pairs:
        member = members[text]
        file.seek(member.offset)
        found.add(members[image], member, file.read(member.size))
    images, texts = found.take()
    writer.add_images(images)
    for taken in images:
        digest.add_place(os.path.basename(shard.path), name_bytes(taken), taken.size)
    first, count = summary.image_starts[-1], len(images)
    summary.image_starts.append(first + count)
    if isinstance(texts, np.ndarray):
        writer.add_labels(texts)
    else:
        count = writer.add_captions(texts, first)
    summary.pair_starts.append(summary.pair_starts[-1] + count)


def _finish(
    shards: Sequence[Shard],
    found: Found,
    summary: Summary,
    writer: IndexWriter,
    digest: digests.PlacesDigest,
    fetched: Mapping[str, str],
) -> None:
    """Adds to the summary what can be said only of all shards together."""
    images = writer.array("images", IMAGE)
    for image in digests.sampled(len(images)):
        shard = shards[int(np.searchsorted(summary.image_starts, image, side="right")) - 1]
        offset, size = int(images["offset"][image]), int(images["size"][image])
        with opened(shard) as file:
            digest.add_piece(digests.piece_of(digests.Place(file.name, offset, size)))
    counts = np.unique(images["size"][images["size"] > 0], return_counts=True)[1]
    summary.alike = int(counts[counts > 1].sum())
    if isinstance(found, LabelledImages):
        labels = writer.array("labels", "<i4")
        if found.names:
            summary.class_names = sorted(found.names)
            number = {label: i for i, label in enumerate(summary.class_names)}
            labels = np.array([number[label] for label in found.names], "<i4")[np.asarray(labels)]
            writer.replace("labels", labels.tobytes())
        digest.add_text(labels.tobytes())
        for label in summary.class_names or ():
            digest.add_text(label.encode(errors="surrogatepass"))
    else:
        for text in writer.texts():
            digest.add_text(text)
    summary.digest = digest.result()
    summary.left_out = [
        (reason, count, [_renamed(each, fetched) for each in names])
        for reason, count, names in found.left_out
    ]
    summary.remarks = [_renamed(each, fetched) for each in found.left_out.remarks]


def _new(reading: Reading, name: str) -> Found:
    if reading.text == "caption":
        return CaptionedImages[TarMember](name, reading.lines, reading.key)
    return LabelledImages(name, reading.key)


def _nothing(found: Found, reading: Reading) -> str:
    """Why there is no example."""
    why = "; ".join([*found.left_out.lines(), *found.left_out.remarks]) or f"no {FORMATS_IN_WORDS} files"
    hint = f"the {reading.text} of NAME.png is the text of NAME{reading.suffix}"
    if not reading.key and found.beside[reason_of_ending("x.json")]:
        hint += f", and with ?{reading.text}=KEY what NAME.json has there"
    if reading.key:
        hint = f"the {reading.text} of NAME.png is {reading.key!r} of NAME.json"
    return f"no image with a {reading.text} ({why}): {hint}"


def _renamed(text: str, fetched: Mapping[str, str]) -> str:
    for local, name in fetched.items():
        text = text.replace(local, name)
    return text
