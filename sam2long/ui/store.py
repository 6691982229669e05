"""masks.jsonl while it grows: any frame can be read and replaced at any time, and a kill loses at most one line.

The file is that of `sam2long track`, with a "report" beside "objects" in each line: what the tracker thought.
Only added to; a later line of a frame replaces the object's earlier one. What is kept in memory is where each mask
lies and its report, not the masks. Now and then the file is written anew without what has been replaced.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sam2long.atomic import replacing
from sam2long.errors import DataError
from sam2long.export.masks import MaskWriter, encode_mask, scan_lines
from sam2long.known import Row
from sam2long.tracking.report import ABSENT, VISIBLE

Rle = Mapping[str, Any]  # COCO run lengths: size, counts

WASTE_FACTOR = 2  # written anew when it has this many times the lines it needs,
WASTE_LINES = 2000  # and this many more


class _Kept(NamedTuple):
    start: int  # where the line begins in the file
    row: Row


class Mark(NamedTuple):
    """How a store was, to go back to."""

    size: int
    kept: dict[int, dict[int, _Kept]]
    lines: int
    dropped: bool
    header: dict[str, Any]


def is_empty(rle: Rle) -> bool:
    """Whether run lengths hold no pixel."""
    from pycocotools import mask as coco

    return not coco.area({"size": list(rle["size"]), "counts": rle["counts"].encode("ascii")})


def overlap(a: Rle, b: Rle) -> float:
    """IoU of two masks given as run lengths; 1 where both are empty."""
    from pycocotools import mask as coco

    pair = [{"size": list(rle["size"]), "counts": rle["counts"].encode("ascii")} for rle in (a, b)]
    found = float(coco.iou(pair[:1], pair[1:], [0])[0][0])
    return 1.0 if math.isnan(found) or not any(coco.area(pair)) else found


class MaskStore:
    """The masks of a project.

    Args:
        path: of masks.jsonl; made when missing.
        header: what its first line says beside the format; `tidy` sees to it that it does.
        place: frame index -> (number in the video, seconds).
    Raises:
        DataError: a file that is damaged, or of a video of another size.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], place: Callable[[int], tuple[int, float | None]]) -> None:
        self.path = path
        self._place = place
        self._lock = threading.Lock()
        self._kept: dict[int, dict[int, _Kept]] = {}  # object -> frame -> where
        self._lines = 0
        self._dropped = False  # whether the file holds masks that have been dropped
        self._header: dict[str, Any] = dict(header)
        if path.exists():
            found, size = self._scan(path)
            self._written_header = {name: value for name, value in found.items() if name not in ("format", "version")}
            for side in ("height", "width"):
                if found.get(side) != header[side]:
                    raise DataError(
                        f"{path} holds masks of {found.get('width')} x {found.get('height')} pixels and the video has "
                        f"{header['width']} x {header['height']}; choose another --out for this video"
                    )
        else:
            with replacing(path) as partial:
                MaskWriter(partial, header).close()
            size, self._written_header = path.stat().st_size, self._header
        self._size = size  # bytes that count
        self._writer: MaskWriter | None = None
        self._reader: BinaryIO | None = None
        self._open_writer()  # a folder that is closed to us shows now

    # ---- reading ----------------------------------------------------------------------------------------------

    def objects(self) -> list[int]:
        with self._lock:
            return list(self._kept)

    def rows(self, obj_id: int) -> dict[int, Row]:
        """Frame -> what is known of the object there."""
        with self._lock:
            return {frame: kept.row for frame, kept in self._kept.get(obj_id, {}).items()}

    def row(self, frame: int, obj_id: int) -> Row | None:
        with self._lock:
            kept = self._kept.get(obj_id, {}).get(frame)
        return kept and kept.row

    def frames(self) -> list[int]:
        """The frames that have masks, rising."""
        with self._lock:
            return sorted(set().union(*self._kept.values())) if self._kept else []

    def masks(self, frame: int) -> dict[int, Rle]:
        """Object id -> run lengths."""
        with self._lock:
            return self._masks(frame)

    def mask(self, frame: int, obj_id: int) -> Rle | None:
        return self.masks(frame).get(obj_id)

    def _masks(self, frame: int) -> dict[int, Rle]:
        reader = self._open_reader()
        places = {obj_id: frames[frame].start for obj_id, frames in self._kept.items() if frame in frames}
        lines: dict[int, dict[str, Rle]] = {}
        for start in set(places.values()):
            reader.seek(start)
            lines[start] = json.loads(reader.readline())["objects"]
        return {obj_id: lines[start][str(obj_id)] for obj_id, start in places.items()}

    # ---- writing ----------------------------------------------------------------------------------------------

    def put(self, frame: int, masks: Mapping[int, Rle], rows: Mapping[int, Row]) -> None:
        """Add or replace masks of a frame; in the file when this returns."""
        with self._lock:
            start = self._append(lambda writer: self._write(writer, frame, masks, rows))
            for obj_id in masks:
                self._kept.setdefault(obj_id, {})[frame] = _Kept(start, rows[obj_id])

    def _append(self, write: Callable[[MaskWriter], None]) -> int:
        """Add a line; returns where it begins. What cannot be written whole is not there afterwards."""
        writer = self._open_writer()
        start = writer.size
        try:
            write(writer)
        except BaseException:  # the disk is full: half a line must not stay in the way of the next one
            self._cut_to(start)
            raise
        self._size = writer.size
        self._lines += 1
        return start

    def mark(self) -> Mark:
        """How it is now, for `back_to`."""
        with self._lock:
            kept = {obj_id: dict(frames) for obj_id, frames in self._kept.items()}
            return Mark(self._size, kept, self._lines, self._dropped, self._header)

    def back_to(self, mark: Mark) -> None:
        """Forget what has been added since. This takes no room on the disk; nothing may have been rewritten since."""
        with self._lock:
            self._kept, self._lines, self._dropped, self._header = mark.kept, mark.lines, mark.dropped, mark.header
            if self._size > mark.size:
                self._cut_to(mark.size)

    def amend(self, rows: Mapping[tuple[int, int], Row]) -> None:
        """Replace what is known of masks that are there already; (frame, object) -> row."""
        with self._lock:
            for (frame, obj_id), row in rows.items():
                if (kept := self._kept.get(obj_id, {}).get(frame)) is not None:
                    self._kept[obj_id][frame] = kept._replace(row=row._replace(empty=kept.row.empty))
        self.rewrite()

    def drop(self, *obj_ids: int) -> None:
        """Forget all masks of objects; see `drop_frame`."""
        with self._lock:
            for frame in sorted({frame for obj_id in obj_ids for frame in self._kept.get(obj_id, ())}):
                self._drop(frame, [obj_id for obj_id in obj_ids if frame in self._kept.get(obj_id, ())])
            for obj_id in obj_ids:
                self._kept.pop(obj_id, None)

    def drop_frame(self, obj_id: int, frame: int) -> None:
        """Forget one mask. The file says so by an empty mask without a report, until `tidy` writes it anew."""
        with self._lock:
            if frame in self._kept.get(obj_id, ()):
                self._drop(frame, [obj_id])
                del self._kept[obj_id][frame]

    def _drop(self, frame: int, obj_ids: Sequence[int]) -> None:
        empty = encode_mask(np.zeros((self._header["height"], self._header["width"]), bool))
        report = dict.fromkeys(map(str, obj_ids))
        masks = dict.fromkeys(obj_ids, empty)
        self._append(lambda writer: writer.write_encoded(frame, *self._place(frame), masks, report=report))
        self._dropped = True

    def set_header(self, header: Mapping[str, Any]) -> None:
        """Change the first line (an object was named); written with the next `tidy`."""
        self._header = dict(header)

    def tidy(self) -> None:
        """Write the file anew when the header is not up to date or much of it has been replaced."""
        with self._lock:
            needed = len(set().union(*self._kept.values())) if self._kept else 0
            wasteful = self._lines > WASTE_FACTOR * needed + WASTE_LINES
            stale = self._header != self._written_header
        if wasteful or stale or self._dropped:
            self.rewrite()

    def rewrite(self) -> None:
        """One line per frame, in order; the file is whole at every moment."""
        with self._lock:
            header = self._header
            try:
                with replacing(self.path) as partial:
                    with MaskWriter(partial, header) as writer:
                        for frame in sorted(set().union(*self._kept.values())) if self._kept else []:
                            rows = {obj_id: at[frame].row for obj_id, at in self._kept.items() if frame in at}
                            self._write(writer, frame, self._masks(frame), rows)
                    self._close()  # before it is replaced: Windows does not replace a file in use
            except OSError:
                self._close()  # the old file counts; it is opened again when it is needed
                raise
            self._kept = {}
            _, self._size = self._scan(self.path)
            self._written_header = header

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        """Both files are opened again when they are needed."""
        for file in (self._writer, self._reader):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        self._writer = self._reader = None

    def _cut_to(self, size: int) -> None:
        """Let the file end here. Where it cannot be cut now, it is when it is written to next."""
        self._size = size
        self._close()
        with contextlib.suppress(OSError):
            self._open_writer()

    def _open_writer(self) -> MaskWriter:
        if self._writer is None:
            self._writer = MaskWriter.resume(self.path, self._size)
        return self._writer

    def _open_reader(self) -> BinaryIO:
        if self._reader is None:
            self._reader = self.path.open("rb")
        return self._reader

    def _write(self, writer: MaskWriter, frame: int, masks: Mapping[int, Rle], rows: Mapping[int, Row]) -> None:
        report = {str(obj_id): rows[obj_id].to_json() for obj_id in masks}
        writer.write_encoded(frame, *self._place(frame), masks, report=report)

    def _scan(self, path: Path) -> tuple[dict[str, Any], int]:
        """Find all masks; returns the header and where the last whole line ends."""
        self._lines = 0
        self._dropped = False
        with path.open("rb") as file:
            header, end, _ = scan_lines(
                file, path, self._take, whose="a run or project", remedy="restore it, or choose another --out"
            )
        return header, end

    def _take(self, record: Mapping[str, Any], start: int) -> None:
        self._lines += 1
        frame, report = record["frame"], record.get("report", {})
        for obj_id, rle in record["objects"].items():
            frames = self._kept.setdefault(int(obj_id), {})
            if obj_id not in report:  # of `sam2long track`, which keeps its report elsewhere
                empty = is_empty(rle)
                frames[frame] = _Kept(start, Row(status=ABSENT if empty else VISIBLE, empty=empty))
            elif report[obj_id] is None:
                frames.pop(frame, None)
                self._dropped = True
            else:
                frames[frame] = _Kept(start, Row.from_json(report[obj_id]))
