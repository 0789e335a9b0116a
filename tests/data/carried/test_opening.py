"""What the learner trains on is what was scored, to the byte, whatever the replay carries."""

import io
import sys
import tarfile

import numpy as np
import photographs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from classact.data.augment.augmented import Augmented
from classact.data.carried import opening
from classact.data.carried.kinds import CONTENT_BYTES, ENCODED, IDS, PIXELS
from classact.data.carried.opening import FromFiles, FromSource
from classact.data.carried.sealing import InEpochs, Sealer, as_scored
from classact.data.source import ArraySource, DataError
from classact.data.specs import open_source
from classact.data.stream import IIDStream
from classact.data.views import Subset
from classact.replay.records import RecordCodec

SIDE, SEED = 24, 5
# One is damaged.
IMAGES, DAMAGED = 12, 7


def files():
    """Photographs of several sizes, kinds and colours; the files of some are larger than the pixels."""
    found = []
    for number in range(IMAGES):
        image = photographs.photograph(number % 2, [(60, 45), (45, 60), (24, 24), (90, 30)][number % 4])
        if number % 5 == 1:
            image = image.convert("L")
        if number % 5 == 2:
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        kind = "JPEG" if number in (0, 3, 5, 8) else "PNG"
        turn = Image.Exif()
        turn[0x0112] = 6
        image = image.convert("RGB") if kind == "JPEG" and image.mode == "RGBA" else image
        content = photographs.encoded(image, kind, **({"exif": turn} if number == 8 else {})).content
        found.append(content[:200] if number == DAMAGED else content)
    return found


def suffix(content):
    return "jpg" if content.startswith(b"\xff\xd8") else "png"


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    contents = files()
    with tarfile.open(folder / "all.tar", "w") as shard:
        for number, content in enumerate(contents):
            (folder / "classes" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            (folder / "classes" / "ab"[number % 2] / f"{number:02d}.{suffix(content)}").write_bytes(content)
            for ending, member in ((suffix(content), content), ("txt", b"number %d" % number)):
                header = tarfile.TarInfo(f"{number:02d}.{ending}")
                header.size = len(member)
                shard.addfile(header, io.BytesIO(member))
    table = {"image": contents, "label": [number % 3 for number in range(IMAGES)]}
    pq.write_table(pa.table(table), folder / "all.parquet", row_group_size=5)
    (folder / "alike").mkdir()
    for number in range(IMAGES - 1):
        image = photographs.photograph(number % 2, (40, 60))
        image.save(folder / "alike" / f"{number}.jpg")
        (folder / "alike" / f"{number}.txt").write_text("text")
    size = f"size={SIDE}&damaged=0.5"
    return {
        "folder": f"folder:{folder}/classes?{size}",
        "grey folder": f"folder:{folder}/classes?{size}&channels=1",
        "captioned shards": f"tar:{folder}/all.tar?{size}",
        "shards in sequence": f"tar:{folder}/all.tar?{size}&order=shards&buffer=4",
        "of one size": f"captioned_folder:{folder}/alike",
        "table": f"parquet:{folder}/all.parquet?{size}",
    }


def opened(spec, augment, kind):
    """As a run loop reads it, and as the learner does that has only ids."""
    source = open_source(spec, "train")
    if kind == ENCODED:
        source.keep_files()
    if augment != "none":
        source = Augmented(source, augment, SEED)
    return InEpochs(source)


def opener(spec, augment, kind, source):
    if kind == ENCODED:
        return FromFiles("files", source.image_shape, augment, SEED)
    return FromSource(opened(spec, augment, PIXELS).source)


def carried(kind, batch):
    """What comes out of a replay, and goes into it."""
    sealed = Sealer(kind)(batch)
    added = {
        "score": np.arange(len(batch["id"]), dtype=np.float32),
        "scored_step": np.zeros(len(batch["id"]), np.int64),
    }
    codec = RecordCodec({name: array for name, array in sealed.items() if name != "caption"})
    return codec.unpack(codec.pack({n: a for n, a in (sealed | added).items() if n != "caption"}))


def shifted(image, rng):
    return np.roll(image, int(rng.integers(1, 20)), axis=1)


@pytest.fixture(autouse=True)
def users_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "users_augmentation", sys.modules[__name__])


AUGMENTS = ["none", "inception+flip", "crop+users_augmentation:shifted"]


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(opening, "_AT_ONCE", 4)


@pytest.mark.parametrize("kind", [ENCODED, IDS])
@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize(
    "name", ["folder", "grey folder", "captioned shards", "shards in sequence", "table", "of one size"]
)
def test_images_are_those_that_were_scored(specs, name, augment, kind):
    source = opened(specs[name], augment, kind)
    make_images = opener(specs[name], augment, kind, source)
    plain = IIDStream(opened(specs[name], augment, PIXELS), 9, seed=1)
    # Batches of two epochs: 11 examples of each can be read.
    parts = []
    for (batch, pixels), _ in zip(
        zip(IIDStream(source, 9, seed=1), plain, strict=True), range(3), strict=False
    ):
        found = make_images(carried(kind, batch), lambda: parts.append(1))
        assert set(as_scored(batch)) - {"caption"} == set(found) - {"score", "scored_step"}
        for field in set(found) - {"score", "scored_step"}:
            np.testing.assert_array_equal(found[field], pixels[field])
            np.testing.assert_array_equal(found[field], batch[field])
            assert found[field].dtype == batch[field].dtype
    # 9, 2 + 7 and 4 + 5 images, as they are of three epochs.
    assert make_images.replaced == 0 and (kind == ENCODED or len(parts) == 3 + 1 + 2 + 1 + 2)


def test_a_file_is_carried_where_it_is_smaller_than_the_pixels(specs):
    source = opened(specs["folder"], "none", ENCODED)
    seal = Sealer(ENCODED)
    batch = source.batch(np.arange(IMAGES))
    sizes = seal(batch)[CONTENT_BYTES]
    assert len(sizes) == IMAGES - 1 and max(sizes) < SIDE * SIDE * 3
    assert set(sizes[sizes > 0].tolist()) < {len(file) for file in files()}
    assert 0 < seal.counts["data/sent_as_pixels"] == np.count_nonzero(sizes == 0) < IMAGES - 1


def test_ids_that_are_no_indices_are_found(specs):
    """As of icons of some classes."""

    class Renumbered(ArraySource):
        def batch(self, indices):
            return super().batch(indices) | {"id": self.ids(indices)}

        def ids(self, indices):
            return 1000 - 3 * np.asarray(indices, np.int64)

    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    source = Renumbered("renumbered", images, np.zeros(8, np.int64), 1)
    batch = InEpochs(Subset(source, np.array([6, 1, 5]))).batch(np.arange(3))
    found = FromSource(source)(carried(IDS, batch))
    np.testing.assert_array_equal(found["image"], images[[6, 1, 5]])
    with pytest.raises(DataError, match="renumbered: it has no example with id 3 here"):
        FromSource(source)(carried(IDS, batch) | {"id": np.array([1000, 3, 997])})


def test_what_cannot_be_read_here_is_filled_and_counted(tmp_path, specs):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(
            photographs.encoded(photographs.photograph(0, (30 + number, 30)), "PNG").content
        )
        (tmp_path / f"{number}.txt").write_text("text")
    spec = f"captioned_folder:{tmp_path}?size=24"
    batch = opened(spec, "none", IDS).batch(np.array([4, 2, 5, 0]))
    record = carried(IDS, batch)
    here = FromSource(open_source(spec, "train"))
    (tmp_path / "2.png").unlink()
    (tmp_path / "0.png").write_bytes(b"<html>404</html>")
    found = here(record)
    # The next one in its place; behind the last one, the first.
    assert found["id"].tolist() == [4, 5, 5, 4] and found["score"].tolist() == [0, 2, 2, 0]
    np.testing.assert_array_equal(found["image"], batch["image"][[0, 2, 2, 0]])
    assert here.replaced == 2
    for number in (4, 5):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"damaged, expected at most 3; .*\.png"):
        here(record)


@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
def test_in_the_place_of_what_is_not_there_comes_the_next_one(there):
    batch = {"id": np.arange(len(there))}
    source = ArraySource("arrays", np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int64), 1)
    reader = FromSource(source)
    found = reader._filled(batch, np.array(there))["id"].tolist()
    following = [(*range(i, len(there)), *range(i)) for i in range(len(there))]
    assert found == [next(j for j in order if there[j]) for order in following]
    assert reader.replaced == there.count(False)


def test_an_image_that_is_another_one_here_is_an_error(tmp_path):
    for number in range(4):
        photographs.photograph(0, (30 + number, 30)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("text")
    spec = f"captioned_folder:{tmp_path}?size=24"
    record = carried(IDS, opened(spec, "none", IDS).batch(np.arange(4)))
    photographs.photograph(1, (32, 30)).save(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"example with id 2 is not the one that was scored .1 of 4"):
        FromSource(open_source(spec, "train"))(record)
    # As another augmentation, or another epoch.
    with pytest.raises(DataError, match="is not the one that was scored"):
        FromSource(Augmented(open_source(spec, "train"), "inception", 0))(record)


def test_a_file_that_is_damaged_on_its_way_is_an_error(specs):
    batch = opened(specs["table"], "none", ENCODED).batch(np.arange(4))
    batch["file"][3] = batch["file"][3][:100]
    with pytest.raises(DataError, match="the file of the example with id 3 was decoded when it was scored"):
        FromFiles("files", (SIDE, SIDE, 3), "none", SEED)(carried(ENCODED, batch))


@pytest.mark.parametrize("kind", [PIXELS, ENCODED, IDS])
def test_sources_without_files_say_what_they_can(kind):
    source = ArraySource("arrays", np.zeros((3, 2, 2, 1), np.uint8), np.arange(3), 3)
    if kind == ENCODED:
        with pytest.raises(DataError, match=r"arrays: its images are in no files .*pixels, or ids"):
            Subset(source, np.arange(2)).keep_files()
    else:
        assert set(Sealer(kind)(InEpochs(source).batch(np.arange(2)))) == (
            {"id", "image", "label"} if kind == PIXELS else {"id", "label", "epoch", "image_check"}
        )


def test_other_kinds_are_refused():
    with pytest.raises(ValueError, match="kind='jpeg': expected one of pixels, encoded, ids"):
        Sealer("jpeg")
