"""Where to look first: how much the tracker itself doubted a frame, from what `track_report` says of it.

Three signs, each of which a user can do something about: the tracker was sure neither of presence nor of absence
(uncertain), it expects its own mask to be poor (low predicted IoU), or different hypotheses run neck and neck
(a small margin while more than one is alive; with one alive, the margin only compares its three near copies).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sam2long.tracking.report import ABSENT, UNCERTAIN

LOW_IOU = 0.5  # a mask that its own decoder expects to share less than half with the truth
CLOSE_MARGIN = math.log(1.1)  # scores are sums of log IoU: the runner-up is within ten percent
UNCERTAIN_SHARE, IOU_SHARE, MARGIN_SHARE = 0.5, 0.3, 0.2  # of the score; an uncertain frame beats any certain one

UNSURE, POOR, CLOSE = "unsure if it is there", "low predicted IoU", "close rival"


def doubt(status: str, iou: float, pathways: int, margin: float, prompted: bool = False) -> float:
    """How doubtful a frame is, 0 (prompted, or sure) to 1.

    Args:
        status, iou, pathways, margin, prompted: as in `track_report`.
    """
    if prompted:
        return 0.0
    score = UNCERTAIN_SHARE if status == UNCERTAIN else 0.0
    if status != ABSENT and math.isfinite(iou):  # the decoder's opinion of an empty mask says nothing
        score += IOU_SHARE * (1 - min(max(iou, 0.0), 1.0))
    if pathways > 1:
        score += MARGIN_SHARE * math.exp(-max(margin, 0.0))
    return score


def reasons(status: str, iou: float, pathways: int, margin: float, prompted: bool = False) -> list[str]:
    """Why a user should look at a frame, in words; empty when there is no need."""
    if prompted:
        return []
    found = [UNSURE] if status == UNCERTAIN else []
    if status != ABSENT and iou < LOW_IOU:
        found.append(POOR)
    if pathways > 1 and margin < CLOSE_MARGIN:
        found.append(CLOSE)
    return found


def next_stretch(doubtful: Iterable[int], after: int, backward: bool = False) -> int | None:
    """The frame where the next stretch of doubtful frames begins; None when there is none.

    Neighbouring doubtful frames are one stretch: correcting where it begins often mends all of it.

    Args:
        doubtful: frame indices.
        after: where the user is; a stretch that begins here does not count.
        backward: look before `after` instead.
    """
    frames = set(doubtful)
    begins = [frame for frame in frames if frame - 1 not in frames]
    if backward:
        return max((frame for frame in begins if frame < after), default=None)
    return min((frame for frame in begins if frame > after), default=None)


def ranked(scores: Sequence[tuple[int, float]]) -> list[int]:
    """Frames from the most doubtful to the least; the earlier one first where they are equal.

    Args:
        scores: (frame, doubt) pairs; of several with one frame the highest counts.
    """
    highest: dict[int, float] = {}
    for frame, score in scores:
        highest[frame] = max(score, highest.get(frame, 0.0))
    return sorted(highest, key=lambda frame: (-highest[frame], frame))
