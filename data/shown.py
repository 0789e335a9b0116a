"""Names of files as a person reads them."""

import re

# Control characters, line ends of other systems, and what is no text.
_UNPRINTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def shown(name: str) -> str:
    r"""A name as one line that can be printed and stored; a byte that is no UTF-8 as `\xe9`.

    Args:
        name: as the operating system gives it to Python: bytes that are no UTF-8 are
            lone surrogates (the error handler "surrogateescape").
    """
    return _UNPRINTED.sub(_escaped, name)


def is_text(name: str) -> bool:
    """Whether a name is text: false if it stands for bytes that are no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(match[0])[1:-1]
