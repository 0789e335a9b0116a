import errno
import os

import pytest

from classact.nodes import errors


def os_error(number, *filename):
    return OSError(number, os.strerror(number), *filename)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing_is_recognised(number):
    assert os.strerror(number) in errors.unwritable(os_error(number))
    # As TensorStore says it.
    text = f"RESOURCE_EXHAUSTED: Error writing local file '/w/d/0' [OS error {number}: {os.strerror(number)}]"
    assert errors.unwritable(ValueError(text)) == os.strerror(number)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_right_that_is_missing_concerns_files_only_if_one_is_named(number):
    assert "/w/metrics" in errors.unwritable(os_error(number, "/w/metrics"))
    assert errors.unwritable(os_error(number)) is None


def test_what_is_behind_an_error_counts():
    first = os_error(errno.ENOSPC, "/w/checkpoints")
    try:
        try:
            raise first
        except OSError as error:
            raise RuntimeError("the save failed") from error
    except RuntimeError as error:
        assert errors.unwritable(error) == str(first)
    during = KeyError("seen while it was handled")
    during.__context__ = first
    first.__context__ = during
    assert errors.unwritable(during) == str(first)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no space"),
        os_error(errno.ENOENT, "/w"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        # Not its text, which may name a file: its number is what it means.
        OSError(errno.EIO, "No space left on device"),
    ],
)
def test_other_errors_are_not(error):
    assert errors.unwritable(error) is None
