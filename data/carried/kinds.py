"""The names of what a replay carries of an image, and of the fields that go with it."""

PIXELS = "pixels"
ENCODED = "encoded"
IDS = "ids"
# What `replay.images` may be.
IMAGES = (PIXELS, ENCODED, IDS)

# In a batch of a source that was asked for it (`Source.keep_files`): the image's file, bytes in an object
# array [B]; empty where it is no smaller than the pixels.
FILE = "file"
# Of which epoch an example is, int64[B]: with its id it decides how it is augmented.
EPOCH = "epoch"
# Records only. The CRC-32 of the pixels that were scored, uint32[B];
CHECK = "image_check"
# the file, uint8[B, H·W·C], zeros behind it; or the pixels, where the next field is 0;
CONTENT = "image_content"
# and how many bytes of it are the file, int32[B].
CONTENT_BYTES = "image_content_bytes"
