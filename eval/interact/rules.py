"""Which frame to correct next: the rules that are compared.

Each is given an object as it is now and the frames that can be corrected: those that show the object (nobody can mark
what is not there) and have no prompt yet.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from eval.interact.corrected import Corrected
from sam2long.doubt import doubts_of, worth
from sam2long.tracking.report import ABSENT, UNCERTAIN

Rule = Callable[[Corrected, Sequence[int], random.Random], "int | None"]
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
    """The middle of the longest stretch without a prompt."""
    edges = [-1, *sorted(video.prompts), len(video.masks)]
    start, end = max(zip(edges, edges[1:], strict=False), key=lambda gap: gap[1] - gap[0])
    return min(frames, key=lambda frame: (abs(frame - (start + end) / 2), frame))


def best_worth(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """Ours: the frame where a correction is expected to mend most."""
    values = worth(*doubts_of({t: row for t, row in enumerate(video.seen) if row is not None}))
    return max(frames, key=lambda frame: (values.get(frame, 0.0), -frame))


def doubtful(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """Ours until 2026-11: the frame that was most doubtful itself."""

    def doubted(frame: int) -> float:
        row = video.seen[frame]
        if row is None:
            return 0.0
        poor = 0.0 if row.status == ABSENT or not math.isfinite(row.iou) else 1 - min(max(row.iou, 0.0), 1.0)
        close = math.exp(-max(row.margin, 0.0)) if row.pathways > 1 else 0.0
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
    "worth": best_worth,
    "oracle": oracle,
    "online": online,
}
FORWARD_ONLY = {"online"}  # what is tracked after a correction goes to the end, as in SAM 2
