"""Which frame to correct next: the rules that are compared.

Each is given an object as it is now and the frames that can be corrected: those that show the object (nobody can mark
what is not there) and have no prompt yet.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from eval.interact.corrected import Corrected
from sam2long.known import Row
from sam2long.tracking.report import ABSENT, UNCERTAIN

Rule = Callable[[Corrected, Sequence[int], random.Random], "int | None"]
REACH = 6  # frames after which a correction mends a third of what it mends beside it
FINE = 75.0  # J of a frame, in percent, below which SAM 2's annotator stops in the online setting


def at_random(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """Any frame."""
    return rng.choice(list(frames))


def even(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """Half of the video, then a quarter and three, then the eighths."""
    place, share, number = 0.0, 0.5, len(video.prompts)
    while number:  # van der Corput's sequence
        place, share, number = place + share * (number % 2), share / 2, number // 2
    place *= len(video.masks) - 1
    return min(frames, key=lambda frame: (abs(frame - place), frame))


def middle(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """The middle of the longest stretch without a prompt: what the page offers (sam2long/doubt.py)."""
    edges = [-1, *sorted(video.prompts), len(video.masks)]
    start, end = max(zip(edges, edges[1:], strict=False), key=lambda gap: gap[1] - gap[0])
    return min(frames, key=lambda frame: (abs(frame - (start + end) / 2), frame))


def worth(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """Where most is expected to be wrong nearby: a logistic fit to 1 - J&F, summed as far as a correction reaches.

    Fitted on 19 composed and generated clips with scripts/fit_doubt.py of commit a5b7b8e.
    """
    edges = [-1, *sorted(video.prompts), len(video.seen)]

    def mends(frame: int) -> float:
        first, last = max(e for e in edges if e < frame), min(e for e in edges if e > frame)
        return sum(_wrong(video.seen[t]) * math.exp(-abs(t - frame) / REACH) for t in range(first + 1, last))

    return max(frames, key=lambda frame: (mends(frame), -frame))


def _wrong(row: Row | None) -> float:
    if row is None:
        return 0.0
    poor, rival = _signs(row)
    unsure, gone = row.status == UNCERTAIN, row.status == ABSENT
    return 1 / (1 + math.exp(1.43 + 1.57 * unsure + 0.88 * gone - 3.02 * poor - 1.15 * rival))


def _signs(row: Row) -> tuple[float, float]:
    """How far the predicted IoU is from 1, and how close the runner-up is; both 0 to 1."""
    poor = 0.0 if row.status == ABSENT or not math.isfinite(row.iou) else 1 - min(max(row.iou, 0.0), 1.0)
    return poor, math.exp(-max(row.margin, 0.0)) if row.pathways > 1 else 0.0


def doubtful(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """The frame on which the tracker doubts most itself: what the page offered before 0.1.0."""

    def doubted(frame: int) -> float:
        row = video.seen[frame]
        if row is None:
            return 0.0
        poor, close = _signs(row)
        return 0.5 * (row.status == UNCERTAIN) + 0.3 * poor + 0.2 * close

    return max(frames, key=lambda frame: (doubted(frame), -frame))


def oracle(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """The worst frame by the truth: SAM 2's offline setting."""
    return min(frames, key=lambda frame: (video.score(frame), frame))


def online(video: Corrected, frames: Sequence[int], rng: random.Random) -> int | None:
    """SAM 2's online setting: the first frame after the last correction whose mask is poor, by the truth."""
    last = max(video.prompts)
    return next((frame for frame in frames if frame > last and video.iou(frame) < FINE), None)


RULES: dict[str, Rule] = {
    "random": at_random,
    "even": even,
    "middle": middle,
    "doubtful": doubtful,
    "worth": worth,
    "oracle": oracle,
    "online": online,
}
FORWARD_ONLY = {"online"}  # what is tracked after a correction goes to the end, as in SAM 2


def looked_at(rule: str, video: Corrected) -> int:
    """Frames that somebody who goes by the rule has looked at, after the first prompt, to correct a video as it is now.

    Rules name a frame, at which one looks. Online one looks at frame after frame up to the correction; the oracle, to
    know the worst, at all of them in each round.
    """
    corrections, first = len(video.prompts) - 1, min(video.prompts)
    if rule == "oracle":
        return corrections * (len(video.masks) - 1 - first)
    return max(video.prompts) - first if rule in FORWARD_ONLY else corrections
