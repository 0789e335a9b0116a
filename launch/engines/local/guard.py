"""Runs a command that cannot outlive its launcher.

Started as `python -I -S guard.py <launcher's process id> <command> …`, it asks
the kernel to kill this process when the launcher dies, however it dies, and
becomes the command. A small program of its own, because the alternative, code
between fork and exec in the launcher, can deadlock once the launcher has
threads. It imports nothing of classact, to start in a few milliseconds.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replaces this process by the command; never returns normally.

    Args:
      arguments: the launcher's process id, then the command.

    Raises:
      OSError: if the kernel refuses, or the command cannot be run.
    """
    launcher, command = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The launcher may have died before the call above: nobody is left to signal.
    if os.getppid() != launcher:
        sys.exit("the launcher is gone")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
