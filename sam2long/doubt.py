"""Which frames to look at, and what the tracker itself says against its masks there.

The frames are spread evenly: the middle of the longest stretch that nobody has looked at, then that of the longest
one that is left. Nothing that the tracker says of its masks has been shown to find better ones: docs/annotate.md.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from sam2long.tracking.report import ABSENT, UNCERTAIN

LOW_IOU = 0.5  # a mask that its own decoder expects to share less than half with the truth
CLOSE_MARGIN = math.log(1.1)  # scores are sums of log IoU: the runner-up is within ten percent
DISAGREE = 0.5  # IoU of the masks of two passes
SHORT = 5  # frames; a shorter stretch is not worth a look

UNSURE, POOR, CLOSE = "unsure if it is there", "low predicted IoU", "close rival"
APART = "the two directions disagree"


class Sign(Protocol):
    """What is known of a mask: the fields as in `track_report`."""

    @property
    def status(self) -> str: ...
    @property
    def iou(self) -> float: ...
    @property
    def pathways(self) -> int: ...
    @property
    def margin(self) -> float: ...
    @property
    def prompted(self) -> bool: ...


class Look(NamedTuple):
    """A frame to look at."""

    frame: int
    stretch: int  # how many frames, this one among them, lie between the prompts around it
    why: list[str]  # in words


def reasons(
    status: str, iou: float, pathways: int, margin: float, prompted: bool = False, agreement: float | None = None
) -> list[str]:
    """What speaks against a mask, in words; empty when nothing does.

    Args:
        status, iou, pathways, margin, prompted: as in `track_report`.
        agreement: IoU with the mask of a pass the other way, where there was one.
    """
    if prompted:
        return []
    found = [APART] if agreement is not None and agreement < DISAGREE else []
    if status == UNCERTAIN:
        found.append(UNSURE)
    if status != ABSENT and iou < LOW_IOU:
        found.append(POOR)
    if pathways > 1 and margin < CLOSE_MARGIN:
        found.append(CLOSE)
    return found


def reasons_of(row: Sign) -> list[str]:
    """The same of a row; it may have an `agreement`."""
    return reasons(row.status, row.iou, row.pathways, row.margin, row.prompted, getattr(row, "agreement", None))


def looks(rows: Mapping[int, Sign], most: int = 50) -> list[Look]:
    """The frames of one object to look at, the one in the longest stretch first.

    Each comes as if the ones before it had been looked at.

    Args:
        rows: frame -> what is known of it; a prompted frame has been looked at.
        most: how many at most.
    """
    waiting: list[tuple[int, int, list[int]]] = []

    def offer(stretch: list[int]) -> None:
        if len(stretch) >= SHORT:
            heapq.heappush(waiting, (-len(stretch), stretch[0], stretch))

    stretch: list[int] = []
    for frame in sorted(rows):
        if rows[frame].prompted:
            offer(stretch)
            stretch = []
        else:
            stretch.append(frame)
    offer(stretch)
    found: list[Look] = []
    while waiting and len(found) < most:
        _, _, stretch = heapq.heappop(waiting)
        at = _middle(stretch, rows)
        why = [*reasons_of(rows[stretch[at]]), f"the middle of {len(stretch)} frames that nobody has looked at"]
        found.append(Look(stretch[at], len(stretch), why))
        offer(stretch[:at])
        offer(stretch[at + 1 :])
    return found


def _middle(stretch: list[int], rows: Mapping[int, Sign]) -> int:
    """The place nearest to the middle where there is something to see."""
    middle = len(stretch) // 2
    seen = [at for at, frame in enumerate(stretch) if rows[frame].status != ABSENT]
    return min(seen or [middle], key=lambda at: abs(at - middle))
