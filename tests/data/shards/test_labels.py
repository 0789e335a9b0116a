import json

import numpy as np
import pytest
from shards_made import png, read_all, reds, write_shard, write_tar

from classact.data import classes
from classact.data.eval_split import eval_indices
from classact.data.fingerprint import fingerprint
from classact.data.source import DataError
from classact.data.specs import open_source


def open_train(path, options=""):
    return open_source(f"tar:{path}{options}", "train")


def test_numbers_in_cls_members_are_labels(tmp_path):
    path = write_shard(tmp_path / "a.tar", range(6), text=lambda v: f" {v % 3}\n")
    source = open_train(path)
    assert not source.captioned and not source.has_splits
    assert (source.num_classes, source.class_names, source.image_shape) == (3, None, (4, 6, 3))
    batch = read_all(source)
    assert batch["label"].tolist() == [0, 1, 2, 0, 1, 2] == source.label_of.tolist()
    assert batch["label"].dtype == np.int32 and batch.keys() == {"id", "image", "label"}
    assert reds(source) == list(range(6))
    with pytest.raises(DataError, match="has no captions"):
        source.caption_at(np.arange(1))


def test_names_are_labels_in_their_order_or_that_of_a_file(tmp_path):
    path = write_shard(tmp_path / "a.tar", range(4), text=lambda v: ("wasp", "ant")[v % 2])
    source = open_train(path)
    assert source.class_names == ("ant", "wasp") and read_all(source)["label"].tolist() == [1, 0, 1, 0]
    (tmp_path / "names.txt").write_text("bee\nwasp\nant\n\n")
    named = open_train(path, "?classes=names.txt")
    assert named.class_names == ("bee", "wasp", "ant")
    assert read_all(named)["label"].tolist() == [1, 2, 1, 2] == named.label_of.tolist()
    # One data set, whatever file says its order.
    assert fingerprint(named).digest == fingerprint(source).digest
    mapped = classes.in_order_of(source, classes.of_source(named), "the run")
    assert read_all(mapped)["label"].tolist() == [1, 2, 1, 2]
    (tmp_path / "names.txt").write_text("ant\n")
    with pytest.raises(DataError, match=r"class 'wasp' of its labels is not among the 1 classes of .*names"):
        open_train(path, f"?classes={tmp_path}/names.txt")


def test_numbers_have_the_names_of_a_file(tmp_path):
    path = write_shard(tmp_path / "a.tar", range(3))
    (tmp_path / "names.txt").write_text("ant\nbee\nwasp\nfly\n")
    assert open_train(path, "?classes=names.txt").class_names == ("ant", "bee", "wasp", "fly")
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match="cannot be read"):
        open_train(path, "?classes=nowhere.txt")
    assert open_train(path, "?classes=7").num_classes == 7
    with pytest.raises(DataError, match=r"a\.tar:0002\.png has label 2, expected 0 to 1 of .*names\.txt"):
        open_train(path, "?classes=names.txt")


def test_labels_and_captions_of_json(tmp_path):
    path = write_shard(
        tmp_path / "a.tar",
        range(4),
        "json",
        lambda v: json.dumps(
            {"label": v % 2, "deep": {"name": "ab"[v % 2]}, "caption": f"c{v}", "all": ["x", "y"]}
        ),
    )
    assert read_all(open_train(path, "?label=label"))["label"].tolist() == [0, 1, 0, 1]
    assert open_train(path, "?label=deep.name").class_names == ("a", "b")
    assert read_all(open_train(path, "?caption=caption"))["caption"].tolist() == ["c0", "c1", "c2", "c3"]
    several = open_train(path, "?caption=all")
    assert read_all(several)["caption"].tolist() == ["x", "y"] * 4
    assert several.image_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and reds(several)[:4] == [0, 0, 1, 1]
    with pytest.raises(DataError, match=r"4 without 'text' in the \.json: .*a\.tar:0000\.json"):
        open_train(path, "?caption=text")
    with pytest.raises(DataError, match=r"and with \?caption=KEY what NAME\.json has there"):
        open_train(path)
    with pytest.raises(DataError, match=r"4 of 4 captions are no JSON with texts under 'label', expected"):
        open_train(path, "?caption=label")


def test_what_is_read_of_shards_that_have_both(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        [
            m
            for v in range(4)
            for m in ((f"{v}.png", png(v)), (f"{v}.txt", f"t{v}"), (f"{v}.cls", str(v % 2)))
        ],
    )
    assert open_train(path).captioned and not open_train(path).num_classes
    labelled = open_train(path, "?label=cls")
    assert labelled.num_classes == 2 and "not read, beside their images: 4 with the ending .txt" in str(
        labelled.left_out.remarks
    )
    for options, said in (
        ("?label=cls&caption=txt", "expected one of them"),
        ("?label=cls&captions=lines", "captions=lines is for captions"),
        ("?classes=x", "classes=x is for labels"),
        ("?label=", "label= is empty"),
        ("?order=fast", "order=fast, expected iid or shards"),
        ("?buffer=9", "buffer=9 is for order=shards"),
        ("?order=shards&buffer=0", "buffer=0"),
    ):
        with pytest.raises(DataError, match=said):
            open_train(path, options)


@pytest.mark.parametrize("label", ["-2", "", " \n", "3.5\0", b"\xff", str(1 << 40)])
def test_labels_that_are_none_are_left_out(tmp_path, label):
    members = [m for v in range(9) for m in ((f"{v}.png", png(v)), (f"{v}.cls", str(v % 2)))]
    path = write_tar(tmp_path / "a.tar", [*members, ("x.png", png(99)), ("x.cls", label)])
    source = open_train(path)
    assert reds(source) == list(range(9))
    assert ("with a label that is none", 1, (f"{path}:x.cls",)) in list(source.left_out)
    # All of them are too many.
    with pytest.raises(DataError, match=r"1 of 1 labels are none, .*b\.tar:x\.cls"):
        open_train(write_tar(tmp_path / "b.tar", [("x.png", png(99)), ("x.cls", label)]))


def test_an_image_labelled_minus_one_has_no_label(tmp_path):
    path = write_shard(tmp_path / "a.tar", range(8), text=lambda v: str(v % 2 - (v > 5)))
    source = open_train(path)
    assert source.label_of.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert ("labelled -1", 1, (f"{path}:0006.cls",)) in list(source.left_out)


def test_the_share_that_may_be_damaged_is_an_option(tmp_path):
    members = [m for v in range(40) for m in ((f"{v}.png", png(v)), (f"{v}.cls", str(v % 2)))]
    members[:10] = [(name, content if "cls" in name else b"none") for name, content in members[:10]]
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"images are damaged|that were opened"):
        read_all(open_train(path))
    source = open_train(path, "?damaged=0.2")
    assert reds(source) == list(range(5, 40)) and source.accepted_damage == 0.2
    assert source.damage.total() == 5 and source.sizes == {(6, 4): 35}
    with pytest.raises(DataError, match="damaged=2"):
        open_train(path, "?damaged=2")


def test_numbers_and_names_are_not_mixed(tmp_path):
    path = write_shard(tmp_path / "a.tar", range(4), text=lambda v: "ant" if v == 2 else str(v))
    with pytest.raises(DataError, match=r"numbers and names: .*0000\.cls has 0, .*0002\.cls has 'ant'"):
        open_train(path)


def test_a_label_far_too_high_is_a_mistake(tmp_path):
    path = write_shard(tmp_path / "a.tar", range(4), text=lambda v: str(v * 100))
    with pytest.raises(DataError, match=r"0003\.png has label 300, more than there are images"):
        open_train(path)


def test_examples_of_a_list_with_a_factor_come_so_often_and_stay_together(tmp_path):
    a = write_shard(tmp_path / "a.tar", range(8), text=lambda v: str(v % 2))
    b = write_shard(tmp_path / "b.tar", range(8, 12), text=lambda v: str(v % 2))
    source = open_source(f"tar:{a}::{b}?factors=2::1", "train")
    once = open_source(f"tar:{a}::{b}", "train")
    assert reds(source) == [*range(8), *range(8), *range(8, 12)] and reds(once) == list(range(12))
    assert read_all(source)["id"].tolist() == list(range(20))
    assert source.label_of.tolist() == read_all(source)["label"].tolist()
    held = eval_indices(source, 0.3, 0)
    rest = np.setdiff1d(np.arange(20), held)
    assert len(held) and not set(np.array(reds(source))[held]) & set(np.array(reds(source))[rest])
    assert fingerprint(source).digest != fingerprint(once).digest != ""
    texts = write_shard(tmp_path / "t.tar", range(3), "txt")
    pairs = open_source(f"tar:{texts}?factors=3", "train")
    assert pairs.caption_at(np.array([4, 8])) == ["1", "2"] and pairs.image_of.tolist() == [0, 1, 2] * 3
