"""Masks as polygons and boxes.

Corners are pixel centres, as OpenCV and the programs that fill polygons (cv2.fillPoly, PIL) understand them: filling
the polygon with its edge gives the mask back. A hole is joined to the outline around it by a cut of no width, there
and back, so one ring holds both.
"""

from __future__ import annotations

import numpy as np

from sam2long.extras import require

LEAST_CORNERS = 3  # what readers take for a polygon


def outlines(mask: np.ndarray, tolerance: float = 0.0) -> list[np.ndarray]:
    """One ring for each part of a mask, the largest first.

    Args:
        mask: [H, W] bool.
        tolerance: pixels that a ring may leave the edge by; 0 for exact.
    Returns:
        rings [n, 2] int, x and y, n >= 3, not closed.
    """
    cv2 = require("cv2", "export", "writing polygons")
    if not mask.any():
        return []
    left, top, right, bottom = box(mask)
    part = np.ascontiguousarray(mask[top : bottom + 1, left : right + 1], np.uint8)
    found, tree = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    rings = [contour[:, 0] for contour in found]
    if tolerance:
        rings = [cv2.approxPolyDP(ring[:, None], tolerance, True)[:, 0] for ring in rings]
    joined = []
    for index, (_, _, child, parent) in enumerate(tree[0]):
        if parent >= 0:
            continue
        holes = []
        while child >= 0:
            holes.append(rings[child])
            child = tree[0][child][0]
        area = cv2.contourArea(found[index])
        joined.append((area, _at_least_a_triangle(join([rings[index], *holes]))))
    return [ring for _, ring in sorted(joined, key=lambda entry: -entry[0])]


def edges(mask: np.ndarray, tolerance: float = 0.0) -> list[np.ndarray]:
    """`outlines` for programs that measure from the corner of a pixel and fill what lies inside, such as CVAT: rings
    [n, 2] float between the pixels' centres and their edges, from a picture twice as large."""
    if not mask.any():
        return []
    left, top, right, bottom = box(mask)
    doubled = mask[top : bottom + 1, left : right + 1].repeat(2, axis=0).repeat(2, axis=1)
    return [(ring + 0.5) / 2 + (left, top) for ring in outlines(doubled, 2 * tolerance)]


def join(rings: list[np.ndarray]) -> np.ndarray:
    """One ring out of several: each is entered and left along the shortest line between two corners."""
    whole, *others = rings
    for ring in sorted(others, key=lambda ring: _gap(whole, ring)):
        distance = ((whole[:, None].astype(np.int64) - ring[None]) ** 2).sum(axis=2)
        at, entry = np.unravel_index(distance.argmin(), distance.shape)
        detour = np.concatenate([ring[entry:], ring[: entry + 1]])
        whole = np.concatenate([whole[: at + 1], detour, whole[at:]])
    return whole


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """left, top, right, bottom of a mask that is not empty, in pixels, all included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def rotated_box(mask: np.ndarray) -> np.ndarray:
    """The smallest rectangle around a mask that is not empty: [4, 2] float corners, in order."""
    cv2 = require("cv2", "export", "writing rotated boxes")
    corners = np.argwhere(mask)[:, ::-1].astype(np.float32)
    return cv2.boxPoints(cv2.minAreaRect(corners)).astype(float)


def _gap(one: np.ndarray, other: np.ndarray) -> int:
    return int(((one[:, None].astype(np.int64) - other[None]) ** 2).sum(axis=2).min())


def _at_least_a_triangle(ring: np.ndarray) -> np.ndarray:
    """One pixel and thin lines have fewer corners than a polygon needs; the last one is repeated."""
    missing = max(0, LEAST_CORNERS - len(ring))
    return np.concatenate([ring, ring[-1:].repeat(missing, axis=0)]) if missing else ring
