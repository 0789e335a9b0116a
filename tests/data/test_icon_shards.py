import json

import numpy as np
import pytest

from classact.data import icon_shards
from classact.data.embedded_icons import GROUPS, read_index
from classact.data.icon_shards import build, icon_pairs, split_sets
from classact.data.source import DataError
from classact.data.specs import open_source
from classact.data.tar_members import members_of

EMBEDDED = read_index()


def embedded_set(split):
    """The prefix of an embedded set of this split."""
    group = next(group for group in GROUPS if group.startswith(split))
    return str(EMBEDDED["icon_sets"][EMBEDDED[f"{group}/icon_set"][0]])


TRAIN, EVAL = embedded_set("train"), embedded_set("eval")


def body(number, colour="#000"):
    """A bar whose place is the number."""
    return {"body": f'<path fill="{colour}" d="M{number} 2h2v9h-2z"/>'}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """An iconify package of two embedded sets, one by the held-out set's author, and emoji."""
    monkeypatch.setattr(icon_shards, "CLEAN_SETS", 2)
    monkeypatch.setattr(icon_shards, "EMOJI_SETS", {"emo": "train", "jis": "eval"})
    iconify, emojibase = tmp_path / "iconify", tmp_path / "emojibase"
    sets = {
        TRAIN: {
            "home-outline": body(1), "bell": body(2), "same-bell": body(2), "blank": {"body": ""},
            "taken": body(9), "broken": {"body": "<path"}, "red": body(3, "red"),
        },
        EVAL: {"home": body(5), "taken": body(9), "bell-bold": body(6)},
        "kin": {"own": body(7)},
        "emo": {"grin": body(8, "blue"), "other": body(4)},
        "jis": {"grinning": body(10, "blue")},
    }  # fmt: skip
    (iconify / "json").mkdir(parents=True)
    for prefix, icons in sets.items():
        chars = {"emo": {"1f600-fe0f": "grin", "1f999": "other"}, "jis": {"1f600": "grinning"}}
        data = {"prefix": prefix, "icons": icons, "chars": chars.get(prefix, {})}
        (iconify / f"json/{prefix}.json").write_text(json.dumps(data))
    authors = {TRAIN: "Ann", EVAL: "Bob", "kin": "Bob", "emo": "Cid", "jis": "Dan"}
    infos = {
        prefix: {
            "name": prefix.upper(),
            "author": {"name": authors[prefix]},
            "license": {"title": "MIT Licence", **({} if prefix == "kin" else {"spdx": "MIT"})},
            "category": "Emoji" if prefix in ("emo", "jis") else "Thematic",
        }
        for prefix in sets
    }
    (iconify / "collections.json").write_text(json.dumps(infos))
    (iconify / "package.json").write_text('{"version": "1"}')
    (emojibase / "en").mkdir(parents=True)
    (emojibase / "package.json").write_text('{"version": "2"}')
    emoji = [{"hexcode": "1F600", "label": "grinning face", "tags": ["grin", "happy"]}]
    (emojibase / "en/data.json").write_text(json.dumps(emoji))
    return iconify, emojibase


def captions(out, kind, split):
    source = open_source(f"tar:{out}/{kind}/{split}-*.tar?captions=lines", split)
    return source.caption_at(np.arange(source.num_examples))


def test_the_shards_hold_the_pairs_of_their_kind_and_split(tmp_path, packages):
    out = tmp_path / "out"
    counts = build(out, *packages)
    # Blank and broken icons, and one that the held-out set has too, are left out.
    assert captions(out, "noisy", "train") == ["home outline", "bell", "same bell", "red"]
    assert captions(out, "noisy", "eval") == ["home", "taken", "bell bold", "own"]
    assert captions(out, "clean", "train") == ["home", "bell", "grinning face", "grin, happy"]
    assert captions(out, "clean", "eval") == ["home", "taken", "bell", "grinning face", "grin, happy"]
    assert counts == {"noisy/train": 4, "noisy/eval": 4, "clean/train": 3, "clean/eval": 4}
    source = open_source(f"tar:{out}/clean/train-*.tar?captions=lines", "train")
    assert source.image_shape == (32, 32, 3) and source.image_of.tolist() == [0, 1, 2, 2]
    blue = source.batch(np.array([3]))["image"][0]
    assert blue[10, 17].tolist() == [0, 0, 255] and blue[0, 0].tolist() == [255, 255, 255]


def test_sets_are_listed_with_licence_split_and_counts(tmp_path, packages):
    build(tmp_path / "out", *packages)
    sets = json.loads((tmp_path / "out/sets.json").read_text())
    assert {prefix: entry["split"] for prefix, entry in sets.items()} == {
        TRAIN: "train", EVAL: "eval", "kin": "eval", "emo": "train", "jis": "eval",
    }  # fmt: skip
    assert sets[TRAIN]["license"]["spdx"] == "MIT" and sets[TRAIN]["author"] == {"name": "Ann"}
    assert (sets[TRAIN]["noisy"], sets[TRAIN]["clean"]) == (4, 2)
    licences = (tmp_path / "out/LICENSES.md").read_text()
    assert "| `kin` | KIN | Bob | MIT Licence | 1 | eval |" in licences
    assert "| `emo` | EMO | Cid | MIT | 1 | train |" in licences


def test_an_interrupted_build_goes_on_and_keeps_what_is_finished(tmp_path, packages, monkeypatch):
    monkeypatch.setattr(icon_shards, "SHARD_ICONS", 2)
    whole, out = tmp_path / "whole", tmp_path / "out"
    build(whole, *packages)
    drawn = []
    draw = icon_shards.rasterise

    def interrupted(svg, size):
        drawn.append(svg)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return draw(svg, size)

    monkeypatch.setattr(icon_shards, "rasterise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(out, *packages)
    finished = sorted(path.name for path in out.glob("*/*.tar"))
    assert finished == ["train-00000.tar", "train-00000.tar"]
    (out / "noisy/train-00001.tar.part").write_bytes(b"half")
    build(out, *packages)
    # The first shard was not drawn again.
    assert drawn[0] not in drawn[4:]
    for path in whole.rglob("*"):
        if path.is_file():
            assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_shards_of_another_size_are_not_mixed(tmp_path, packages):
    build(tmp_path / "out", *packages, size=16)
    assert open_source(f"tar:{tmp_path}/out/noisy/train-*.tar", "train").image_shape == (16, 16, 3)
    with pytest.raises(DataError, match="build in another folder"):
        build(tmp_path / "out", *packages)


def test_sets_are_held_out_with_their_authors_and_drawings():
    def drawings(*digests):
        return [icon_shards._Drawing(f"n{digest}", bytes([digest])) for digest in digests]

    sets = {
        TRAIN: drawings(1, 2),
        EVAL: drawings(*range(10, 20)),
        "copy": drawings(10, *range(30, 34)),
        "kin-of-copy": drawings(50),
        "one-of-many": drawings(19, *range(60, 80)),
    }
    authors = {TRAIN: "Ann", EVAL: "Bob", "copy": "Cid", "kin-of-copy": "Cid", "one-of-many": "Eve"}
    splits = split_sets(sets, authors)
    assert {prefix for prefix, split in splits.items() if split == "eval"} == {EVAL, "copy", "kin-of-copy"}
    # The drawing that it shares with a held-out set is not trained on.
    trained = [pair.name for pair in icon_pairs(sets, splits, "train") if pair.icon_set == "one-of-many"]
    assert trained == [f"n{digest}" for digest in range(60, 80)]


def test_a_drawing_has_a_caption_once(monkeypatch):
    monkeypatch.setattr(icon_shards, "CLEAN_SETS", 2)
    sets = {
        prefix: [icon_shards._Drawing(name, b"1") for name in ("bell", "bell-bold")] for prefix in ("a", "b")
    }
    pairs = icon_pairs(sets, {"a": "train", "b": "train"}, "train")
    assert [(pair.icon_set, pair.noisy, pair.clean) for pair in pairs] == [
        ("a", ("bell",), ("bell",)),
        ("a", ("bell bold",), ()),
    ]


def test_shards_have_plain_names(tmp_path, packages):
    build(tmp_path / "out", *packages)
    names = [member.name for member in members_of(tmp_path / "out/noisy/eval-00000.tar")]
    assert names[:2] == [f"{EVAL}/home.png", f"{EVAL}/home.txt"]


def test_missing_packages_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"is no unpacked npm package: it has no package\.json"):
        build(tmp_path / "out", tmp_path, tmp_path)
