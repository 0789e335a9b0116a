"""`classact data`: builds a large set of image–text pairs."""

import pathlib
from collections.abc import Sequence

from absl import flags

from classact.launch.commands import arguments

USAGE = """\
  data      icons --out=DIR [--iconify=DIR] [--emojibase=DIR] [--size=32]
            builds a large set of image–text pairs as tar shards
"""


def main(argv: Sequence[str]) -> int:
    """Builds the set that is named; see `cli.main`."""
    from classact.data import icon_shards
    from classact.data.source import DataError

    out = flags.DEFINE_string("out", None, "Folder to write; an interrupted build is continued there.")
    iconify = flags.DEFINE_string("iconify", None, "The unpacked npm package @iconify/json; else fetched.")
    emojibase = flags.DEFINE_string(
        "emojibase", None, "The unpacked npm package emojibase-data; else fetched."
    )
    size = flags.DEFINE_integer("size", 32, "Side of the images, in pixels.", lower_bound=1)
    rest = arguments.parse(argv)
    if rest != ["icons"]:
        raise arguments.UsageError(
            f"data: expected the name of a set, icons, got {' '.join(rest) or 'nothing'}"
        )
    if not out.value:
        raise arguments.UsageError("--out=DIR is missing: the folder to write")
    packages = [pathlib.Path(flag.value) if flag.value else None for flag in (iconify, emojibase)]
    try:
        counts = icon_shards.build(pathlib.Path(out.value), packages[0], packages[1], int(size.value))
    except DataError as error:
        raise arguments.UsageError(str(error)) from None
    except OSError as error:
        raise arguments.UsageError(
            f"--out={out.value}: cannot be written ({error.strerror}): name another"
        ) from None
    except ImportError as error:
        raise arguments.UsageError(f"{error}: pip install 'classact[icons]'") from None
    for kind, images in counts.items():
        print(f"{images:,} images: 'tar:{out.value}/{kind}-*.tar?captions=lines'")
    return 0
