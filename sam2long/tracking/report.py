"""What the tracker thought of every frame that it handed out: the numbers behind `track_report`."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """One object on one frame, as handed out. Times are a track's: they count upwards."""

    time: int
    rank: int  # of the mask among the different candidates kept on this frame; 0 is the best
    iou: float
    object_logit: float
    certain: bool  # some pathway was sure of presence or absence
    pathways: int
    margin: float
    memory_times: tuple[int, ...]
    prompted: bool = False

    @property
    def status(self) -> str:
        if not self.certain:
            return UNCERTAIN
        return VISIBLE if self.object_logit > 0 else ABSENT


class TrackLog:
    """Reports of one track, in the order of time.

    Plain arrays: a frame costs about a hundred bytes, so a day of video stays small. With a `limit`, the
    oldest reports go when there are twice as many.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._times = array("q")
        self._numbers = array("f")  # iou, object_logit, margin
        self._flags = array("h")  # rank, certain, pathways, prompted
        self._memory_times = array("i")
        self._memory_ends = array("q")  # where each row's end in `_memory_times`

    def __len__(self) -> int:
        return len(self._times)

    def __iter__(self) -> Iterator[FrameReport]:
        return (self._row(row) for row in range(len(self)))

    def times(self) -> list[int]:
        """The logged frames."""
        return list(self._times)

    def first(self) -> int | None:
        """The time of the first logged frame."""
        return self._times[0] if self._times else None

    def last(self) -> int | None:
        """The time of the last logged frame."""
        return self._times[-1] if self._times else None

    def rank_at(self, time: int) -> int | None:
        """Which of the frame's candidates was handed out; None when it has not been."""
        row = self._find(time)
        return None if row is None else self._flags[4 * row]

    def at(self, time: int) -> FrameReport | None:
        """The report of one frame; None when it has not been handed out."""
        row = self._find(time)
        return None if row is None else self._row(row)

    def _find(self, time: int) -> int | None:
        row = bisect_left(self._times, time)
        return row if row < len(self) and self._times[row] == time else None

    def write(self, report: FrameReport) -> None:
        """Add a frame at the end; a frame that is there already is the same one again and stays."""
        if self._find(report.time) is not None:
            return
        self._times.append(report.time)
        self._numbers.extend((report.iou, report.object_logit, report.margin))
        self._flags.extend((report.rank, report.certain, report.pathways, report.prompted))
        self._memory_times.extend(report.memory_times)
        self._memory_ends.append(len(self._memory_times))
        if self.limit is not None and len(self) >= 2 * self.limit:
            self._drop_oldest(len(self) - self.limit)

    def _drop_oldest(self, count: int) -> None:
        dropped = self._memory_ends[count - 1]
        del self._times[:count], self._numbers[: 3 * count], self._flags[: 4 * count], self._memory_times[:dropped]
        self._memory_ends = array("q", (end - dropped for end in self._memory_ends[count:]))

    def truncate(self, after: int) -> None:
        """Drop the frames later than `after`."""
        keep = bisect_left(self._times, after + 1)
        del self._times[keep:], self._numbers[3 * keep :], self._flags[4 * keep :], self._memory_ends[keep:]
        del self._memory_times[self._memory_ends[-1] if keep else 0 :]

    def _row(self, row: int) -> FrameReport:
        iou, logit, margin = self._numbers[3 * row : 3 * row + 3]
        rank, certain, pathways, prompted = self._flags[4 * row : 4 * row + 4]
        start = self._memory_ends[row - 1] if row else 0
        return FrameReport(
            time=self._times[row],
            rank=rank,
            iou=iou,
            object_logit=logit,
            certain=bool(certain),
            pathways=pathways,
            margin=margin,
            memory_times=tuple(self._memory_times[start : self._memory_ends[row]]),
            prompted=bool(prompted),
        )

    def to_json(self) -> list[list]:
        """Rows of plain values; `from_json` reads them back, to the bit."""
        return [
            [r.time, r.rank, _plain(r.iou), r.object_logit, r.certain, r.pathways, _plain(r.margin),
             list(r.memory_times), r.prompted]
            for r in self
        ]  # fmt: skip

    @classmethod
    def from_json(cls, rows: list[list]) -> TrackLog:
        log = cls()
        for time, rank, iou, logit, certain, pathways, margin, memory_times, prompted in rows:
            log.write(
                FrameReport(
                    time=time,
                    rank=rank,
                    iou=float(iou),
                    object_logit=logit,
                    certain=certain,
                    pathways=pathways,
                    margin=float(margin),
                    memory_times=tuple(memory_times),
                    prompted=prompted,
                )
            )
        return log


def _plain(number: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return number if math.isfinite(number) else str(number)


def to_frame(logs: Iterable[tuple[Any, int, Iterable[FrameReport]]]) -> pd.DataFrame:
    """A table with the columns in COLUMNS, sorted by frame; objects in the order in which they were added.

    Args:
        logs: an object's id, the direction of a track of it, and the track's reports; of two reports of a frame the
            later one counts.
    """
    import pandas as pd  # here: it takes longer to import than the rest of the package

    rows: dict = {}
    order: dict = {}
    for obj_id, direction, reports in logs:
        order.setdefault(obj_id, len(order))
        for r in reports:
            frame, memory_frames = r.time * direction, tuple(time * direction for time in r.memory_times)
            rows[frame, obj_id] = (
                frame, obj_id, r.prompted, r.iou, r.object_logit, r.status, r.pathways, r.margin, memory_frames
            )  # fmt: skip
    keys = sorted(rows, key=lambda key: (key[0], order[key[1]]))
    return pd.DataFrame([rows[key] for key in keys], columns=list(COLUMNS))
