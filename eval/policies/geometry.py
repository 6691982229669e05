"""Boxes and parts of masks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

Box = tuple[float, float, float, float]  # x0, y0, x1, y1, the last two outside


def box_of(mask: np.ndarray) -> Box | None:
    """The box around a bool [H, W] mask, in its pixels; None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def box_iou(one: Box, other: Box) -> float:
    shared = area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))
    either = area(one) + area(other) - shared
    return shared / either if either > 0 else 0.0


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a bool mask."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 0.0
