"""The sources that come with classact, as the registry opens them."""

import pathlib
from typing import Optional

import numpy as np

from classact.data.cache_folder import DEFAULT, as_named, cache_folder
from classact.data.idx import read_idx
from classact.data.npz import read_npz
from classact.data.options import no_argument, positive_option
from classact.data.registry import register_source
from classact.data.source import ArraySource, DataError, Source
from classact.data.views import held_out_split

FASHION_MNIST_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
_FASHION_MNIST_FILES = {"train": "train", "eval": "t10k"}
# Where the Debian package puts the files below the directory it is unpacked in.
_DEBIAN_FOLDER = pathlib.Path("usr/share/datasets/fashion-mnist")


@register_source("fashion_mnist")
def open_fashion_mnist(argument: str, split: str) -> Source:
    """`fashion_mnist` or `fashion_mnist:DIR`: 60,000 / 10,000 grey 28×28 images, 10 classes.

    Without DIR, the IDX files (gzipped or not) are looked for in
    `$CLASSACT_DATA/fashion-mnist`, `~/.cache/classact/fashion-mnist` and
    `/usr/share/datasets/fashion-mnist`. Wherever a directory is looked in, the
    Debian package may also have been unpacked in it.

    Raises:
        DataError: if they are nowhere (it names the command that gets them) or damaged.
    """
    folder = _fashion_mnist_folder(argument)
    prefix = _FASHION_MNIST_FILES[split]
    images_path = _plain_or_gzipped(folder, f"{prefix}-images-idx3-ubyte")
    labels_path = _plain_or_gzipped(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3:
        raise DataError(f"{images_path}: an array of shape {images.shape}, expected images [N, H, W]")
    if labels.ndim != 1 or len(labels) != len(images):
        raise DataError(
            f"{labels_path}: labels {list(labels.shape)} for {len(images)} images of {images_path}"
        )
    return ArraySource(
        "fashion_mnist", images[..., np.newaxis], labels, 10, FASHION_MNIST_CLASSES, origin=str(labels_path)
    )


@register_source("digits")
def open_digits(argument: str, split: str) -> Source:
    """`digits`: scikit-learn's 1,797 grey 8×8 digits, 1,438 / 359 by a fixed split."""
    no_argument("digits", argument)
    # Imported here, for it takes a second that other sources need not spend.
    from sklearn import datasets

    digits = datasets.load_digits()
    # Its grey levels are 0 to 16.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    names = [str(digit) for digit in range(10)]
    train, evaluation = held_out_split(ArraySource("digits", images, digits.target, 10, names), 0.2, seed=0)
    return train if split == "train" else evaluation


@register_source("npz")
def open_npz(argument: str, split: str, *, classes: Optional[str] = None) -> Source:
    """`npz:PATH` or `npz:PATH?classes=K`: the whole of a NumPy file, for both splits.

    The file holds `image`, uint8[N, H, W] or uint8[N, H, W, C], and `label`,
    integers[N] from 0. `class_names`, strings[K], says what the labels mean; other
    arrays are ignored. It is read into memory. K is the number of names, or 1 + the
    greatest label if not given.

    Raises:
        DataError: if the file is missing, damaged, or holds something else.
    """
    del split
    if not argument:
        raise DataError("data source 'npz' needs a file: npz:PATH")
    path = pathlib.Path(argument).expanduser()
    arrays = read_npz(path, ["image", "label"], ["class_names"])
    images, labels = arrays["image"], arrays["label"]
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1 or not len(labels):
        raise DataError(
            f"{path}: array 'label' is {labels.dtype}{list(labels.shape)}, expected integers[N], N at least 1"
        )
    names = _class_names(path, arrays["class_names"]) if "class_names" in arrays else None
    if classes is not None:
        num_classes = positive_option("npz", "classes", classes)
    elif names is not None:
        num_classes = len(names)
    else:
        num_classes = max(0, int(labels.max())) + 1
        if num_classes > len(labels):
            raise DataError(
                f"{path}: example {labels.argmax()} has label {labels.max()}, more than there are examples; "
                f"if that is right, say npz:{argument}?classes=K"
            )
    source = ArraySource("npz", images, labels, num_classes, names, origin=str(path))
    source.has_splits = False
    return source


def _class_names(path: pathlib.Path, names: np.ndarray) -> list[str]:
    if names.dtype.kind != "U" or names.ndim != 1 or not len(names):
        raise DataError(
            f"{path}: array 'class_names' is {names.dtype}{list(names.shape)}, expected strings[K], as of "
            "numpy.array(['ant', 'bee'])"
        )
    return [str(name) for name in names]


def _fashion_mnist_folder(argument: str) -> pathlib.Path:
    if argument:
        base = pathlib.Path(argument).expanduser()
        folders, target = [base, base / "fashion-mnist", base / _DEBIAN_FOLDER], argument
    else:
        cache, home = cache_folder(), pathlib.Path(DEFAULT).expanduser()
        folders = [
            *(
                base / name
                for base in dict.fromkeys((cache, home))
                for name in ("fashion-mnist", _DEBIAN_FOLDER)
            ),
            pathlib.Path("/") / _DEBIAN_FOLDER,
        ]
        target = as_named()
    for folder in folders:
        if folder.is_dir() and any(folder.glob("*-ubyte*")):
            return folder
    raise DataError(
        f"Fashion-MNIST is in none of {', '.join(map(str, folders))}. To get it (31 MB; "
        "where apt-get finds no such package, run `apt-get update` first): "
        f"mkdir -p {target} && apt-get download dataset-fashion-mnist && "
        f"dpkg-deb -x dataset-fashion-mnist*.deb {target}"
    )


def _plain_or_gzipped(folder: pathlib.Path, name: str) -> pathlib.Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise DataError(f"{folder / name}.gz: no such file")
