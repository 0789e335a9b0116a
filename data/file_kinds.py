"""Says what a file is that was taken for an image, by how it begins."""

import codecs
import re
from typing import BinaryIO

# How much of its beginning tells a file's kind.
_HEAD = 1024
_TAIL = 4096

# What `decode` opens: (how it begins, its name).
_IMAGES = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"BM.{4}\0{4}", "BMP"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF"),
)
_OTHERS = (
    (rb"....ftyp(avif|avis)", "AVIF"),
    (rb"....ftyp(hei|hev|mif1|msf1)", "HEIC"),
    (rb"....ftyp|....moov|\x1a\x45\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"\xff\x0a|\0{3}\x0cJXL ", "JPEG XL"),
    (rb"\0{3}\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"\0\0\x01\0", "an icon file (ICO)"),
    (rb"P[1-7]\s", "a PNM file"),
    (rb"v/1\x01", "OpenEXR"),
    (rb".{128}DICM", "DICOM"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x89HDF", "HDF5"),
    (rb"\x1f\x8b", "gzip"),
    (rb"PK\x03\x04", "a zip file"),
    (rb"BZh", "bzip2"),
    (rb"\xfd7zXZ", "xz"),
    (rb"\x28\xb5\x2f\xfd", "Zstandard"),
    (rb"Rar!", "a RAR file"),
    (rb"7z\xbc\xaf", "a 7z file"),
    (rb".{257}ustar", "a tar file"),
    (rb"\0\x05\x16\x07", "an AppleDouble file of macOS"),
    (rb"\0+$", "nothing but zeros"),
    (rb"version https://git-lfs", "a Git LFS pointer (get the file by `git lfs pull`)"),
    (rb"(\.\./)*\.git/annex/|/annex/objects/", "a git-annex pointer (get the file by `git annex get`)"),
)
_TEXTS = (
    (rb"(<\?xml.*?)?(<!--.*?-->\s*)*(<!doctype html|<html|<head|<body)", "HTML text"),
    (rb"(<\?xml.*?)?(<!--.*?-->\s*)*(<!doctype svg.*?)?<svg", "SVG"),
    (rb"<\?xml", "XML text"),
    (rb"[{\[]\s*[\"{\[\]}\d-]", "JSON text"),
)


def image_kind(head: bytes) -> str:
    """The name of the image format that a file begins as, of those that are read; empty if none."""
    return _first_match(_IMAGES, head)


def kind_of(file: BinaryIO) -> str:
    """What a file is, for errors: "HTML text", "empty", "HEIC", "a truncated PNG file".

    Args:
        file: seekable; read at its beginning, and at its end if it begins as an image.

    Raises:
        OSError: if it cannot be read.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if not head:
        return "empty"
    kind = image_kind(head)
    if kind:
        return f"a {'truncated' if _cut_off(kind, head, file) else 'damaged'} {kind} file"
    kind = _first_match(_OTHERS, head)
    if kind:
        return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    kind = _first_match(_TEXTS, text)
    if kind:
        return kind
    if _is_text(head):
        return "text"
    return f"of an unknown kind: it begins with the bytes {head[:8].hex(' ')}"


def _first_match(kinds: tuple[tuple[bytes, str], ...], head: bytes) -> str:
    matching = (name for start, name in kinds if re.match(start, head, re.DOTALL | re.IGNORECASE))
    return next(matching, "")


def _cut_off(kind: str, head: bytes, file: BinaryIO) -> bool:
    """Whether an image lacks its end; false where that cannot be seen."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    if kind == "PNG":
        return b"IEND" not in tail
    if kind == "JPEG":
        return b"\xff\xd9" not in tail
    if kind == "GIF":
        return b"\x3b" not in tail[-16:]
    if kind == "WebP":
        return size < int.from_bytes(head[4:8], "little") + 8
    return kind == "BMP" and size < int.from_bytes(head[2:6], "little")


def _is_text(head: bytes) -> bool:
    try:
        # Incremental, as the last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not re.search(r"[\x00-\x08\x0e-\x1a]", text)
