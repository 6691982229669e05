"""MOSEv2's J, F and F-dot of one object in one frame: smoothed J, and a tolerance that shrinks with the object."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from eval.metrics import masks

AREA_FRACTION = 0.1  # F-dot's radius as a share of the square root of the object's area


class MoseScores(NamedTuple):
    J: float
    F: float
    F_dot: float


def radii(gt_area: int, shape: tuple[int, int]) -> tuple[float, float]:
    """(radius of F, radius of F-dot).

    A small object gets ceil(0.1 * sqrt(area)) for F-dot and the rounded-up limit for F. From where that reaches the
    limit, both use the limit as it is, not rounded: see `masks.disk` for what that means."""
    limit = masks.BOUND_FRACTION * masks.diagonal(shape)
    side = math.sqrt(gt_area) if gt_area else masks.diagonal(shape)
    adaptive = math.ceil(AREA_FRACTION * side)
    return (math.ceil(limit), adaptive) if adaptive < limit else (limit, limit)


def smoothed_j(inter: int, union: int) -> float:
    """(I+1)/(U+1): one false pixel on an empty frame costs half, a hundred cost 99 %."""
    return min((inter + 1) / (union + 1), 1.0) if union else 1.0


def scores(gt: np.ndarray, pred: np.ndarray, frame: tuple[int, int] | None = None) -> MoseScores:
    """One object in one frame.

    Args:
        gt, pred: [H, W] bool or any number type; not 0 is the object.
        frame: size of the whole frame, when the masks are its `masks.content`.
    Raises:
        ValueError: the two shapes differ.
    """
    if gt.shape != pred.shape:
        raise ValueError(f"prediction is {pred.shape}, ground truth {gt.shape}; expected equal [H, W]")
    shape, crops = frame or gt.shape, masks.cropped(masks.as_uint8(gt), masks.as_uint8(pred))
    if crops is None:
        return MoseScores(1.0, 1.0, 1.0)
    gt, pred = crops
    area = cv2.countNonZero(gt)
    inter = cv2.countNonZero(cv2.bitwise_and(gt, pred))
    j = smoothed_j(inter, area + cv2.countNonZero(pred) - inter)
    b_gt, b_pred = masks.boundary_map(gt), masks.boundary_map(pred)
    n_gt, n_pred = cv2.countNonZero(b_gt), cv2.countNonZero(b_pred)

    def f(radius: float) -> float:
        near = masks.matches(b_gt, b_pred, radius) if n_gt and n_pred else (0, 0)
        return masks.f_from_counts(n_gt, n_pred, *near)

    radius_f, radius_dot = radii(area, shape)
    f_plain = f(radius_f)
    return MoseScores(j, f_plain, f_plain if radius_dot == radius_f else f(radius_dot))
