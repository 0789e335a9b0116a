"""What a selector and its trainers say to each other, version 1.

A message is a list of ZeroMQ frames: a header, which is a JSON object in UTF-8, and after it the raw
bytes of arrays, C-contiguous and little-endian. A trainer has a DEALER socket, the selector a ROUTER.
Over TCP both show CURVE keys, those of `serve.json` in the run directory; over a Unix socket the
folder's mode is the guard. Nothing in a message is code, nor is anything in it ever run.

Every header has `v`, the version (1), `kind`, and `id`, which the trainer chooses and the answer repeats;
and `arrays`, a list of `[name, dtype, shape]`, one for each frame that follows. dtype is NumPy's, such as
`<f4`; or `bytes` or `text` for a list of byte strings, or of texts in UTF-8, which takes two frames: all of
them behind each other, and their ends, int64[n].

A trainer's rank `r` of `world` ranks, and of it one reader of several (`worker` of `workers`: a DataLoader's
worker processes), is a consumer. All of these four stand in every request of one.

=========  =========================================  ====================================================
request    more fields                                answer
=========  =========================================  ====================================================
`hello`    `next`, where it goes on, or null;         `hello`: `next`, the number of its next sub-batch:
           `session`, text, or "" to ask only         what was asked for, but that after the last it was
                                                       given if that was null or in this session;
                                                       `data_sets`, `images`, `task`
`get`      `number`, `images` ("" for what there is,   `batch`: `number` and arrays `<data set>/<field>`,
           or "ids"), `weights`: bool                  this rank's rows; `end`: there is no such number,
                                                       and none after it; `gone`: no longer kept, `oldest`
                                                       is. No answer until the sub-batch is there
`confirm`  `number`: this rank needs none before it     none
`report`   arrays `ids` int64[n], `losses` float32[n]  `done`
any                                                    `error`: `message`
=========  =========================================  ====================================================

Sub-batches are numbered from 0. A number always means the same sub-batch, whoever asks and however often,
as long as it is kept. A trainer that hears nothing for some seconds asks again, with the same ids.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np

VERSION = 1
# Of a header; a server reads no longer one.
_MOST_HEADER_BYTES = 2**20
_MOST_ARRAYS = 4096
_KINDS = "biuf"
_BYTES, _TEXT = "bytes", "text"

Values = Union[np.ndarray, "list[bytes]", "list[str]"]
Frame = Union[bytes, memoryview]


class ProtocolError(ValueError):
    """A message is none of this protocol, or of another version."""


def pack(header: Mapping[str, Any], arrays: Mapping[str, Values] | None = None) -> list[Frame]:
    """The frames of a message; arrays that are contiguous are not copied."""
    described: list[list[Any]] = []
    frames: list[Frame] = []
    for name, values in (arrays or {}).items():
        if isinstance(values, np.ndarray):
            array = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
            described.append([name, array.dtype.str, list(array.shape)])
            frames.append(_bytes_of(array))
        else:
            kind = _TEXT if values and isinstance(values[0], str) else _BYTES
            items = [item.encode() if isinstance(item, str) else item for item in values]
            ends = np.cumsum([len(item) for item in items], dtype="<i8")
            described.append([name, kind, [len(items)]])
            frames += [b"".join(items), _bytes_of(ends)]
    head = json.dumps({"v": VERSION, **header, "arrays": described}).encode()
    return [head, *frames]


def unpack(frames: Sequence[Frame]) -> tuple[dict[str, Any], dict[str, Values]]:
    """The header and the arrays of a message.

    Arrays of bytes are views of the frames; others are copied, as a frame may lie anywhere.

    Raises:
        ProtocolError: if it is no message, or of another version.
    """
    header = _header(frames)
    rest = list(frames[1:])
    arrays: dict[str, Values] = {}
    try:
        for name, kind, shape in header.pop("arrays"):
            if kind in (_BYTES, _TEXT):
                joined, ends = rest.pop(0), np.frombuffer(rest.pop(0), "<i8")
                arrays[str(name)] = _cut(joined, ends, kind)
            else:
                arrays[str(name)] = _array(rest.pop(0), kind, shape)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ProtocolError(f"arrays that are none: {error}") from None
    if rest:
        raise ProtocolError(f"{len(rest)} frames more than arrays")
    return header, arrays


def _header(frames: Sequence[Frame]) -> dict[str, Any]:
    if not frames or len(frames[0]) > _MOST_HEADER_BYTES:
        raise ProtocolError("no header, or one that is too long")
    try:
        header = json.loads(bytes(frames[0]))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a header that is no JSON: {error}") from None
    if not isinstance(header, dict) or "v" not in header:
        raise ProtocolError("a header that says no version")
    if header["v"] != VERSION:
        raise ProtocolError(
            f"the other side speaks version {header['v']!r} and this one {VERSION}: "
            "have the same version of classact and classact-client"
        )
    arrays = header.get("arrays")
    if not isinstance(arrays, list) or len(arrays) > _MOST_ARRAYS:
        raise ProtocolError("a header without a list of arrays")
    return header


def _bytes_of(array: np.ndarray) -> memoryview:
    # An empty array's view cannot be cast.
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")


def _array(frame: Frame, kind: Any, shape: Any) -> np.ndarray:
    dtype = np.dtype(kind)
    sizes = [int(size) for size in shape]
    if dtype.kind not in _KINDS or any(size < 0 for size in sizes):
        raise ValueError(f"{kind!r}{shape!r}")
    array = np.frombuffer(frame, dtype).reshape(sizes)
    return array if dtype.itemsize == 1 else array.copy()


def _cut(joined: Frame, ends: np.ndarray, kind: str) -> list[bytes] | list[str]:
    limits = [0, *ends.tolist()]
    pieces = list(itertools.pairwise(limits))
    if limits[-1] != len(joined) or any(end < start for start, end in pieces):
        raise ValueError("ends that are none")
    items = [bytes(joined[start:end]) for start, end in pieces]
    return [item.decode() for item in items] if kind == _TEXT else items
