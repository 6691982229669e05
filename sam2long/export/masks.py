"""masks.jsonl: every mask of a run as COCO run lengths, one line per frame; the master of all other files.

    {"format": "sam2long-masks", "version": 1, "height": 720, "width": 1280, ...}
    {"frame": 0, "source_frame": 0, "time": 0.0, "objects": {"1": {"size": [720, 1280], "counts": "..."}}}

Lines are in the order in which frames were worked out, so a backward pass goes down. A frame may have several
lines, with different objects. Lines are only ever added; the last one may be torn when the program was killed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sam2long.errors import DataError

FORMAT = "sam2long-masks"
VERSION = 1


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """[H, W] bool -> COCO run lengths, fit for JSON."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: Mapping[str, Any]) -> np.ndarray:
    """COCO run lengths -> [H, W] bool."""
    from pycocotools import mask as coco

    try:
        return coco.decode({"size": list(rle["size"]), "counts": str(rle["counts"]).encode("ascii")}).astype(bool)
    except ValueError as error:
        raise DataError(f"a mask is damaged ({error}); restore masks.jsonl or track again") from None


def run_lengths(flat: np.ndarray) -> list[int]:
    """Lengths of the runs in [n] bool, n >= 1: first of False (maybe 0), then of True, and so on."""
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=~flat[-1]))
    return np.diff(changes, prepend=0).tolist()


class MaskWriter:
    """Adds frames to masks.jsonl; each is in the file when `write` returns.

    Args:
        path: of the file; must not exist yet.
        header: what else the first line says.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._file = path.open("x", encoding="utf-8", newline="\n")
        self._add({"format": FORMAT, "version": VERSION, **header})

    @classmethod
    def resume(cls, path: Path, size: int) -> MaskWriter:
        """Go on with a file of which the first `size` bytes count.

        Raises:
            DataError: the file is shorter than that.
        """
        if not path.is_file() or path.stat().st_size < size:
            raise DataError(f"{path} is shorter than when the run was stopped; start again with --overwrite")
        with path.open("rb") as file:
            file.seek(max(0, size - 1))
            if file.read(1) != b"\n":
                raise DataError(f"{path} has changed since the run was stopped; start again with --overwrite")
        writer = cls.__new__(cls)
        writer._file = path.open("r+", encoding="utf-8", newline="\n")
        try:
            writer._file.truncate(size)
            writer._file.seek(0, 2)
        except BaseException:
            writer._file.close()
            raise
        return writer

    @property
    def size(self) -> int:
        """Bytes in the file, all of them whole lines."""
        self._file.flush()
        return self._file.tell()

    def write(self, frame: int, source_frame: int, time: float | None, masks: Mapping[Any, np.ndarray]) -> None:
        """Add a frame.

        Args:
            frame: index among the tracked frames. source_frame: number in the video.
            time: seconds since the video's first frame.
            masks: object id -> [H, W] bool.
        """
        self.write_encoded(frame, source_frame, time, {obj_id: encode_mask(mask) for obj_id, mask in masks.items()})

    def write_encoded(
        self,
        frame: int,
        source_frame: int,
        time: float | None,
        masks: Mapping[Any, Mapping[str, Any]],
        **more: Any,
    ) -> None:
        """Add a frame whose masks are COCO run lengths already; `more` goes into the line too, and readers skip it."""
        objects = {str(obj_id): rle for obj_id, rle in masks.items()}
        self._add({"frame": frame, "source_frame": source_frame, "time": time, "objects": objects, **more})

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MaskWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _add(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        self._file.flush()


def scan_lines(
    file: BinaryIO, path: Path, take: Callable[[Mapping[str, Any], int], None], whose: str, remedy: str
) -> tuple[dict[str, Any], int, bool]:
    """Go through a masks.jsonl from its beginning.

    Args:
        file, path: the same file, opened and by name.
        take: called with every line's content but the header's, and where the line begins.
        whose, remedy: for the messages: what writes such files, and what to do about a broken one.
    Returns:
        The header, where the last whole line ends, and whether a torn line follows it: the program was killed while
        it wrote.
    Raises:
        DataError: not such a file, or a line in the middle is broken.
    """
    header, start, torn = None, 0, False
    for number, line in enumerate(file, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("no end of line")
            record = json.loads(line)
            if header is None:
                if record.get("format") != FORMAT or record.get("version") != VERSION:
                    raise DataError(f"{path} is not a masks.jsonl of version {VERSION} by its first line")
                header = record
            else:
                take(record, start)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            if file.read(1):
                raise DataError(f"{path} is broken in line {number}; {remedy}") from None
            torn = True
            break
        start += len(line)
    if header is None:
        raise DataError(f"{path} has no header line; expected the masks.jsonl of {whose}")
    return header, start, torn


class MaskReader:
    """Reads masks.jsonl frame by frame, in any order. Only where the lines begin is kept in memory.

    Attributes:
        header: the first line.
        frames: frame indices that have masks, rising.
        objects: ids of the objects that have masks, rising.
        torn: whether a torn last line was left out.

    Raises:
        DataError: not such a file, or a line in the middle is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[int, list[int]] = {}  # frame -> where its lines begin
        self._source_frames: dict[int, int] = {}
        self._times: dict[int, float] = {}
        self._objects: set[int] = set()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; expected the masks.jsonl of a run") from None
        self.header, _, self.torn = scan_lines(self._file, path, self._take, "a run", "restore it or track again")

    @property
    def frames(self) -> list[int]:
        return sorted(self._lines)

    @property
    def objects(self) -> list[int]:
        return sorted(self._objects)

    def source_frame(self, frame: int) -> int:
        """The number of a frame in the video."""
        return self._source_frames[frame]

    def time(self, frame: int) -> float | None:
        """Seconds after the video's first frame; None where there is no clock."""
        return self._times.get(frame)

    def masks(self, frame: int) -> dict[int, np.ndarray]:
        """Object id -> [H, W] bool; empty for a frame without a line."""
        return {obj_id: decode_mask(rle) for obj_id, rle in self.rles(frame).items()}

    def rles(self, frame: int) -> dict[int, dict[str, Any]]:
        """Object id -> COCO run lengths; empty for a frame without a line."""
        found: dict[int, dict[str, Any]] = {}
        for start in self._lines.get(frame, ()):
            self._file.seek(start)
            for obj_id, rle in json.loads(self._file.readline())["objects"].items():
                self._check(rle, frame)
                found[int(obj_id)] = rle
        return dict(sorted(found.items()))

    def _check(self, rle: Any, frame: int) -> None:
        """pycocotools believes any size, and asks for as much memory."""
        size = [self.header.get("height"), self.header.get("width")]
        if not isinstance(rle, dict) or rle.get("size") != size or not isinstance(rle.get("counts"), str):
            raise DataError(
                f"{self.path} has on frame {frame} no mask of {size[1]} x {size[0]} pixels, the size of its pictures; "
                "restore it or track again"
            )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MaskReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _take(self, record: Mapping[str, Any], start: int) -> None:
        if not all(type(record[key]) is int and record[key] >= 0 for key in ("frame", "source_frame")):
            raise ValueError("no number of a frame")
        self._lines.setdefault(record["frame"], []).append(start)
        self._source_frames[record["frame"]] = record["source_frame"]
        time = record.get("time")
        if isinstance(time, (int, float)) and math.isfinite(time):
            self._times[record["frame"]] = float(time)
        self._objects.update(map(int, record["objects"]))
