"""Boxes and parts of masks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sam2long.detection import box_iou
from sam2long.tracking import reseed

__all__ = ["Box", "area", "box_iou", "box_of", "largest_part", "mask_iou"]

Box = tuple[float, float, float, float]  # x0, y0, x1, y1, the last two outside


def box_of(mask: np.ndarray) -> Box | None:
    """The box around a bool [H, W] mask, in its pixels; None when it is empty."""
    return reseed.box_of(mask) if mask.any() else None


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a bool mask."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 0.0
