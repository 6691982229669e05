"""Which frame to correct next: the rules that are compared.

Each is given an object as it is now and the frames that can be corrected: those that show the object (nobody can mark
what is not there) and have no prompt yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from eval.interact.corrected import Corrected
from sam2long.doubt import doubt, ranked

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


def doubtful(video: Corrected, frames: Sequence[int], rng: random.Random) -> int:
    """The frame on which the tracker doubts most: the rule before 0.1.0."""
    seen = {t: row for t, row in enumerate(video.seen) if row is not None and t in set(frames)}
    return ranked([(t, doubt(row.status, row.iou, row.pathways, row.margin)) for t, row in seen.items()])[0]


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
    "oracle": oracle,
    "online": online,
}
FORWARD_ONLY = {"online"}  # what is tracked after a correction goes to the end, as in SAM 2
