"""Small files of records, written to the letter of their formats, by nothing that reads them."""

import struct

from table_files import pixels, png


def checksum(content):
    """TFRecord's: CRC-32C bit by bit, rotated by 15 bits, and added to."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def framed(content):
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", checksum(length)) + content + struct.pack("<I", checksum(content))


def write_tfrecords(path, contents):
    path.write_bytes(b"".join(map(framed, contents)))


def write_arrayrecords(path, contents):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for content in contents:
        writer.write(content)
    writer.close()


def example(**fields):
    """A `tf.train.Example`, whose fields are lists of bytes, of floats, or of whole numbers.

    A name with two underscores has a slash there.
    """
    entries = b""
    for name, values in fields.items():
        values = values if isinstance(values, list) else [values]
        if all(isinstance(value, bytes) for value in values):
            listed = _part(1, b"".join(_part(1, value) for value in values))
        elif all(isinstance(value, int) for value in values):
            listed = _part(3, _part(1, b"".join(_varint(value % 2**64) for value in values)))
        else:
            listed = _part(2, _part(1, struct.pack(f"<{len(values)}f", *values)))
        entries += _part(1, _part(1, name.replace("__", "/").encode()) + _part(2, listed))
    return _part(1, entries)


def labelled(count, start=0):
    """Examples with an `image` and a `label`, as `pixels` has them; of i it is i % 3."""
    return [example(image=png(pixels(i)), label=i % 3) for i in range(start, start + count)]


def _part(number, content):
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number):
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(found) + bytes([number])
