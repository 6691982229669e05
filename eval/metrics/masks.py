"""Region similarity J and boundary measure F of one object in one frame, exact and cropped.

Both masks are cropped to the union of their boxes plus one pixel on every side that the frame still has. That is exact:
outside the boxes both masks are 0, so no boundary pixel lies outside the crop, the extra pixel holds the part of the
boundary that falls on the background (the boundary map is shifted half a pixel to the origin), and the rules for the
last row and column of the frame give 0 on a crop edge that is not a frame edge, as they must.
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

FEW_IDS = 12  # up to this many, comparing with each is faster than a histogram


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


def as_uint8(mask: np.ndarray) -> np.ndarray:
    """[H, W] of any type -> uint8; anything but 0 is the object."""
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}; expected two axes [H, W]")
    if mask.dtype == np.uint8:
        return mask
    return (mask if mask.dtype == bool else mask != 0).view(np.uint8)


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
    """[h, w] uint8, 0 or one other value -> the same: pixels that differ from the one to the right, below, or below
    to the right.

    The last row looks right only, the last column looks down only, the last corner is never boundary."""
    b = np.zeros_like(mask)
    body = mask[:-1, :-1]
    if body.size:
        right_or_below = cv2.bitwise_or(cv2.bitwise_xor(body, mask[:-1, 1:]), cv2.bitwise_xor(body, mask[1:, :-1]))
        b[:-1, :-1] = cv2.bitwise_or(right_or_below, cv2.bitwise_xor(body, mask[1:, 1:]))
    np.bitwise_xor(mask[-1, :-1], mask[-1, 1:], out=b[-1, :-1])
    np.bitwise_xor(mask[:-1, -1], mask[1:, -1], out=b[:-1, -1])
    return b


def content(gt: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both uint8 maps inside the box around what is not 0, plus one pixel on every side that the frame has.

    One pixel of each is left when both are empty. Cropping the result again gives what cropping at once would."""
    x, y, w, h = cv2.boundingRect(cv2.bitwise_or(gt, pred))
    window = slice(max(y - 1, 0), y + h + 1), slice(max(x - 1, 0), x + w + 1)
    return gt[window], pred[window]


def cropped(gt: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The content of both masks as 0/1; None when both are empty."""
    gt, pred = content(gt, pred)
    gt, pred = (gt != 0).view(np.uint8), (pred != 0).view(np.uint8)
    return (gt, pred) if cv2.countNonZero(gt) or cv2.countNonZero(pred) else None


class Rectangle(NamedTuple):
    """Offsets from a pixel, ends included."""

    top: int
    bottom: int
    left: int
    right: int


class Reach(NamedTuple):
    """A disk as cv2.dilate sees it from a pixel: rectangles that together are the disk, largest gain first; none for
    a disk without pixels. `box` holds them all."""

    rectangles: tuple[Rectangle, ...]
    box: Rectangle
    points: int


@lru_cache(maxsize=64)
def reach(radius: float) -> Reach:
    kernel = disk(radius)
    anchor = kernel.shape[0] // 2
    rows = {y - anchor: np.flatnonzero(row) - anchor for y, row in enumerate(kernel) if row.any()}
    if not rows:
        return Reach((), Rectangle(0, 0, 0, 0), 0)
    spans = {dy: (int(columns[0]), int(columns[-1])) for dy, columns in rows.items()}
    candidates = set()
    for top in spans:
        left, right = spans[top]
        for bottom in range(top, max(spans) + 1):
            left, right = max(left, spans[bottom][0]), min(right, spans[bottom][1])
            if left <= right:
                candidates.add(Rectangle(top, bottom, left, right))
    uncovered, chosen = kernel.astype(bool), []

    def gain(r: Rectangle) -> int:
        return int(uncovered[r.top + anchor : r.bottom + anchor + 1, r.left + anchor : r.right + anchor + 1].sum())

    while uncovered.any():
        best = max(sorted(candidates), key=gain)
        chosen.append(best)
        uncovered[best.top + anchor : best.bottom + anchor + 1, best.left + anchor : best.right + anchor + 1] = False
    lefts, rights = zip(*spans.values(), strict=True)
    return Reach(tuple(chosen), Rectangle(min(spans), max(spans), min(lefts), max(rights)), int(kernel.sum()))


def count_near(of: np.ndarray, to: np.ndarray, radius: float) -> int:
    """How many non-zero pixels of one map have a non-zero pixel of the other inside the disk around them.

    Small maps: dilate. Large ones: only the boundary pixels are looked at, by sums over the rectangles that make up
    the disk; the first, a square, settles nearly all of them. Both ways are exact."""
    around = reach(radius)
    if of.size * around.points < DILATE_UP_TO or not around.rectangles:
        return cv2.countNonZero(cv2.bitwise_and(of, cv2.dilate(to, disk(radius))))
    margin = max(-around.box.top, around.box.bottom, -around.box.left, around.box.right)
    table = cv2.integral(cv2.copyMakeBorder(to, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0))
    width, table = table.shape[1], table.ravel()
    points = np.flatnonzero(of != 0)
    at = points + (points // of.shape[1]) * (width - of.shape[1]) + margin * (width + 1)

    def none_in(at: np.ndarray, r: Rectangle) -> np.ndarray:
        """Whether `to` has no pixel in the rectangle; int32 sums may wrap, their differences do not."""
        upper, lower = at + (r.top * width + r.left), at + ((r.bottom + 1) * width + r.left)
        across = r.right + 1 - r.left
        return table.take(lower + across) - table.take(lower) == table.take(upper + across) - table.take(upper)

    left = at[none_in(at, around.rectangles[0])]
    out_of_reach = none_in(left, around.box)
    found, left = len(at) - len(left), left[~out_of_reach]
    for rectangle in around.rectangles[1:]:
        if not left.size:
            break
        still = left[none_in(left, rectangle)]
        found, left = found + len(left) - len(still), still
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
    crops = cropped(as_uint8(gt), as_uint8(pred))
    if crops is None:
        return Counts(0, 0, 0, 0, 0, 0)
    gt, pred = crops
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


def ids_in(id_map: np.ndarray) -> list[int]:
    """The ids of a uint8 map, ascending, without the background 0."""
    highest = int(cv2.minMaxLoc(id_map)[1])
    if highest <= FEW_IDS:
        return [i for i in range(1, highest + 1) if np.count_nonzero(id_map == i)]
    histogram = cv2.calcHist([id_map], [0], None, [256], [0, 256]).ravel()
    return [int(i) for i in np.flatnonzero(histogram) if i]
