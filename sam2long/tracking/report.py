"""What the tracker thought of every frame that it handed out: the numbers behind `track_report`."""

from __future__ import annotations

import math
import operator
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

VISIBLE, UNCERTAIN, ABSENT = "visible", "uncertain", "absent"

COLUMNS = (
    "frame",  # index in the video
    "obj_id",
    "prompted",  # the user said where the object is
    "iou",  # the decoder's own estimate, 0..1; NaN on a prompted frame
    "object_logit",  # > 0: the object is believed to be visible
    "status",  # visible, uncertain or absent
    "pathways",  # how many different hypotheses were alive after the frame
    "margin",  # how far the best score was ahead of the best different mask (log IoU); inf: nothing else
    "memory_frames",  # the frames whose spatial memory was read, prompted ones first
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReport:
    """One object on one frame, as handed out."""

    frame: int
    slot: int  # place of the mask among the unique candidates kept on this frame
    iou: float
    object_logit: float
    certain: bool  # some pathway was sure of presence or absence
    pathways: int
    margin: float
    memory_frames: tuple[int, ...]
    prompted: bool = False

    @property
    def status(self) -> str:
        if not self.certain:
            return UNCERTAIN
        return VISIBLE if self.object_logit > 0 else ABSENT


class TrackLog:
    """Reports of one object in one direction, in the order of that direction.

    Plain arrays: a frame costs about a hundred bytes, so a day of video stays small. With a `limit`, the
    oldest reports go when there are twice as many.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._frames = array("q")
        self._numbers = array("f")  # iou, object_logit, margin
        self._flags = array("h")  # slot, certain, pathways, prompted
        self._reads = array("i")
        self._read_ends = array("q")  # where each row's reads end in `_reads`

    def copy(self) -> TrackLog:
        other = TrackLog(self.limit)
        for name in ("_frames", "_numbers", "_flags", "_reads", "_read_ends"):
            setattr(other, name, getattr(self, name)[:])
        return other

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[FrameReport]:
        return (self._row(row) for row in range(len(self)))

    def frames(self) -> list[int]:
        """The logged frames, in the order in which time ran."""
        return list(self._frames)

    def first_frame(self) -> int:
        return self._frames[0]

    def reaches_beyond(self, frame: int | None, direction: int) -> bool:
        """Whether a frame later than `frame` is logged, as time runs."""
        return frame is not None and len(self) > 0 and (self._frames[-1] - frame) * direction > 0

    def slot_of(self, frame: int) -> int | None:
        """Which of the frame's candidates was handed out; None when it has not been."""
        row = self._find(frame)
        return None if row is None else self._flags[4 * row]

    def at(self, frame: int) -> FrameReport | None:
        """The report of one frame; None when it has not been handed out."""
        row = self._find(frame)
        return None if row is None else self._row(row)

    def _find(self, frame: int) -> int | None:
        """The row of a frame. Frames go up or down without a break in direction, so halving finds it."""
        falling = len(self) > 1 and self._frames[0] > self._frames[1]
        row = bisect_left(self._frames, -frame, key=operator.neg) if falling else bisect_left(self._frames, frame)
        return row if row < len(self) and self._frames[row] == frame else None

    def write(self, report: FrameReport) -> None:
        """Add a frame at the end; a frame that is there already is the same one again and stays."""
        if self._find(report.frame) is not None:
            return
        self._frames.append(report.frame)
        self._numbers.extend((report.iou, report.object_logit, report.margin))
        self._flags.extend((report.slot, report.certain, report.pathways, report.prompted))
        self._reads.extend(report.memory_frames)
        self._read_ends.append(len(self._reads))
        if self.limit is not None and len(self) >= 2 * self.limit:
            self._drop_oldest(len(self) - self.limit)

    def _drop_oldest(self, count: int) -> None:
        reads = self._read_ends[count - 1]
        del self._frames[:count], self._numbers[: 3 * count], self._flags[: 4 * count], self._reads[:reads]
        self._read_ends = array("q", (end - reads for end in self._read_ends[count:]))

    def truncate(self, after: int, direction: int) -> None:
        """Drop the frames later than `after`, as time runs in `direction`."""
        keep = len(self._frames)
        while keep and (self._frames[keep - 1] - after) * direction > 0:
            keep -= 1
        del self._frames[keep:], self._numbers[3 * keep :], self._flags[4 * keep :], self._read_ends[keep:]
        del self._reads[self._read_ends[-1] if keep else 0 :]

    def _row(self, row: int) -> FrameReport:
        iou, logit, margin = self._numbers[3 * row : 3 * row + 3]
        slot, certain, pathways, prompted = self._flags[4 * row : 4 * row + 4]
        start = self._read_ends[row - 1] if row else 0
        return FrameReport(
            frame=self._frames[row],
            slot=slot,
            iou=iou,
            object_logit=logit,
            certain=bool(certain),
            pathways=pathways,
            margin=margin,
            memory_frames=tuple(self._reads[start : self._read_ends[row]]),
            prompted=bool(prompted),
        )

    def to_json(self) -> list[list]:
        """Rows of plain values; `from_json` reads them back, to the bit."""
        return [
            [r.frame, r.slot, _plain(r.iou), r.object_logit, r.certain, r.pathways, _plain(r.margin),
             list(r.memory_frames), r.prompted]
            for r in self
        ]  # fmt: skip

    @classmethod
    def from_json(cls, rows: list[list]) -> TrackLog:
        log = cls()
        for frame, slot, iou, logit, certain, pathways, margin, reads, prompted in rows:
            log.write(
                FrameReport(
                    frame=frame,
                    slot=slot,
                    iou=float(iou),
                    object_logit=logit,
                    certain=certain,
                    pathways=pathways,
                    margin=float(margin),
                    memory_frames=tuple(reads),
                    prompted=prompted,
                )
            )
        return log


def _plain(number: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return number if math.isfinite(number) else str(number)


def to_frame(logs: list[tuple[int, list[FrameReport]]]) -> pd.DataFrame:
    """A table with the columns in COLUMNS, sorted by frame; objects in the order in which they were added.

    Args:
        logs: (object id, its reports) pairs; a later report of a frame replaces an earlier one.
    """
    import pandas as pd  # here: it takes longer to import than the rest of the package

    rows = {}
    for obj_id, reports in logs:
        for r in reports:
            rows[r.frame, obj_id] = (
                r.frame, obj_id, r.prompted, r.iou, r.object_logit, r.status, r.pathways, r.margin, r.memory_frames
            )  # fmt: skip
    place = {obj_id: i for i, obj_id in enumerate(dict(logs))}
    order = sorted(rows, key=lambda key: (key[0], place[key[1]]))
    return pd.DataFrame([rows[key] for key in order], columns=list(COLUMNS))
