import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from classact.data.decode import FORMATS, DamagedError, read_pixels, read_size
from classact.data.file_kinds import kind_of


class Encoded:
    """A file in memory."""

    def __init__(self, content):
        self.content = content

    def open(self, mode):
        assert mode == "rb"
        return io.BytesIO(self.content)


def encode(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Encoded(content.getvalue())


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth, colour, row, transparent):
    """A PNG of one row, by the letter of the standard."""
    width = len(row) * 8 // (depth * {0: 1, 2: 3}[colour])
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header), chunk(b"tRNS", transparent), chunk(b"IDAT", zlib.compress(b"\0" + row)),
        chunk(b"IEND", b""),
    ]  # fmt: skip
    return Encoded(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


CORNERS = Image.fromarray(np.array([[0, 50, 100], [150, 200, 250]], np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_their_exif_data_says(kind, orientation):
    # 16 pixels a corner, so that JPEG keeps them.
    image = CORNERS.convert("RGB").resize((48, 32), Image.Resampling.NEAREST)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    file = encode(image, kind, exif=exif(orientation), **options)
    pixels = read_pixels(file, "L", None)
    assert read_size(file) == pixels.shape[1::-1]
    x = np.array(CORNERS)
    expected = {
        1: x, 2: x[:, ::-1], 3: x[::-1, ::-1], 4: x[::-1],
        5: x.T, 6: x.T[:, ::-1], 7: x.T[::-1, ::-1], 8: x.T[::-1],
    }[orientation]  # fmt: skip
    assert np.abs(pixels[8::16, 8::16, 0].astype(int) - expected).max() <= 2


def test_an_orientation_behind_the_pixels_counts_too():
    content = encode(CORNERS, "PNG").content
    late = Encoded(content[:-12] + chunk(b"eXIf", exif(6).tobytes()[6:]) + content[-12:])
    assert read_size(late) == (2, 3)
    assert read_pixels(late, "L", None)[:, :, 0].tolist() == [[150, 0], [200, 50], [250, 100]]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("data", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_data_damages_no_image(data):
    file = encode(CORNERS, "JPEG", exif=data, quality=100)
    assert read_size(file) == (3, 2)
    assert read_pixels(file, "L", None).shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "expected"),
    [
        (1, 0, b"\x40", (1,), [0, 255, 0, 0, 0, 0, 0, 0]),
        (1, 0, b"\x40", (0,), [255] * 8),
        (2, 0, b"\x1b", (1,), [0, 255, 170, 255]),
        (4, 0, b"\x37", (3,), [255, 119]),
        (8, 0, b"\x37\x40", (0x37,), [255, 64]),
        (16, 0, b"\x03\xe8\x9c\x40", (1000,), [255, 0x9C]),
        (8, 2, bytes(range(6)), (0, 1, 2), [255, 4]),
        (16, 2, struct.pack(">6H", *range(1000, 61000, 10000)), (1000, 11000, 21000), [255, 153]),
    ],
)
def test_a_transparent_level_is_laid_on_white_at_every_depth(depth, colour, row, transparent, expected):
    file = png(depth, colour, row, struct.pack(f">{len(transparent)}H", *transparent))
    assert read_pixels(file, "L", None)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("kind", "stored", "value", "expected"),
    [
        ("TIFF", "CMYK", (0, 0, 0, 0), 255),
        ("TIFF", "I;16", 0x8040, 0x80),
        ("TIFF", "LA", (9, 0), 255),
        ("TIFF", "1", 1, 255),
        ("JPEG", "CMYK", (0, 0, 0, 255), 0),
        ("WEBP", "RGBA", (1, 2, 3, 0), 255),
        ("GIF", "L", 60, 60),
        ("BMP", "P", 60, 60),
    ],
)
def test_stored_modes(mode, kind, stored, value, expected):
    image = Image.new(stored, (6, 4), value)
    if stored == "P":
        image.putpalette(bytes(level for level in range(256) for _ in range(3)))
    pixels = read_pixels(encode(image, kind), mode, None)
    assert pixels.shape == (4, 6, len(mode)) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_of_several_pictures_is_read(kind):
    first, second = (Image.new("RGB", (6, 4), (level,) * 3) for level in (10, 200))
    options = {"WEBP": {"lossless": True}}.get(kind, {})
    file = encode(first, kind, save_all=True, append_images=[second], **options)
    assert read_pixels(file, "L", None)[0, 0, 0] == 10


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_known_white_are_not_guessed_at(mode):
    with pytest.raises(DamagedError, match=r"its pixels are .* which is white"):
        read_pixels(encode(Image.new(mode, (6, 4)), "TIFF"), "RGB", None)


@pytest.mark.parametrize("kind", ["PPM", "ICNS", "EPS", "TGA", "PCX", "PDF", "ICO", "SGI"])
def test_no_other_format_is_opened(kind):
    with pytest.raises(DamagedError):
        read_pixels(encode(Image.new("RGB", (32, 32)), kind), "RGB", None)
    assert kind not in FORMATS


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"\0" * 2000, "nothing but zeros"),
        (b"\xef\xbb\xbf \n<HTML>", "HTML text"),
        (b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg width="1">', "SVG"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML text"),
        (b'{"error": "not found"}', "JSON text"),
        (b"Too many requests", "text"),
        ("é".encode() * 1000, "text"),
        (b"caf\xe9 and more", "of an unknown kind: it begins with the bytes 63 61 66 e9 20 61 6e 64"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\x03\x04", "a zip file"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0heic", "HEIC"),
        (b"\0\0\0\x20ftypavif", "AVIF"),
        (b"\0\0\0\x20ftypisom", "a video"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a truncated WebP file"),
        (b"BM" + b"\xff\xff\0\0" + bytes(20), "a truncated BMP file"),
        (b"BM is a text", "text"),
        (b"\xff\xd8\xff\xe0" + bytes(50) + b"\xff\xd9", "a damaged JPEG file"),
        (b"/annex/objects/SHA256E-s1--0.png\n", "a git-annex pointer (get the file by `git annex get`)"),
    ],
)
def test_a_file_is_named_by_what_it_is(content, kind):
    assert kind_of(io.BytesIO(content)) == kind
    with pytest.raises(DamagedError) as error:
        read_size(Encoded(content))
    assert str(error.value).startswith(kind) and "<_io" not in str(error.value)


@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_damage():
    """Bytes at random never raise anything else, and cannot name an object in memory."""
    rng = random.Random(0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8))
    seeds = [encode(image, kind, **({"exif": exif(6)} if kind != "GIF" else {})).content for kind in FORMATS]
    for turn in range(120):
        content = bytearray(seeds[turn % len(seeds)])
        for _ in range(rng.choice((1, 4))):
            content[rng.randrange(min(len(content), rng.choice((40, 300))))] = rng.randrange(256)
        file = Encoded(bytes(content[: rng.choice((None, rng.randrange(1, len(content)))) or None]))
        for read in (read_size, lambda found: read_pixels(found, "RGB", 4)):
            try:
                read(file)
            except DamagedError as error:
                assert "<_io" not in str(error) and "\n" not in str(error)
