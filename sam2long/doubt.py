"""Where to look next: how wrong each mask is expected to be, and how much of that a correction could mend.

A correction mends the frames around it, less and less with the distance, and none beyond the next prompt. So a frame
is worth a look when much is expected to be wrong around it, not when it is the most doubtful one itself: there the
object is often hidden or gone, and its mask teaches the tracker little. All places in the program that send a user to
a frame ask `worth` or `looks`.

How much each sign weighs and how far a correction reaches are in doubt.json, fitted by scripts/fit_doubt.py.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from sam2long.tracking.report import ABSENT, UNCERTAIN

LOW_IOU = 0.5  # a mask that its own decoder expects to share less than half with the truth
CLOSE_MARGIN = math.log(1.1)  # scores are sums of log IoU: the runner-up is within ten percent
DISAGREE = 0.5  # IoU of the masks of two passes
LEAST_WORTH = 0.05  # below, a look is not worth the click;
LEAST_SHARE = 0.4  # nor when it is worth less than this share of the best one

UNSURE, POOR, CLOSE = "unsure if it is there", "low predicted IoU", "close rival"
APART = "the two directions disagree"
GRAVEST = APART, UNSURE, POOR, CLOSE  # the order in which a user is told

_FITTED = json.loads((Path(__file__).parent / "doubt.json").read_text(encoding="utf-8"))
_WEIGHTS: dict[str, float] = _FITTED["coefficients"]
REACH: float = _FITTED["reach"]  # frames after which a correction mends a third of what it mends beside it
_FADES = math.exp(-1 / REACH)  # from one frame to the next
_ALL = (1 + _FADES) / (1 - _FADES)  # what a correction would be worth if everything were wrong


class Sign(Protocol):
    """What the tracker says of a mask: the fields as in `track_report`."""

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
    worth: float
    why: list[str]  # in words


def looks(rows: Mapping[int, Sign], most: int = 50) -> list[Look]:
    """The frames of one object to look at, the best one first.

    Args:
        rows: frame -> what the tracker says of it; where a row has an `agreement`, see `reasons`.
        most: how many at most.
    """
    doubts, prompted = doubts_of(rows)
    said = {
        frame: reasons(row.status, row.iou, row.pathways, row.margin, row.prompted, getattr(row, "agreement", None))
        for frame, row in rows.items()
    }
    return [Look(frame, value, why(frame, said, prompted)) for frame, value in where_to_look(doubts, prompted, most)]


def doubts_of(rows: Mapping[int, Sign]) -> tuple[dict[int, float], set[int]]:
    """What `worth` and `where_to_look` take: frame -> `doubt`, and the frames with a prompt."""
    found = {at: doubt(row.status, row.iou, row.pathways, row.margin, row.prompted) for at, row in rows.items()}
    return found, {frame for frame, row in rows.items() if row.prompted}


def signs(status: str, iou: float, pathways: int, margin: float) -> dict[str, float]:
    """What the expectation is made of; each is 0 to 1."""
    gone = status == ABSENT
    poor = 0.0 if gone or not math.isfinite(iou) else 1 - min(max(iou, 0.0), 1.0)  # of an empty mask it says nothing
    return {
        "always": 1.0,
        "unsure": float(status == UNCERTAIN),
        "absent": float(gone),
        "1 - iou": poor,
        "rival": math.exp(-max(margin, 0.0)) if pathways > 1 else 0.0,
    }


def doubt(status: str, iou: float, pathways: int, margin: float, prompted: bool = False) -> float:
    """How wrong a mask is expected to be: 1 less J&F, 0 to 1; 0 where the user has said where the object is.

    Args:
        status, iou, pathways, margin, prompted: as in `track_report`.
    """
    if prompted:
        return 0.0
    found = signs(status, iou, pathways, margin)
    return 1 / (1 + math.exp(-sum(_WEIGHTS[name] * value for name, value in found.items())))


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


def worth(doubts: Mapping[int, float], prompted: Collection[int] = ()) -> dict[int, float]:
    """How much of what is expected to be wrong a correction on each frame could mend, 0 to 1.

    Args:
        doubts: frame -> `doubt`, of one object.
        prompted: frames on which the user has said where it is: their worth is 0, and nothing reaches beyond them.
    """
    found: dict[int, float] = {}
    for gap in _gaps(doubts, prompted):
        found.update(_within(gap, doubts))
    return dict.fromkeys(prompted, 0.0) | found


def where_to_look(
    doubts: Mapping[int, float], prompted: Collection[int] = (), most: int = 50
) -> list[tuple[int, float]]:
    """(frame, worth) of the frames to look at, the best one first.

    Each comes as if the ones before it had been corrected: they are spread over what is in doubt.

    Args:
        doubts, prompted: as for `worth`. most: how many at most; fewer where no more is worth a look.
    """
    waiting: list[tuple[float, int, list[int]]] = []

    def offer(gap: list[int]) -> None:
        if gap:
            values = _within(gap, doubts)
            best = max(gap, key=lambda frame: (values[frame], -frame))
            if values[best] >= LEAST_WORTH:
                heapq.heappush(waiting, (-values[best], best, gap))

    for gap in _gaps(doubts, prompted):
        offer(gap)
    found: list[tuple[int, float]] = []
    while waiting and len(found) < most:
        value, best, gap = heapq.heappop(waiting)
        if found and -value < LEAST_SHARE * found[0][1]:
            break
        found.append((best, -value))
        at = gap.index(best)
        offer(gap[:at])
        offer(gap[at + 1 :])
    return found


def why(frame: int, said: Mapping[int, Collection[str]], prompted: Collection[int] = ()) -> list[str]:
    """In words, why a frame is worth a look: what speaks against the masks that a correction there reaches.

    Args:
        frame: of `where_to_look`. said: frame -> `reasons`, of all frames of the object.
        prompted: as for `worth`.
    """
    first = max((prompt for prompt in prompted if prompt < frame), default=-math.inf)
    last = min((prompt for prompt in prompted if prompt > frame), default=math.inf)
    gap = [at for at in said if first < at < last]
    around = [at for at in gap if abs(at - frame) <= REACH]
    counts = Counter(reason for at in around for reason in said[at])
    words = [f"{reason} on {counts[reason]} of {len(around)} frames around" for reason in GRAVEST if counts[reason]]
    return [*words, f"{len(gap)} frames that nobody has looked at"]


def _gaps(doubts: Mapping[int, float], prompted: Collection[int]) -> list[list[int]]:
    """The frames between prompts, in order."""
    gaps: list[list[int]] = [[]]
    for frame in sorted({*doubts, *prompted}):
        if frame in prompted:
            gaps.append([])
        else:
            gaps[-1].append(frame)
    return [gap for gap in gaps if gap]


def _within(gap: list[int], doubts: Mapping[int, float]) -> dict[int, float]:
    """Worth of the frames of a gap: the doubts around each, less the farther away."""
    before = _summed(gap, doubts)
    after = _summed(gap[::-1], doubts)
    return {frame: (before[frame] + after[frame] - doubts[frame]) / _ALL for frame in gap}


def _summed(frames: list[int], doubts: Mapping[int, float]) -> dict[int, float]:
    """For each frame its doubt and those of the frames before it, fading."""
    found, total, last = {}, 0.0, frames[0]
    for frame in frames:
        total = total * _FADES ** abs(frame - last) + doubts[frame]
        found[frame], last = total, frame
    return found
