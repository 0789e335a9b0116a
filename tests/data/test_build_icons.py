import json

import numpy as np
import pytest

from classact.data import build_icons
from classact.data.build_icons import (
    Icon,
    distinct,
    families,
    hold_out,
    most_frequent,
    normalise,
    shared_names,
    usable_sets,
    write,
)
from classact.data.embedded_icons import IconSource, read_names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clipboard-list-outline-regular", "clipboard-list"),
        ("arrow-left-20-filled", "arrow-left"),
        ("home-24px", "home"),
        ("Bookmark-Two-Tone", "bookmark"),
        ("line-chart", "chart"),
        ("solid", ""),
        ("mic-off", "mic-off"),
    ],
)
def test_normalise_drops_words_of_style_and_size(name, expected):
    assert normalise(name) == expected


def drawing(seed):
    """A random picture of 4×4 blocks, so that different seeds differ at half resolution."""
    blocks = np.random.default_rng(seed).integers(0, 16, (8, 8), np.uint8) * 17
    return np.repeat(np.repeat(blocks, 4, 0), 4, 1)[..., None].repeat(3, -1)


def icons_of(prefix, seeds):
    return [
        Icon(f"name{number}", prefix, drawing(seed), f"name{number}-{seed}")
        for number, seed in enumerate(seeds)
    ]


def test_families_join_authors_and_shared_drawings():
    icons = [
        *icons_of("a", range(0, 10)),
        *icons_of("b", range(40, 60)),
        *icons_of("c", [0, 1, *range(20, 28)]),  # Two of ten drawings are a's.
        *icons_of("d", [40, *range(70, 89)]),  # Only one of twenty is b's.
    ]
    family = families(icons, {"a": "Ann", "b": "Bob", "c": "Cid", "d": "Bob"})
    assert family["a"] == family["c"]
    assert family["b"] == family["d"]
    assert family["a"] != family["b"]
    assert len(set(families(icons, dict(zip("abcd", "wxyz", strict=True))).values())) == 3


def test_hold_out_takes_whole_families_up_to_the_share():
    icons = [icon for number in range(40) for icon in icons_of(f"s{number:02d}", range(5))]
    icons += icons_of("giant", range(100))
    family = {icon.icon_set: icon.icon_set for icon in icons}
    family |= {f"s{number:02d}": f"s{number // 2 * 2:02d}" for number in range(40)}
    held_out = hold_out(icons, family)
    assert "giant" not in held_out
    for number in range(0, 40, 2):
        assert (f"s{number:02d}" in held_out) == (f"s{number + 1:02d}" in held_out)
    share = sum(icon.icon_set in held_out for icon in icons) / len(icons)
    assert 0.1 < share <= build_icons.EVAL_SHARE


def test_distinct_keeps_the_first_of_equal_icons_in_a_class():
    first, same = Icon("x", "a", drawing(0), "x-1"), Icon("x", "b", drawing(0), "x-2")
    other_class, other_pixels = Icon("y", "b", drawing(0), "y"), Icon("x", "b", drawing(1), "x")
    assert distinct([first, same, other_class, other_pixels]) == [first, other_class, other_pixels]


def info(spdx="MIT", **more):
    return {"name": "Set", "author": {"name": "Ann"}, "license": {"spdx": spdx, "url": "there"}, **more}


@pytest.fixture
def iconify(tmp_path, monkeypatch):
    """A package of three usable sets, that share one name, and of four that may not be used."""
    monkeypatch.setattr(build_icons, "MIN_SETS", 2)
    monkeypatch.setattr(build_icons, "MIN_TRAIN", 1)
    monkeypatch.setattr(build_icons, "MIN_EVAL", 1)
    body = {"body": "<path d=''/>"}
    sets = {
        "a": {"home": body, "home-bold": body, "bell": body, "tree": body},
        "b": {
            "home-24": body,
            "bell-outline": body,
            "man-light-skin-tone": body,
            "key": {**body, "hidden": True},
        },
        "c": {"key": body, "man-dark-skin-tone": body, "bell": body, "bold": body},
        "nc": {"home": body, "key": body},
    }
    (tmp_path / "json").mkdir()
    for prefix, icons in sets.items():
        (tmp_path / f"json/{prefix}.json").write_text(json.dumps({"prefix": prefix, "icons": icons}))
    infos = {
        **{prefix: info() for prefix in "abc"},
        "nc": info("CC-BY-NC-4.0"),
        "gpl": info("GPL-3.0"),
        "fa-brands": info(),
        "logos": info(category="Logos"),
    }
    (tmp_path / "collections.json").write_text(json.dumps(infos))
    return tmp_path


def test_sets_and_names_are_chosen_by_licence_and_frequency(iconify, monkeypatch):
    infos = usable_sets(iconify)
    assert list(infos) == ["a", "b", "c"]
    # `home` has three icons too, but of one set less; `key` of set b is hidden.
    assert shared_names(iconify, infos) == ["bell", "home"]
    monkeypatch.setattr(build_icons, "MIN_SETS", 3)
    assert shared_names(iconify, infos) == ["bell"]


def test_classes_need_enough_icons_in_both_splits(monkeypatch):
    monkeypatch.setattr(build_icons, "MIN_TRAIN", 2)
    monkeypatch.setattr(build_icons, "MIN_EVAL", 1)
    counts = {"x": (2, 1), "y": (3, 2), "z": (9, 0), "w": (1, 9)}
    icons = [
        Icon(name, icon_set, drawing(0), name)
        for name, (train, held_out) in counts.items()
        for icon_set in ["t"] * train + ["e"] * held_out
    ]
    assert {icon.name for icon in most_frequent(icons, {"e"}, 5)} == {"x", "y"}
    assert len(most_frequent(icons, {"e"}, 1)) == 5


def test_what_is_written_is_read_back(tmp_path):
    red = drawing(7)
    red[..., 0] = 255
    icons = [*icons_of("a", range(70)), Icon("name0", "a", red, "name0-red"), *icons_of("b", range(100, 103))]
    write(icons, {"b"}, {"a": info(), "b": info("ISC")}, tmp_path)
    train, evaluation = IconSource("train", folder=tmp_path), IconSource("eval", folder=tmp_path)
    assert (train.num_examples, evaluation.num_examples) == (71, 3)
    assert train.class_names[:3] == ("name0", "name1", "name2")
    batch = train.batch(np.arange(71))
    names = [train.class_names[label] for label in batch["label"]]
    assert names == [f"name{number}" for number in range(70)] + ["name0"]
    np.testing.assert_array_equal(batch["image"], [icon.pixels for icon in icons[:71]])
    held_out = evaluation.batch(np.array([2]))
    assert held_out["id"].tolist() == [73]
    np.testing.assert_array_equal(held_out["image"][0], drawing(102))
    full_names = read_names(tmp_path)
    assert [full_names[icon] for icon in (0, 70, 73)] == ["name0-0", "name0-red", "name2-102"]
    licences = (tmp_path / "LICENSES.md").read_text()
    assert "| `b` | Set | Ann | [ISC](there) | 3 | eval |" in licences


def test_too_much_to_ship_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(build_icons, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match=r"at most 100 may be shipped: take fewer --classes"):
        write(icons_of("a", range(3)), set(), {"a": info()}, tmp_path)
