"""A folder as a zip archive, piece by piece."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

PIECE = 1 << 18  # bytes


class _Pieces:
    """A file that can only be written to, and hands on what was written."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self._written = b"".join(self._written), []
        return taken


def zipped(folder: Path) -> Iterator[bytes]:
    """The bytes of an archive of a folder's files. No more than a piece of it is in memory."""
    out = _Pieces()
    file_like = cast(IO[bytes], out)  # of which only what is written to it is used
    with zipfile.ZipFile(file_like, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            entry = zipfile.ZipInfo.from_file(path, path.relative_to(folder).as_posix(), strict_timestamps=False)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as packed:
                while data := file.read(PIECE):
                    packed.write(data)
                    yield out.take()
    yield out.take()
