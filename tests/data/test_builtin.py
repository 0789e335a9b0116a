import gzip
import io
import pickle
import struct

import numpy as np
import pytest

from classact.data.source import DataError
from classact.data.specs import open_source


def write_idx(path, array):
    data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fashion_mnist(folder, train=6, evaluation=4, suffix=".gz"):
    folder.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", evaluation)):
        images = np.arange(count * 28 * 28).reshape(count, 28, 28) % 251
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images.astype(np.uint8))
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", (np.arange(count) % 10).astype(np.uint8))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home directory, so that files of this machine are not found."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CLASSACT_DATA", raising=False)
    return tmp_path / "home"


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("below", ["", "fashion-mnist", "usr/share/datasets/fashion-mnist"])
def test_fashion_mnist_of_a_directory(tmp_path, below, suffix):
    write_fashion_mnist(tmp_path / "data" / below, suffix=suffix)
    train = open_source(f"fashion_mnist:{tmp_path}/data", "train")
    evaluation = open_source(f"fashion_mnist:{tmp_path}/data", "eval")
    assert (train.num_examples, evaluation.num_examples) == (6, 4)
    assert train.image_shape == (28, 28, 1)
    assert (train.num_classes, train.class_names[9]) == (10, "ankle boot")
    batch = train.batch(np.array([5]))
    assert batch["label"].tolist() == [5]
    assert batch["image"][0, 0, :2, 0].tolist() == [5 * 784 % 251, (5 * 784 + 1) % 251]


@pytest.mark.parametrize("below", ["fashion-mnist", "usr/share/datasets/fashion-mnist"])
def test_fashion_mnist_is_found_by_itself(home, tmp_path, monkeypatch, below):
    write_fashion_mnist(home / ".cache/classact" / below, train=5)
    assert open_source("fashion_mnist", "train").num_examples == 5
    write_fashion_mnist(tmp_path / "elsewhere" / below, train=3)
    monkeypatch.setenv("CLASSACT_DATA", str(tmp_path / "elsewhere"))
    assert open_source("fashion_mnist", "train").num_examples == 3


def test_missing_fashion_mnist_names_the_command_that_gets_it(tmp_path, monkeypatch):
    missing = tmp_path / "none"
    with pytest.raises(DataError) as error:
        open_source(f"fashion_mnist:{missing}", "train")
    assert (
        f"mkdir -p {missing} && apt-get download dataset-fashion-mnist && "
        f"dpkg-deb -x dataset-fashion-mnist*.deb {missing}"
    ) in str(error.value)


def test_damaged_fashion_mnist_names_file_and_example(tmp_path):
    folder = tmp_path / "data"
    write_fashion_mnist(folder, suffix="")
    labels = folder / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-2] = 11
    labels.write_bytes(content)
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: example 4 has label 11, expected 0 to 9"):
        open_source(f"fashion_mnist:{folder}", "train")
    write_idx(labels, np.zeros(5, np.uint8))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: labels \[5\] for 6 images"):
        open_source(f"fashion_mnist:{folder}", "train")
    (folder / "t10k-images-idx3-ubyte").write_bytes(
        b"\0\0\x08\x03" + struct.pack(">3I", 4, 28, 28) + b"0" * 800
    )
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: truncated inside example 1 of 4"):
        open_source(f"fashion_mnist:{folder}", "eval")
    (folder / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: no such file"):
        open_source(f"fashion_mnist:{folder}", "eval")


def test_digits_have_a_fixed_split_of_every_class():
    train, evaluation = open_source("digits", "train"), open_source("digits", "eval")
    assert (train.num_examples, evaluation.num_examples) == (1438, 359)
    assert (train.image_shape, train.num_classes) == ((8, 8, 1), 10)
    batches = [source.batch(np.arange(source.num_examples)) for source in (train, evaluation)]
    assert sorted(np.concatenate([batch["id"] for batch in batches]).tolist()) == list(range(1797))
    assert batches[0]["image"].max() == 255
    assert np.bincount(batches[1]["label"], minlength=10).min() > 20
    assert open_source("digits", "eval").batch(np.array([0]))["id"] == batches[1]["id"][0]


def save(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


IMAGES = np.arange(4 * 5 * 6 * 3, dtype=np.uint8).reshape(4, 5, 6, 3)


@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., 0]])
@pytest.mark.parametrize("split", ["train", "eval"])
def test_npz_is_whole_for_both_splits(tmp_path, images, split):
    spec = save(tmp_path / "a.npz", image=images, label=np.array([2, 0, 1, 2], np.uint8), other=np.array("x"))
    source = open_source(spec, split)
    assert source.num_examples == 4
    assert source.num_classes == 3
    assert source.image_shape == (5, 6, images[0, 0, 0].size)
    batch = source.batch(np.arange(4))
    assert batch["label"].tolist() == [2, 0, 1, 2]
    np.testing.assert_array_equal(batch["image"].reshape(images.shape), images)
    assert open_source(spec + "?classes=7", split).num_classes == 7


def test_npz_may_say_what_its_labels_mean(tmp_path):
    names = np.array(["ant", "bee", "cow"])
    spec = save(tmp_path / "a.npz", image=IMAGES, label=np.array([1, 0, 1, 1]), class_names=names)
    source = open_source(spec, "train")
    # A class may not occur.
    assert (source.num_classes, source.class_names) == (3, ("ant", "bee", "cow"))
    with pytest.raises(DataError, match="3 class names for 4 classes"):
        open_source(spec + "?classes=4", "train")


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (
            {"image": IMAGES, "label": np.array([0, 1, 2, 0]), "class_names": np.array(["a", "b"])},
            "",
            "example 2 has label 2, expected 0 to 1",
        ),
        (
            {"image": IMAGES, "label": np.zeros(4, int), "class_names": np.array([7])},
            "",
            r"'class_names' is int64\[1\], expected strings\[K\]",
        ),
        ({"image": IMAGES}, "", "lacks label; it has image"),
        ({"label": np.zeros(4, int)}, "", "lacks image"),
        ({"image": IMAGES, "label": np.array([0, 1, -3, 0])}, "", "example 2 has label -3, expected 0 to 1"),
        (
            {"image": IMAGES, "label": np.array([0, 1, 3, 0])},
            "?classes=3",
            "example 2 has label 3, expected 0 to 2",
        ),
        ({"image": IMAGES, "label": np.array([0, 9, 3, 0])}, "", r"example 1 has label 9, .*\?classes=K"),
        ({"image": IMAGES, "label": np.arange(3)}, "", "4 images but 3 labels: example 3"),
        ({"image": IMAGES, "label": np.zeros((4, 2), int)}, "", r"'label' is int64\[4, 2\]"),
        ({"image": IMAGES, "label": np.zeros(0, int)}, "", "N at least 1"),
        ({"image": IMAGES / 255, "label": np.arange(4)}, "", "images are float64"),
        ({"image": IMAGES[0, 0], "label": np.arange(6)}, "", r"uint8\[6, 3\], expected uint8\[N, H, W, C\]"),
        (
            {"image": np.array([None]), "label": np.arange(1)},
            "",
            "array 'image' cannot be read .*allow_pickle",
        ),
        ({"image": IMAGES, "label": np.arange(4)}, "?classes=many", "classes=many, expected a whole number"),
        (
            {"image": IMAGES, "label": np.arange(4)},
            "?classes=0",
            "classes=0, expected a whole number above 0",
        ),
    ],
)
def test_bad_npz_files_are_refused_by_name(tmp_path, arrays, options, message):
    spec = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=message) as error:
        open_source(spec + options, "train")
    assert "bad.npz" in str(error.value) or "npz" in str(error.value)


def test_damaged_npz_files_are_refused_by_name(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez_compressed(
        path, image=np.random.default_rng(0).integers(0, 256, (50, 8, 8), np.uint8), label=np.arange(50)
    )
    whole = path.read_bytes()
    for content in (b"", b"no zip", whole[:500], whole[:300] + b"\0\xff" * 200 + whole[700:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.npz"):
            open_source(f"npz:{path}", "train")
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        open_source(f"npz:{tmp_path}/none.npz", "train")
    with pytest.raises(DataError, match="needs a file"):
        open_source("npz", "train")
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(DataError, match="a single array"):
        open_source(f"npz:{tmp_path}/one.npy", "train")


def test_a_pickle_is_never_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (io.open, (str(tmp_path / "exploded"), "w"))

    path = tmp_path / "evil.npz"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"evil\.npz"):
        open_source(f"npz:{path}", "train")
    np.savez(path, image=np.array([Bomb()], object), label=np.arange(1))
    with pytest.raises(DataError, match=r"evil\.npz"):
        open_source(f"npz:{path}", "train")
    assert not (tmp_path / "exploded").exists()
