"""Where two passes over the same frames meet: one from the prompt before them, one from the prompt after them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

GONE = 0.95  # trust in an empty mask: the decoder's estimate of its IoU says nothing, and it is rarely wrong
NO_OPINION = 0.5
MISSES = 0.5  # of the trust in a pass is lost at a prompt that it would have missed entirely


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two masks [H, W] bool; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return 1.0 if union == 0 else np.count_nonzero(a & b) / union


def trust(iou: float, object_logit: float) -> float:
    """How good a pass expects its mask to be, 0 to 1. iou, object_logit: as in `track_report`."""
    if object_logit <= 0:
        return GONE
    return iou if math.isfinite(iou) else NO_OPINION


def meeting(first: Sequence[float], second: Sequence[float], agreements: Sequence[float]) -> int:
    """How many of the frames go to the first pass; the others go to the second.

    They meet where the masks that are kept are expected to be best, all of them together; of equal places at the one
    nearest to the middle. A pass is trusted less on its way to the other one's prompt the more it would have missed
    that. (Meeting where both agree best was tried before: a pass that has lost the object often finds it again near
    the other prompt, and on composed clips half of what corrections gained was lost.)

    Args:
        first, second: each pass's own `trust` in its mask on each frame, in the order of the first pass.
        agreements: IoU of the two masks on each frame.
    """
    count = len(first)
    if not count:
        return 0
    way = np.arange(1, count + 1) / (count + 1)
    one = np.asarray(first) * (1 - MISSES * (1 - agreements[-1]) * way)
    other = np.asarray(second) * (1 - MISSES * (1 - agreements[0]) * (1 - way))
    kept = np.concatenate([[0.0], np.cumsum(one)]) + np.concatenate([np.cumsum(other[::-1])[::-1], [0.0]])
    best = np.flatnonzero(kept >= kept.max() - 1e-6)
    return int(min(best, key=lambda place: (abs(place - count / 2), place)))
