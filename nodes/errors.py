"""Errors that end a run."""


class FatalError(RuntimeError):
    """Starting the node again would not cure it, so nobody tries."""
