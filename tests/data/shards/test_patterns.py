import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classact.data.file_patterns import expand
from classact.data.shards.patterns import ShardList, shard_lists
from classact.data.source import DataError
from classact.data.specs import open_source


def test_patterns_name_shards_by_braces_and_wildcards(tmp_path):
    for name in ("t-08", "t-09", "t-10", "t-11", "u-09", "odd[1]"):
        (tmp_path / f"{name}.tar").write_bytes(b"")

    def names(pattern):
        (found,) = shard_lists(f"{tmp_path}/{pattern}")
        return [path.rpartition("/")[2].removesuffix(".tar") for path in found.paths]

    assert names("t-*.tar") == ["t-08", "t-09", "t-10", "t-11"]
    assert names("t-{08..10}.tar") == ["t-08", "t-09", "t-10"]
    assert names("?-{09..09}.tar") == ["t-09", "u-09"]
    assert names("{u,t}-09.tar") == ["u-09", "t-09"]
    assert names("odd[1].tar") == ["odd[1]"]
    with pytest.raises(DataError, match=r"t-12\.tar: no such file"):
        names("t-{10..12}.tar")
    with pytest.raises(DataError, match=r"named twice"):
        names("{t,?}-09.tar")
    with pytest.raises(DataError, match=r"v-\*\.tar: no such file"):
        open_source(f"tar:{tmp_path}/v-*.tar", "train")
    with pytest.raises(DataError, match="needs a path"):
        open_source("tar", "train")


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(1, 3)),
            st.lists(st.text("abc-", max_size=3), min_size=2, max_size=3),
        ),
        max_size=3,
    )
)
def test_braces_stand_for_all_combinations_in_order(groups):
    pattern, choices = "x", []
    for group in groups:
        if isinstance(group, tuple):
            first, more, width = group
            pattern += f"{{{first:0{width}d}..{first + more}}}/"
            width = len(f"{first:0{width}d}")
            choices.append([str(i).zfill(width) for i in range(first, first + more + 1)])
        else:
            pattern += "{" + ",".join(group) + "}/"
            choices.append(group)
    expected = ["x" + "".join(f"{word}/" for word in words) for words in itertools.product(*choices)]
    assert list(expand(pattern)) == expected


def test_other_braces_stay():
    assert list(expand("a{b}c{}-{1,2}")) == ["a{b}c{}-1", "a{b}c{}-2"]


def test_lists_have_factors(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.tar").write_bytes(b"")
    both = f"{tmp_path}/a.tar::{tmp_path}/b.tar"
    assert [each.factor for each in shard_lists(both)] == [1, 1]
    assert shard_lists(both, "2::1") == [
        ShardList((f"{tmp_path}/a.tar",), 2),
        ShardList((f"{tmp_path}/b.tar",), 1),
    ]
    for factors, said in (("2", "1 for 2 patterns"), ("2::x", "factors=x"), ("0::1", "factors=0")):
        with pytest.raises(DataError, match=said):
            shard_lists(both, factors)
    with pytest.raises(DataError, match="empty pattern"):
        shard_lists(f"{tmp_path}/a.tar::")
    with pytest.raises(DataError, match=r"named twice.*factors=2"):
        shard_lists(f"{both}::{tmp_path}/a.tar")


def test_an_address_may_have_colons():
    assert shard_lists("http://[::1]:80/{a,b}.tar::s3://c/d.tar") == [
        ShardList(("http://[::1]:80/a.tar", "http://[::1]:80/b.tar")),
        ShardList(("s3://c/d.tar",)),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hush@h/a.tar",
        "x.tar::s3://hush@b/a.tar",
        "https://h/a.tar?X-Amz-Signature=hush",
        "https://h/a.tar?token=hush",
    ],
)
def test_secrets_are_refused_and_not_repeated(url):
    with pytest.raises(DataError, match=r"(write|written) down|unknown option 'token'") as refused:
        open_source(f"tar:{url}", "train")
    assert "hush" not in str(refused.value)


def test_urls_have_no_wild_cards():
    with pytest.raises(DataError, match="expected braces"):
        shard_lists("s3://b/*.tar")
