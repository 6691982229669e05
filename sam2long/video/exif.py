"""Images whose EXIF data say that they are to be turned. Frames are read as they are stored, as sam2 does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

ORIENTATION, UPRIGHT = 0x0112, 1
JPEG_SCAN, JPEG_APP1 = 0xDA, 0xE1  # EXIF and XMP are in APP1
PNG_SIGNATURE = 8  # bytes
PNG_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # EXIF, and XMP as text


def is_turned(image: Image.Image) -> bool:
    """Whether programs that heed EXIF show this image turned or mirrored, and Pillow does not."""
    if image.format == "TIFF":
        return False  # Pillow turns these by itself, as other readers do
    # A PNG's own method would decode the picture, to find EXIF data behind it.
    return Image.Image.getexif(image).get(ORIENTATION, UPRIGHT) != UPRIGHT


def copy_as_stored(original: Path, target: Path) -> None:
    """Copy an image so that every program shows it as it is stored; the pixels stay the same to the bit."""
    with Image.open(original) as image:
        if not is_turned(image):
            shutil.copyfile(original, target)
            return
        if image.format not in ("JPEG", "PNG"):
            image.save(target, lossless=True, exif=b"")
            return
        parts = _jpeg_parts if image.format == "JPEG" else _png_parts
    target.write_bytes(b"".join(parts(original.read_bytes())))


def _jpeg_parts(data: bytes) -> Iterator[bytes]:
    """All but the metadata."""
    at = 2
    yield data[:at]
    while data[at] == 0xFF and data[at + 1] != JPEG_SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != JPEG_APP1:
            yield data[at:end]
        at = end
    yield data[at:]


def _png_parts(data: bytes) -> Iterator[bytes]:
    """All but the metadata."""
    at = PNG_SIGNATURE
    yield data[:at]
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, kind and checksum take four bytes each
        if data[at + 4 : at + 8] not in PNG_METADATA:
            yield data[at:end]
        at = end
