"""Images and captions belong together: one row a trouble that was reported, with what is right."""

import bz2
import dataclasses
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from classact.data.source import DataError
from classact.data.specs import open_source
from classact.experiments import resolution
from classact.experiments.configs import image_text
from classact.launch.commands import run

# The start of a Zstandard file with an empty frame.
ZSTD = bytes.fromhex("28b52ffd0400010000") + bytes(600)


def image(red, form="PNG"):
    """An image file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(buffer, form)
    return buffer.getvalue()


def shard(*members, form=tarfile.GNU_FORMAT):
    """A tar file of (name, content); a content of ("hard" or "symbolic", target) makes a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, content in members:
            header = tarfile.TarInfo(name if isinstance(name, str) else name.decode(errors="surrogateescape"))
            if isinstance(content, tuple):
                header.type = tarfile.LNKTYPE if content[0] == "hard" else tarfile.SYMTYPE
                header.linkname, content = content[1], b""
            content = content if isinstance(content, bytes) else content.encode()
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def pairs(count, start=0, suffix=".png"):
    """Sound pairs, as the members of a shard."""
    return [
        member
        for i in range(start, start + count)
        for member in ((f"p{i:03d}{suffix}", image(i)), (f"p{i:03d}.txt", f"sound {i}"))
    ]


@dataclasses.dataclass(frozen=True)
class Trouble:
    """A shard (or the files of a folder), and what a source of it has.

    Attributes:
        name: of the trouble.
        content: of the shard `x.tar`, or by name.
        holds: of each example (red, caption), in order; None: it is refused.
        says: parts of the account of what is left out, or of the refusal.
        silent: what is in no line of the account.
        options: of the spec.
    """

    name: str
    content: Callable[[], bytes | dict[str, bytes | str]]
    holds: list | None
    says: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    options: str = ""


TEN = [(i, f"sound {i}") for i in range(10)]
UNTOLD = "which image has"

TROUBLES = [
    Trouble(
        "a key comes again",
        lambda: shard(
            ("a.png", image(1)), ("a.txt", "one"), ("b.png", image(2)), ("b.txt", "two"),
            ("a.png", image(3)), ("a.txt", "three"),
        ),
        [(1, "one"), (2, "two"), (3, "three")],
    ),
    Trouble(
        "a key comes again at once",
        lambda: shard(
            ("d/a.png", image(1)), ("d/a.json", "{}"), ("d/a.txt", "one"),
            ("d/a.png", image(3)), ("d/a.json", "{}"), ("d/a.txt", "three"),
        ),
        [(1, "one"), (3, "three")],
    ),
    Trouble(
        "a key comes again, once without a caption",
        lambda: shard(("a.png", image(1)), ("a.txt", "one"), *pairs(1), ("a.png", image(3))),
        [(1, "one"), (0, "sound 0")],
        ("1 without a caption: ", "x.tar:a.png"),
    ),
    Trouble(
        "two images and one caption of a key",
        lambda: shard(("d/a.png", image(1)), ("d/a.png", image(2)), ("d/a.txt", "one")),
        None,
        ("x.tar", "key 'd/a'", UNTOLD),
    ),
    Trouble(
        "two images, then two captions of a key",
        lambda: shard(("a.png", image(1)), ("a.png", image(2)), ("a.txt", "one"), ("a.txt", "two")),
        None,
        ("x.tar", "key 'a'", UNTOLD),
    ),
    Trouble(
        "a key twice in a shard that is sorted by kind",
        lambda: shard(
            ("a.png", image(1)), ("b.png", image(2)), ("a.png", image(3)),
            ("a.txt", "one"), ("b.txt", "two"), ("a.txt", "three"),
        ),
        None,
        ("x.tar", "key 'a'", UNTOLD),
    ),
    Trouble(
        "one example with two images",
        lambda: shard(("a.jpg", image(200, "JPEG")), ("a.png", image(1)), ("a.txt", "one")),
        [(200, "one")],
        ("1 beside another image of the same name: ", "x.tar:a.png"),
    ),
    *(
        Trouble(
            f"names that are no UTF-8, as {form} has them",
            lambda form=form: shard(
                (b"caf\xe8.png", image(1)), (b"caf\xe8.txt", "one"), (b"caf\xe9.png", image(2)),
                (b"caf\xe9.txt", "two"), (b"caf\xea.png", image(3)), form=getattr(tarfile, f"{form}_FORMAT"),
            ),
            [(1, "one"), (2, "two")],
            (r"x.tar:caf\xea.png",),
        )
        for form in ("USTAR", "GNU", "PAX")
    ),
    Trouble(
        "long names that are no UTF-8",
        lambda: shard(*((b"n" * 200 + name, content) for name, content in (
            (b"\xe8.png", image(1)), (b"\xe8.txt", "one"), (b"\xe9.png", image(2)), (b"\xe9.txt", "two")
        ))),
        [(1, "one"), (2, "two")],
    ),
    Trouble(
        "a caption of several lines",
        lambda: shard(("a.png", image(1)), ("a.txt", " one\n two\r\n\nthree \n")),
        [(1, "one\n two\r\n\nthree")],
        ("captions of several lines: 1", "?captions=lines"),
    ),
    Trouble(
        "a caption with other line ends",
        lambda: shard(("a.png", image(1)), ("a.txt", "one\u2028two\vthree\x85four\x1cfive")),
        [(1, "one\u2028two\vthree\x85four\x1cfive")],
    ),
    Trouble(
        "captions by lines",
        lambda: shard(("a.png", image(1)), ("a.txt", "one\u2028still\vone\r\n\n two\n")),
        [(1, "one\u2028still\vone"), (1, "two")],
        options="?captions=lines",
    ),
    Trouble(
        "captions by something else",
        lambda: shard(*pairs(1)),
        None,
        ("captions=all", "expected one", "lines"),
        options="?captions=all",
    ),
    *(
        Trouble(
            f"a caption in {encoding} that says so",
            lambda encoding=encoding: shard(("a.png", image(1)), ("a.txt", "\ufeffé 猫".encode(encoding))),
            [(1, "é 猫")],
        )
        for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
    ),
    *(
        Trouble(
            f"a caption in {encoding}",
            lambda encoding=encoding, text=text: shard(
                *pairs(10), ("a.png", image(99)), ("a.txt", text.encode(encoding))
            ),
            TEN,
            ("1 with a caption that is no UTF-8: ", "x.tar:a.txt"),
        )
        for encoding, text in (("latin-1", "café"), ("shift-jis", "猫の写真"), ("utf-16-le", "cat"))
    ),
    Trouble(
        "many captions that are no UTF-8",
        lambda: shard(
            *pairs(200),
            *(m for i in range(4) for m in ((f"q{i}.png", image(i)), (f"q{i}.txt", b"\xe9"))),
        ),
        None,
        ("4 of 204 captions are no UTF-8", "x.tar:q3.txt"),
    ),
    Trouble(
        "links in a shard",
        lambda: shard(
            *pairs(1), ("b.png", ("hard", "p000.png")), ("b.txt", "linked"),
            ("d/c.png", ("symbolic", "../e.png")), ("d/c.txt", ("hard", "b.txt")),
            ("e.png", image(7)), ("e.txt", "target"),
        ),
        [(0, "sound 0"), (0, "linked"), (7, "linked"), (7, "target")],
    ),
    Trouble(
        "links to nothing in a shard",
        lambda: shard(
            *pairs(10), ("b.png", ("hard", "none.png")), ("b.txt", "b"),
            ("c.png", ("symbolic", "/data/c.png")), ("e.png", ("symbolic", "e.png")),
        ),
        TEN,
        ("3 linked to no file in the tar file: ", "x.tar:b.png", "1 without an image: "),
    ),
    Trouble(
        "images of other formats",
        lambda: shard(*(
            member
            for i, form in enumerate(("WEBP", "GIF", "BMP", "TIFF"))
            for member in ((f"{i}.{form.lower()}", image(i * 60, form)), (f"{i}.txt", form))
        )),
        [(0, "WEBP"), (60, "GIF"), (120, "BMP"), (180, "TIFF")],
    ),
    Trouble(
        "what else is in a shard",
        lambda: shard(
            *pairs(10), ("p000.json", "{}"), ("p001.json", "{}"), ("q.png", image(1)), ("r.txt", "no image"),
            ("s.png", image(1)), ("s.txt", " \n"), ("t.heic", b"?"), ("t.txt", "?"), ("notes.md", "?"),
        ),
        TEN,
        (
            "1 without a caption: ", "x.tar:q.png", "2 without an image: ", "x.tar:r.txt, ",
            "1 with an empty caption: ", "x.tar:s.txt", "1 with the ending .heic: ",
            "1 with the ending .md: ", "not read, beside their images: 2 with the ending .json",
        ),
    ),
    Trouble(
        "what systems leave in a shard",
        lambda: shard(
            *((f"./{name}", content) for name, content in pairs(10)), ("./._p000.png", b"?"),
            ("./._p000.txt", "?"), ("__MACOSX/p000.png", b"?"), ("__MACOSX/p000.txt", b"?"),
            ("d/.DS_Store", b"?"), ("Thumbs.db", b"?"), ("__meta__/info.json", "{}"),
        ),
        TEN,
        silent=("left out", "not read", "MACOSX", "db", "meta"),
    ),
    *(
        Trouble(
            f"a shard packed with {kind}",
            lambda pack=pack: pack(shard(*pairs(2))),
            None,
            ("x.tar: compressed: unpack it, or ", kind),
        )
        for kind, pack in (
            ("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress), ("zstd", lambda _: ZSTD)
        )
    ),
    Trouble(
        "shards joined by cat",
        lambda: shard(*pairs(10)) + shard(*pairs(3)),
        TEN,
        ("1 with more behind its end", "x.tar"),
    ),
]  # fmt: skip


def account(source):
    """What a source says of itself, as far as it can."""
    left_out = getattr(source, "left_out", None)
    return "\n".join([*left_out.lines(), *left_out.remarks]) if left_out else ""


def check(trouble, spec):
    """Opens a source, and compares it with what is right."""
    if trouble.holds is None:
        with pytest.raises(DataError) as refused:
            open_source(spec, "train")
        said = str(refused.value)
        assert "\n" not in said
    else:
        source = open_source(spec, "train")
        batch = source.batch(np.arange(source.num_examples))
        reds = batch["image"][:, 0, 0, 0].astype(int)
        found = list(zip(reds.tolist(), batch["caption"].tolist(), strict=True))
        assert [caption for _, caption in found] == [caption for _, caption in trouble.holds]
        # Two of the formats keep colours only nearly.
        np.testing.assert_allclose(reds, [red for red, _ in trouble.holds], atol=2)
        said = account(source)
    for part in trouble.says:
        assert part in said
    for part in trouble.silent:
        assert part not in said


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_pairs_belong_together(trouble, tmp_path):
    (tmp_path / "x.tar").write_bytes(trouble.content())
    check(trouble, f"tar:{tmp_path}/x.tar{trouble.options}")


FOLDERS = [
    Trouble(
        "a caption of several lines in a folder",
        lambda: {"a.png": image(1), "a.txt": "one\ntwo\u2028three\x85four\n"},
        [(1, "one\ntwo\u2028three\x85four")],
        ("captions of several lines: 1",),
    ),
    Trouble(
        "captions by lines in a folder",
        lambda: {"a.png": image(1), "a.txt": "one\u2028still one\r\n\n two\n"},
        [(1, "one\u2028still one"), (1, "two")],
        options="?captions=lines",
    ),
    Trouble(
        "captions of other encodings in a folder",
        lambda: {
            "a.png": image(1), "a.txt": "é".encode("utf-16"),
            "b/b.png": image(2), "b/b.txt": "é".encode("latin-1"),
        },
        [(1, "é")],
        ("1 with a caption that is no UTF-8: b/b.txt",),
    ),
    Trouble(
        "many captions of other encodings in a folder",
        lambda: {f"{i}.png": image(i) for i in range(4)} | {f"{i}.txt": b"\xe9" for i in range(4)},
        None,
        ("4 of 4 captions are no UTF-8", "3.txt"),
    ),
    Trouble(
        "what else is in a folder of pairs",
        lambda: {
            "a.png": image(1), "a.txt": "one", "a.json": "{}", "b.png": image(2), "c.txt": "no image",
            "d.png": image(4), "d.txt": " ", "e.mp4": "?", "Thumbs.db": "?", "._a.png": "?",
        },
        [(1, "one")],
        (
            "1 without a caption: b.png", "1 without an image: c.txt", "1 with an empty caption: d.txt",
            "1 with the ending .mp4: e.mp4", "not read, beside their images: 1 with the ending .json",
        ),
        silent=("db", "._a"),
    ),
    Trouble(
        "one name for two images in a folder",
        lambda: {"a.png": image(1), "a.jpg": image(200, "JPEG"), "a.txt": "one"},
        [(200, "one")],
        ("1 beside another image of the same name: a.png",),
    ),
]  # fmt: skip


@pytest.mark.parametrize("trouble", FOLDERS, ids=lambda trouble: trouble.name)
def test_pairs_belong_together_in_folders(trouble, tmp_path):
    for name, content in trouble.content().items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    check(trouble, f"captioned_folder:{tmp_path}{trouble.options}")


def prepared(tmp_path, **fields):
    """The first lines of a run of the smallest models."""
    config = image_text.get_config()
    small = {
        "learner.model": "vit_mu_1_1",
        "learner.text_model": "text_mu_1_1",
        "scorer.text_model": "text_mu_1_1",
        "patch_size": 4,
    }
    with config.unlocked():
        config.update_from_flattened_dict({**small, **fields})
    run_of_it = run.prepare(resolution.resolve(config.to_dict()), tmp_path / "run", "processes")
    return list(getattr(run_of_it, "first_lines", ()))


def test_a_run_says_what_was_found_of_each_data_set_and_what_not(tmp_path):
    (tmp_path / "train.tar").write_bytes(shard(*pairs(10), ("q.png", image(1)), ("p000.json", "{}")))
    (tmp_path / "eval.tar").write_bytes(shard(*pairs(8), ("r.txt", "no image"), ("p000.json", "{}")))
    train, evaluation = (f"tar:{tmp_path}/{name}.tar?size=8" for name in ("train", "eval"))
    lines = prepared(tmp_path, train_data=train, eval_data=evaluation, batch_size=4)
    found = lines.index(f"trains on {train}: 10 pairs, 8×8×3")
    assert lines[found + 1 : found + 4] == [
        "  resized from 6×4: 10 of 10 files that were opened",
        f"  left out: 1 without a caption: {tmp_path}/train.tar:q.png",
        "  not read, beside their images: 1 with the ending .json",
    ]
    found = lines.index(f"measures on {evaluation}: 8 pairs, 8×8×3")
    assert lines[found + 1 : found + 4] == [
        "  resized from 6×4: 8 of 8 files that were opened",
        f"  left out: 1 without an image: {tmp_path}/eval.tar:r.txt",
        "  not read, beside their images: 1 with the ending .json",
    ]


def test_recalls_among_one_image_are_warned_of(tmp_path):
    (tmp_path / "few.tar").write_bytes(shard(*pairs(3)))
    lines = prepared(tmp_path, train_data=f"tar:{tmp_path}/few.tar?size=8", batch_size=2)
    assert any("warning: " in line and "one image is always right" in line for line in lines)
