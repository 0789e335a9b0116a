"""Small real files of tables, as their own libraries write them."""

import collections
import csv
import io
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from classact.data.specs import open_source
from classact.data.stream import IIDStream, newest_cursors

COUNT = 40
NAMES = ("ant", "bee", "cow")


def pixels(number):
    """uint8[6, 8, 3], of each number another."""
    return np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)


def png(image):
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(content, format="PNG")
    return content.getvalue()


def write_all(folder):
    """Writes into a directory; image i of all files is `pixels(i)`, its label i % 3.

    Its captions are "small i" and "big i".
    """
    images = [png(pixels(i)) for i in range(COUNT)]
    (folder / "photos").mkdir()
    for i, content in enumerate(images):
        (folder / "photos" / f"{i}.png").write_bytes(content)
    labels = [i % 3 for i in range(COUNT)]
    texts = [[f"small {i}", f" big {i} "] for i in range(COUNT)]
    half = COUNT // 2
    for part, rows in (("0", slice(0, half)), ("1", slice(half, COUNT))):
        table = pa.table({"image": images[rows], "label": labels[rows]})
        pq.write_table(table, folder / f"labelled-{part}.parquet", row_group_size=7)
    structs = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(images)]
    pq.write_table(pa.table({"jpg": structs, "captions": texts}), folder / "pairs.parquet", row_group_size=7)
    paths = [f"photos/{i}.png" for i in range(COUNT)]
    pq.write_table(pa.table({"path": paths, "label": [NAMES[i] for i in labels]}), folder / "paths.parquet")
    rows = [(paths[i], text.strip()) for i in range(COUNT) for text in texts[i]]
    _write_csv(folder / "pairs.csv", ",", [("filepath", "title"), *rows])
    _write_csv(
        folder / "labelled.tsv",
        "\t",
        [("file", "class"), *zip(paths, (NAMES[i] for i in labels), strict=True)],
    )
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in NAMES))


def read_by_changing_readers(spec):
    """How often each example comes in an epoch that two readers begin and three end, by its id."""
    source = open_source(spec, "train")
    first = [IIDStream(source, 3, 3, reader, 2) for reader in range(2)]
    seen = collections.Counter(id for each in first for id in next(each)["id"].tolist())
    cursors = newest_cursors([each.cursor for each in first])
    for reader in range(3):
        # What a later process opens. A row at a time, so that the epoch ends exactly.
        later = IIDStream(open_source(spec, "train"), 1, 3, reader, 3, cursors)
        while later.epoch < 1:
            seen.update(next(later)["id"].tolist())
    return dict(sorted(seen.items()))


def _write_csv(path: pathlib.Path, separator, rows):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
