"""Where two passes over the same frames meet: one from the prompt before them, one from the prompt after them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ABOUT = 2  # frames on either side that are looked at together: one frame agrees by chance


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two masks [H, W] bool; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return 1.0 if union == 0 else np.count_nonzero(a & b) / union


def meeting(agreements: Sequence[float]) -> int:
    """How many of the frames go to the first pass; the others go to the second.

    The passes meet where they agree best, over a few frames; of equals where it is nearest to the middle. A pass is
    good near the prompt that it comes from, and where one has lost the object the two disagree.

    Args:
        agreements: IoU of the two masks on each frame, in the order of the first pass.
    """
    count = len(agreements)
    if count == 0:
        return 0
    known = np.asarray(agreements, float)
    smooth = np.array([known[max(0, t - ABOUT) : t + ABOUT + 1].mean() for t in range(count)])
    middle = (count - 1) / 2
    best = min(range(count), key=lambda t: (-round(smooth[t], 2), abs(t - middle)))
    return best + 1 if best < middle else best
