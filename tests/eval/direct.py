"""J and F straight from their definition, with numpy loops: slow, and the reference of the fast ones."""

from __future__ import annotations

import math

import numpy as np


def boundary(mask: np.ndarray) -> np.ndarray:
    h, w = mask.shape
    m = mask.astype(bool)
    b = np.zeros((h, w), bool)
    for y in range(h):
        for x in range(w):
            right = m[y, x + 1] if x + 1 < w else False
            below = m[y + 1, x] if y + 1 < h else False
            corner = m[y + 1, x + 1] if x + 1 < w and y + 1 < h else False
            if x == w - 1 and y == h - 1:
                b[y, x] = False
            elif x == w - 1:
                b[y, x] = m[y, x] != below
            elif y == h - 1:
                b[y, x] = m[y, x] != right
            else:
                b[y, x] = m[y, x] != right or m[y, x] != below or m[y, x] != corner
    return b


def near(of: np.ndarray, to: np.ndarray, radius: int) -> int:
    """How many points of one map have a point of the other within the radius."""
    targets = np.argwhere(to)
    return (
        sum(bool(((targets - p) ** 2).sum(axis=1).min() <= radius**2) for p in np.argwhere(of)) if len(targets) else 0
    )


def j_and_f(gt: np.ndarray, pred: np.ndarray) -> tuple[float, float]:
    gt, pred = gt.astype(bool), pred.astype(bool)
    union = (gt | pred).sum()
    j = (gt & pred).sum() / union if union else 1.0
    radius = math.ceil(0.008 * math.sqrt(gt.shape[0] ** 2 + gt.shape[1] ** 2))
    b_gt, b_pred = boundary(gt), boundary(pred)
    if not b_gt.any() or not b_pred.any():
        return float(j), 1.0 if b_gt.any() == b_pred.any() else 0.0
    precision, recall = near(b_pred, b_gt, radius) / b_pred.sum(), near(b_gt, b_pred, radius) / b_gt.sum()
    return float(j), 2 * precision * recall / (precision + recall) if precision + recall else 0.0
