import base64
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from classact.experiments import curves
from classact.experiments.report import scored_images


def decode(image):
    kind, data = image.url.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_extremes_by_score(tmp_path, make_images):
    make_images(tmp_path, 100)
    extremes = scored_images.load_extremes(tmp_path)
    scores = np.linspace(-2.0, 3.0, 100, dtype=np.float32)
    np.testing.assert_array_equal([image.score for image in extremes.highest], scores[::-1][:40])
    np.testing.assert_array_equal([image.score for image in extremes.lowest], scores[:40])
    stored = np.load(tmp_path / "scored_images.npz")["image"]
    np.testing.assert_array_equal(decode(extremes.highest[0]), stored[99, :, :, 0])
    np.testing.assert_array_equal(decode(extremes.lowest[1]), stored[1, :, :, 0])


def test_labels_and_true_labels(tmp_path, make_images):
    make_images(tmp_path, 10)
    lowest = scored_images.load_extremes(tmp_path, shown=4).lowest
    assert [(image.label, image.true_label) for image in lowest] == [
        ("T-shirt", "Trouser"),
        ("Trouser", None),
        ("Pullover", None),
        ("Dress", None),
    ]


def test_what_is_optional_may_be_missing(tmp_path, make_images):
    make_images(tmp_path, 4, class_names=None, clean_label=None)
    extremes = scored_images.load_extremes(tmp_path)
    assert [(image.label, image.true_label) for image in extremes.highest] == [
        ("class 3", None),
        ("class 2", None),
    ]


@pytest.mark.parametrize(
    ("count", "highest", "lowest"), [(0, 0, 0), (1, 1, 0), (5, 3, 2), (79, 40, 39), (80, 40, 40)]
)
def test_no_image_is_in_both(tmp_path, make_images, count, highest, lowest):
    make_images(tmp_path, count)
    extremes = scored_images.load_extremes(tmp_path)
    assert (len(extremes.highest), len(extremes.lowest)) == (highest, lowest)
    assert not {image.score for image in extremes.highest} & {image.score for image in extremes.lowest}


def test_images_without_a_finite_score_are_left_out(tmp_path, make_images):
    make_images(tmp_path, 4, score=np.array([np.nan, 1.0, np.inf, 0.0], np.float32))
    extremes = scored_images.load_extremes(tmp_path)
    assert [image.score for image in (*extremes.highest, *extremes.lowest)] == [1.0, 0.0]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_channels_and_size(tmp_path, make_images, channels, mode):
    make_images(tmp_path, 2, image=np.full((2, 200, 100, channels), 7, np.uint8))
    url = scored_images.load_extremes(tmp_path).highest[0].url
    picture = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))
    assert (picture.mode, picture.size) == (mode, (48, 96))


def test_a_run_without_the_file(tmp_path):
    assert scored_images.load_extremes(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": None}, "has no array 'score'"),
        ({"image": np.zeros((4, 28, 28), np.uint8)}, r"image is uint8\[4, 28, 28\], expected uint8"),
        ({"image": np.zeros((4, 8, 8, 2), np.uint8)}, r"image is uint8\[4, 8, 8, 2\]"),
        ({"image": np.zeros((4, 8, 8, 1), np.float32)}, "image is float32"),
        ({"label": np.zeros(3, np.int32)}, r"label has shape \(3,\), expected \(4,\)"),
        ({"clean_label": np.zeros((4, 1), np.int32)}, "clean_label has shape"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, make_images, changes, message):
    make_images(tmp_path, 4, **changes)
    with pytest.raises(curves.RunError, match=rf"scored_images\.npz.*{message}"):
        scored_images.load_extremes(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_named(tmp_path, make_images, keep):
    make_images(tmp_path, 4)
    path = tmp_path / "scored_images.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(curves.RunError, match=r"scored_images\.npz is damaged"):
        scored_images.load_extremes(tmp_path)


def test_arrays_that_nobody_asked_for_are_not_read(tmp_path, make_images):
    make_images(tmp_path, 4, more=np.array([{"not": "an array"}], dtype=object))
    assert len(scored_images.load_extremes(tmp_path).highest) == 2


def test_an_array_that_claims_more_than_there_is_memory_is_named(tmp_path, make_images):
    make_images(tmp_path, 4, score=None)
    with zipfile.ZipFile(tmp_path / "scored_images.npz", "a") as file, file.open("score.npy", "w") as member:
        claim = {"descr": "<f4", "fortran_order": False, "shape": (1 << 55,)}
        np.lib.format.write_array_header_1_0(member, claim)
    with pytest.raises(curves.RunError, match=r"scored_images\.npz is damaged"):
        scored_images.load_extremes(tmp_path)


def test_pickled_arrays_are_refused(tmp_path, make_images):
    make_images(tmp_path, 4, class_names=np.array([{"not": "a name"}], dtype=object))
    with pytest.raises(curves.RunError, match="is damaged"):
        scored_images.load_extremes(tmp_path)


def test_a_class_whose_name_is_no_utf8_is_shown_in_escapes(tmp_path, make_images):
    make_images(tmp_path, 4, class_names=np.array([f"caf\udce9 {label}" for label in range(10)]))
    shown = scored_images.load_extremes(tmp_path).highest[0].label
    assert shown.startswith(r"caf\xe9 ") and shown.encode()
