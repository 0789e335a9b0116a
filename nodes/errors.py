"""Errors that end a run."""

import errno
import os
import re
from collections.abc import Iterator
from typing import Optional

_DIVERGED = re.compile(r"^\S*\bDivergedError: diverged at step (?P<step>\d+): (?P<why>.+)", re.MULTILINE)
_NO_DATA = re.compile(r"^\S*\bNoDataError: (?P<said>the replay of (?P<data_set>\S+) .+)", re.MULTILINE)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# These concern files only if one is named: a socket can refuse as well.
_NO_RIGHT = (errno.EACCES, errno.EPERM)


class FatalError(RuntimeError):
    """Starting the node again would not cure it, so nobody tries."""


class DivergedError(FatalError):
    """The run has diverged: its loss, its parameters or its scores are no finite numbers any more.

    Attributes:
        step: the learner step at which that was found.
    """

    def __init__(self, step: int, why: str) -> None:
        """Takes the step, at least 0, and in one line what is not finite."""
        super().__init__(f"diverged at step {step}: {why}")
        self.step = step
        self.why = why

    @classmethod
    def in_text(cls, text: str) -> Optional["DivergedError"]:
        """The last one whose traceback is in a text, such as a task's log; None if there is none."""
        found = list(_DIVERGED.finditer(text))
        return cls(int(found[-1]["step"]), found[-1]["why"]) if found else None


class NoDataError(RuntimeError):
    """The replay of a data set delivered nothing for too long.

    Whoever meets it cannot know why; those that should deliver may do so when they are started again.

    Attributes:
        data_set: its name.
    """

    def __init__(self, data_set: str, why: str) -> None:
        """Takes the data set, and what follows its name in one line."""
        super().__init__(f"the replay of {data_set} {why}")
        self.data_set = data_set
        self.why = why

    @classmethod
    def in_text(cls, text: str) -> Optional["NoDataError"]:
        """The last one whose traceback is in a text, such as a task's log; None if there is none."""
        found = list(_NO_DATA.finditer(text))
        if not found:
            return None
        data_set = found[-1]["data_set"]
        return cls(data_set, found[-1]["said"].removeprefix(f"the replay of {data_set} "))


def unwritable(error: BaseException) -> Optional[str]:
    """Says why files cannot be written, if that is what an error, or one behind it, means.

    No space, no quota, a file system that is mounted for reading, no right to write.
    Orbax, TensorStore and Reverb report these as errors of other kinds, and other nodes'
    errors arrive as text: there the system's own words are looked for.

    Returns:
        The system's words for it; None if the error is another one.
    """
    for behind in chain(error):
        if isinstance(behind, OSError):
            if behind.errno in _NO_ROOM or (behind.errno in _NO_RIGHT and behind.filename is not None):
                return str(behind)
            continue
        for number in _NO_ROOM:
            if os.strerror(number) in str(behind):
                return os.strerror(number)
    return None


def chain(error: Optional[BaseException]) -> Iterator[BaseException]:
    """Yields an error and those that it was raised from or during."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
