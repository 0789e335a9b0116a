import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data.left_out import LeftOut
from classact.data.pairing import pair_up
from classact.data.source import DataError


def paired(*names):
    """The pairs by number, and what is left out as (reason, names)."""
    left_out = LeftOut()
    pairs, beside = pair_up(names, "x.tar", left_out, names.__getitem__)
    return pairs, {reason: found for reason, _, found in left_out}, dict(beside)


def test_pairs_are_by_name_whatever_their_order():
    assert paired("a.png", "a.txt", "b.txt", "b.JPG") == ([(0, 1), (3, 2)], {}, {})
    assert paired("a.png", "b.png", "b.txt", "a.txt")[0] == [(0, 3), (1, 2)]
    assert paired("d/a.png", "a.txt", "d.e/a.png", "d/a.txt")[0] == [(0, 3)]


def test_a_name_with_dots_is_whole():
    assert paired("a.v1.png", "a.v2.png", "a.v1.txt", "a.v2.txt")[0] == [(0, 2), (1, 3)]
    # In one example of WebDataset; the thumbnail has no caption of its own.
    assert paired("a.jpg", "a.thumb.jpg", "a.txt", "a.meta.json") == (
        [(0, 2)], {"without a caption": ("a.thumb.jpg",)}, {"with the ending .json": 1},
    )  # fmt: skip


def test_a_name_that_comes_again_is_a_new_example():
    assert paired("a.png", "a.txt", "b.png", "b.txt", "a.txt", "a.png")[0] == [(0, 1), (2, 3), (5, 4)]
    assert paired("a.png", "a.txt", "a.png", "a.txt")[0] == [(0, 1), (2, 3)]
    # Other files are no reason not to tell, and other keys end an example.
    assert paired("a.png", "a.json", "a.txt", "a.png", "a.txt") == (
        [(0, 2), (3, 4)], {}, {"with the ending .json": 1},
    )  # fmt: skip
    assert paired("a.v1.png", "a.v1.txt", "a.v2.png", "a.v2.txt", "b.png", "a.v1.png", "a.v1.txt")[0] == [
        (0, 1), (2, 3), (5, 6),
    ]  # fmt: skip
    # Here one lacks its caption.
    assert paired("a.png", "b.png", "a.png", "a.txt") == (
        [(2, 3)],
        {"without a caption": ("a.png", "b.png")},
        {},
    )


@pytest.mark.parametrize(
    "names",
    [
        "a.png a.png a.txt",
        "a.png a.txt a.txt",
        "a.png a.png a.txt a.txt",
        "a.png a.txt a.txt a.png",
        "a.PNG a.png a.txt",
        "a.png b.png a.png a.txt b.txt a.txt b.txt",
        "a.png b.png a.png b.txt a.txt",
    ],
)
def test_what_cannot_be_told_names_shard_and_key(names):
    with pytest.raises(DataError, match=r"x\.tar: key '[ab]' .* cannot be told"):
        paired(*names.split())


def test_keys_are_printed_as_one_line():
    with pytest.raises(DataError) as refused:
        paired("\udce9\n.png", "\udce9\n.png", "\udce9\n.txt")
    assert r"key '\xe9\n'" in str(refused.value) and str(refused.value).isprintable()


def test_of_several_images_of_one_name_open_clips_first_is_taken():
    assert paired("a.png", "a.jpg", "a.txt") == (
        [(1, 2)],
        {"beside another image of the same name": ("a.png",)},
        {},
    )
    # By kind, so that no name is there twice.
    assert paired("a.png", "b.png", "a.jpg", "a.txt", "b.txt")[0] == [(1, 4), (2, 3)]
    # The caption is that of its neighbour.
    assert paired("a.jpg", "b.jpg", "b.txt", "a.png", "a.txt")[0] == [(1, 2), (3, 4)]


def test_what_is_no_data_is_passed_over_in_silence():
    names = (
        "._a.png",
        "._a.txt",
        ".d/a.png",
        ".d/a.txt",
        "__MACOSX/a.png",
        "__MACOSX/a.txt",
        "__meta__",
        "__x__/a.png",
    )
    assert paired(*names) == ([], {}, {})
    # These are no hidden names.
    assert paired("./a.png", "./a.txt", "../b.png", "../b.txt")[0] == [(0, 1), (2, 3)]


def test_other_files_are_counted_by_ending_unless_they_belong_to_an_example():
    # Of an image without a caption, too: it is counted itself.
    assert paired("d.png", "d.cls")[1:] == ({"without a caption": ("d.png",)}, {"with the ending .cls": 1})
    assert paired("a.png", "a.txt", "a.cls", "b.cls", "c.mp4", "README", "x.0001") == (
        [(0, 1)],
        {
            "with the ending .cls": ("b.cls",), "with the ending .mp4": ("c.mp4",),
            "without an ending": ("README",), "with another ending": ("x.0001",),
        },
        {"with the ending .cls": 1},
    )  # fmt: skip


@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_examples_that_are_written_one_by_one_are_all_found(keys):
    names = [f"{key}.{suffix}" for key in keys for suffix in ("png", "txt")]
    assert paired(*names)[0] == [(number, number + 1) for number in range(0, len(names), 2)]
