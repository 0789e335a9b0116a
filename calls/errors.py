"""What may come of a call instead of an answer."""


class CallError(RuntimeError):
    """A call brought no answer."""


class NoAnswerError(CallError):
    """Nobody answered in time."""


class StoppedError(CallError):
    """The caller was asked to stop before there was an answer."""


class RefusedError(CallError):
    """The server does not know this caller's key, or asks for one that the caller lacks."""


class BusyError(CallError):
    """The server has as many waiting calls, or as many bytes of them, as it takes."""


class RemoteError(CallError):
    """The call failed where it was answered.

    Attributes:
        kind: name of the exception's class there, for instance "LookupError".
        traceback: of that exception, as text.
    """

    def __init__(self, kind: str, traceback: str) -> None:
        super().__init__(traceback)
        self.kind = kind
        self.traceback = traceback
