"""Region similarity J and boundary measure F of one object in one frame, exact and cropped.

Both masks are cropped to the union of their boxes plus one pixel on every side that the frame still has. That is exact:
outside the boxes both masks are 0, so no boundary pixel lies outside the crop, the extra pixel holds the part of the
boundary that falls on the background (the boundary map is shifted half a pixel to the origin), and the rules for the last
row and column of the frame give 0 on a crop edge that is not a frame edge, as they must.
Dilated boundaries are only read where the other mask has boundary, so the crop needs no margin for the radius.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

BOUND_FRACTION = 0.008  # radius of the tolerance disk as a share of the frame diagonal, as in DAVIS
DILATE_UP_TO = 2_000_000  # pixels of the crop times pixels of the disk; above this, sums over rectangles are faster


class Scores(NamedTuple):
    J: float
    F: float


class Counts(NamedTuple):
    """What J and F need. `boundary_*` count boundary pixels, `match_*` those with the other boundary in reach."""

    inter: int
    union: int
    boundary_gt: int
    boundary_pred: int
    match_gt: int
    match_pred: int

    @property
    def j(self) -> float:
        return self.inter / self.union if self.union else 1.0

    @property
    def f(self) -> float:
        return f_from_counts(self.boundary_gt, self.boundary_pred, self.match_gt, self.match_pred)


def f_from_counts(boundary_gt: int, boundary_pred: int, match_gt: int, match_pred: int) -> float:
    """F from boundary counts. Emptiness is judged on boundaries, not masks: a full-frame mask has none, so against an
    empty mask it gives F = 1 (and J = 0). That is what the official tools do."""
    if boundary_gt == 0 or boundary_pred == 0:
        return 1.0 if boundary_gt == boundary_pred else 0.0
    precision, recall = match_pred / boundary_pred, match_gt / boundary_gt
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def as_binary(mask: np.ndarray) -> np.ndarray:
    """[H, W] of any type -> contiguous uint8 0/1; anything but 0 is the object."""
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}; expected two axes [H, W]")
    if mask.dtype == bool:
        return np.ascontiguousarray(mask).view(np.uint8)
    return np.ascontiguousarray(mask != 0).view(np.uint8)


@lru_cache(maxsize=64)
def disk(radius: float) -> np.ndarray:
    """[k, k] uint8: the points of the grid -r, -r+1, ... whose distance to the centre is at most r.

    For an integer radius this is the usual (2r+1)-wide disk. For another radius the grid does not hit 0, so the disk is
    lopsided and k may be even (skimage's formula, which MOSEv2's scorer feeds with a radius that is not rounded)."""
    grid = np.arange(-radius, radius + 1)
    kernel = (grid[:, None] ** 2 + grid[None, :] ** 2 <= radius**2).astype(np.uint8)
    kernel.setflags(write=False)
    return kernel


def diagonal(shape: tuple[int, int]) -> float:
    return math.sqrt(shape[0] ** 2 + shape[1] ** 2)


def davis_radius(shape: tuple[int, int]) -> int:
    return math.ceil(BOUND_FRACTION * diagonal(shape))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """[h, w] uint8, 0 or one other value -> the same: pixels that differ from the one to the right, below, or below to the right.

    The last row looks right only, the last column looks down only, the last corner is never boundary."""
    b = np.zeros_like(mask)
    body = mask[:-1, :-1]
    if body.size:
        right_or_below = cv2.bitwise_or(cv2.bitwise_xor(body, mask[:-1, 1:]), cv2.bitwise_xor(body, mask[1:, :-1]))
        b[:-1, :-1] = cv2.bitwise_or(right_or_below, cv2.bitwise_xor(body, mask[1:, 1:]))
    np.bitwise_xor(mask[-1, :-1], mask[-1, 1:], out=b[-1, :-1])
    np.bitwise_xor(mask[:-1, -1], mask[1:, -1], out=b[:-1, -1])
    return b


def crop_window(gt: np.ndarray, pred: np.ndarray) -> tuple[slice, slice] | None:
    """Union of both boxes plus one pixel on every side inside the frame; None when both masks are empty."""
    boxes = [box for box in (cv2.boundingRect(gt), cv2.boundingRect(pred)) if box[2]]
    if not boxes:
        return None
    h, w = gt.shape
    x0, y0 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x1, y1 = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    return slice(max(y0 - 1, 0), min(y1 + 1, h)), slice(max(x0 - 1, 0), min(x1 + 1, w))


class Reach(NamedTuple):
    """A disk as cv2.dilate sees it from a pixel: offsets, not kernel positions."""

    rows: tuple[tuple[int, int, int], ...]  # (dy, first dx, last dx)
    inner: int  # the square of offsets up to this in both directions lies inside the disk; -1: not even the pixel itself
    outer: int  # and the disk lies inside this one
    points: int


@lru_cache(maxsize=64)
def reach(radius: float) -> Reach:
    kernel = disk(radius)
    anchor = kernel.shape[0] // 2
    rows = []
    for y, row in enumerate(kernel):
        columns = np.flatnonzero(row)
        if columns.size:
            rows.append((y - anchor, int(columns[0]) - anchor, int(columns[-1]) - anchor))
    inside = {(dy, dx) for dy, first, last in rows for dx in range(first, last + 1)}
    inner = -1
    while all(p in inside for p in _square(inner + 1)):
        inner += 1
    outer = max((max(abs(dy), abs(first), abs(last)) for dy, first, last in rows), default=0)
    return Reach(tuple(rows), inner, outer, len(inside))


def _square(half: int) -> list[tuple[int, int]]:
    side = range(-half, half + 1)
    return [(dy, dx) for dy in side for dx in side]


def count_near(of: np.ndarray, to: np.ndarray, radius: float) -> int:
    """How many non-zero pixels of one map have a non-zero pixel of the other inside the disk around them.

    Small maps: dilate. Large ones: only the boundary pixels are looked at, by sums over rectangles. Nearly all are settled by
    the square inside the disk or by the one around it; the few others go through the disk row by row. Both are exact."""
    disk_reach = reach(radius)
    if of.size * disk_reach.points < DILATE_UP_TO or disk_reach.inner < 0:
        return cv2.countNonZero(cv2.bitwise_and(of, cv2.dilate(to, disk(radius))))
    margin = disk_reach.outer
    table = cv2.integral(cv2.copyMakeBorder(to, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0))
    width, table = table.shape[1], table.ravel()
    points = cv2.findNonZero(of)
    points = points.reshape(-1, 2).astype(np.int64)
    at = (points[:, 1] + margin) * width + points[:, 0] + margin

    def any_in(at: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Whether `to` has a pixel at offsets top..bottom, left..right; int32 sums may wrap, their differences do not."""
        upper, lower = at + (top * width + left), at + ((bottom + 1) * width + left)
        across = right + 1 - left
        return (table.take(lower + across) - table.take(lower)) != (table.take(upper + across) - table.take(upper))

    unsure = at[~any_in(at, -disk_reach.inner, disk_reach.inner, -disk_reach.inner, disk_reach.inner)]
    found = len(at) - len(unsure)
    unsure = unsure[any_in(unsure, -margin, margin, -margin, margin)]
    for dy, first, last in disk_reach.rows:
        if not unsure.size:
            break
        left = unsure[~any_in(unsure, dy, dy, first, last)]
        found += len(unsure) - len(left)
        unsure = left
    return found


def matches(boundary_gt: np.ndarray, boundary_pred: np.ndarray, radius: float) -> tuple[int, int]:
    """(boundary pixels of gt near pred's, boundary pixels of pred near gt's)."""
    return count_near(boundary_gt, boundary_pred, radius), count_near(boundary_pred, boundary_gt, radius)


def counts(gt: np.ndarray, pred: np.ndarray, radius: float | None = None) -> Counts:
    """Everything J and F need, for one object in one frame.

    Args:
        gt, pred: [H, W] bool or any number type; not 0 is the object.
        radius: of the tolerance disk in pixels; None for DAVIS's share of the diagonal.
    Raises:
        ValueError: the two shapes differ.
    """
    if gt.shape != pred.shape:
        raise ValueError(f"prediction is {pred.shape}, ground truth {gt.shape}; expected equal [H, W]")
    radius = davis_radius(gt.shape) if radius is None else radius
    return binary_counts(as_binary(gt), as_binary(pred), radius)


def binary_counts(gt: np.ndarray, pred: np.ndarray, radius: float) -> Counts:
    window = crop_window(gt, pred)
    if window is None:
        return Counts(0, 0, 0, 0, 0, 0)
    gt, pred = np.ascontiguousarray(gt[window]), np.ascontiguousarray(pred[window])
    inter = cv2.countNonZero(cv2.bitwise_and(gt, pred))
    union = cv2.countNonZero(gt) + cv2.countNonZero(pred) - inter
    b_gt, b_pred = boundary_map(gt), boundary_map(pred)
    n_gt, n_pred = cv2.countNonZero(b_gt), cv2.countNonZero(b_pred)
    match_gt, match_pred = matches(b_gt, b_pred, radius) if n_gt and n_pred else (0, 0)
    return Counts(inter, union, n_gt, n_pred, match_gt, match_pred)


def region_and_boundary(gt: np.ndarray, pred: np.ndarray) -> Scores:
    """DAVIS's J and F of one object in one frame: the measure of DAVIS, SA-V, vos-benchmark, LVOS and VOST (J)."""
    c = counts(gt, pred)
    return Scores(c.j, c.f)


def object_counts(gt_ids: np.ndarray, pred_ids: np.ndarray, obj: int, radius: float) -> Counts:
    """`counts` for one id of two uint8 id maps."""
    return binary_counts(cv2.compare(gt_ids, obj, cv2.CMP_EQ), cv2.compare(pred_ids, obj, cv2.CMP_EQ), radius)


def ids_in(id_map: np.ndarray) -> list[int]:
    """The ids of a uint8 map, ascending, without the background 0."""
    histogram = cv2.calcHist([id_map], [0], None, [256], [0, 256]).ravel()
    return [int(i) for i in np.flatnonzero(histogram) if i]
