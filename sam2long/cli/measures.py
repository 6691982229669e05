"""J and F of masks as DAVIS defines them, in plain numpy; eval/metrics has the fast ones, for benchmarks."""

from __future__ import annotations

import math

import numpy as np

TOLERANCE = 0.008  # of the boundary, as a share of the frame's diagonal


def j_and_f(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Region similarity J and boundary measure F of one object on one frame; both 1 where both masks are empty.

    Args:
        truth, found: [H, W] bool.
    """
    union = int((truth | found).sum())
    j = float((truth & found).sum() / union) if union else 1.0
    edge, other = boundary(truth), boundary(found)
    if not edge.any() or not other.any():
        return j, float(edge.any() == other.any())
    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    precision = (other & _widened(edge, radius)).sum() / other.sum()
    recall = (edge & _widened(other, radius)).sum() / edge.sum()
    return j, float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """[H, W] bool: pixels that differ from the one to the right, below, or below to the right."""
    wide = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != wide[:-1, 1:]) | (mask != wide[1:, :-1]) | (mask != wide[1:, 1:])


def _widened(edge: np.ndarray, radius: int) -> np.ndarray:
    """Pixels with a pixel of `edge` at most `radius` away."""
    height, width = edge.shape
    wide, near = np.pad(edge, radius), np.zeros_like(edge)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx <= radius * radius:
                near |= wide[radius + dy : radius + dy + height, radius + dx : radius + dx + width]
    return near
