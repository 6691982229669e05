"""Files that are a row of chunks with their sizes: MP4 and MOV, AVI, Matroska and WebM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
UNKNOWN_RIFF = {0, 0xFFFFFFFF}  # written by programs that could not go back to fill it in
HEADER = 16  # bytes that the longest chunk header takes


def is_cut_off(path: Path) -> bool:
    """Whether a file is shorter than its chunks say. False for files of other kinds, and where sizes are not known."""
    end = path.stat().st_size
    with path.open("rb") as file:
        size_of = _reader(file.read(HEADER))
        at = 0
        while size_of is not None and at < end:
            file.seek(at)
            size = size_of(file.read(HEADER))
            if size is None:
                return False
            at += size
    return at > end


def _reader(head: bytes) -> Callable[[bytes], int | None] | None:
    if head[:4] == b"RIFF":
        return _riff
    if head[:4] == EBML:
        return _element
    return _box if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide") else None


def _box(head: bytes) -> int | None:
    size = int.from_bytes(head[:4], "big")
    if size == 1:  # a long one
        size = int.from_bytes(head[8:16], "big")
    return size if size >= 8 and head[4:8].isalnum() else None  # 0: up to the end, whatever that is


def _riff(head: bytes) -> int | None:
    size = int.from_bytes(head[4:8], "little")
    return size + 8 if head[:4] == b"RIFF" and size not in UNKNOWN_RIFF else None


def _element(head: bytes) -> int | None:
    if head[:4] not in (EBML, SEGMENT) or len(head) < 5 or head[4] == 0:
        return None
    length = 9 - head[4].bit_length()  # of the size field: its first bit that is set
    size = int.from_bytes(head[4 : 4 + length], "big") & ((1 << 7 * length) - 1)
    return None if size == (1 << 7 * length) - 1 else 4 + length + size
