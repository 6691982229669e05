"""Masks that others have written as numbers. Their sizes and lengths are looked at before memory is asked for:
pycocotools believes them, and crashes or hands out what lay in memory when they do not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sam2long.errors import DataError

if TYPE_CHECKING:
    import numpy as np

MOST_PIXELS = 1 << 28  # of a picture: 16384 x 16384
FAR = 1e6  # pixels; no corner of a polygon lies there
MARGIN = 64  # pixels around a picture in which shapes are kept
MOST_CORNERS = 200_000  # of the polygons of an object, or of the shapes of a frame


def check_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Height and width in pixels, as somebody has written them.

    Raises:
        DataError: no sizes, or more than 2**28 pixels.
    """
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (height, width)):
        raise DataError(f"{where}: the size is {height!r} x {width!r}; expected height and width in pixels")
    if height * width > MOST_PIXELS:
        raise DataError(f"{where}: a picture of {width} x {height} pixels is too large; expected that of the video")
    return height, width


def from_run_lengths(rle: Mapping[str, Any], where: str) -> np.ndarray:
    """COCO run lengths -> [H, W] bool. rle: size [height, width], and counts as text or as a list.

    Raises:
        DataError: anything else, or lengths that do not add up to the size.
    """
    import numpy as np

    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise DataError(f"{where}: the size is {size!r}; expected [height, width] in pixels")
    height, width = check_size(size[0], size[1], where)
    lengths = _lengths(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise DataError(f"{where}: counts are not COCO run lengths")
    if sum(lengths) != height * width:
        raise DataError(
            f"{where}: the run lengths are of {sum(lengths)} pixels and the size of {height * width}; "
            "expected those of one mask"
        )
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T


def from_polygons(polygons: Sequence[Any], height: Any, width: Any, where: str) -> np.ndarray:
    """COCO polygons [[x1, y1, x2, y2, ...], ...] -> [H, W] bool, as pycocotools fills them.

    Raises:
        DataError: no such polygons.
    """
    import numpy as np
    from pycocotools import mask as coco

    height, width = check_size(height, width, where)
    if sum(len(polygon) for polygon in polygons if isinstance(polygon, list)) > 2 * MOST_CORNERS:
        raise DataError(f"{where}: its polygons have more than {MOST_CORNERS} corners; draw with fewer")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(_is_near, polygon)):
            raise DataError(
                f"{where}: {str(polygon)[:60]} is no polygon; expected x1, y1, x2, y2, x3, y3, ... in pixels"
            )
    cut = [cut_polygon(list(zip(each[::2], each[1::2], strict=True)), height, width) for each in polygons]
    flat = [[value for corner in corners for value in corner] for corners in cut if len(corners) >= 3]
    if not flat:
        return np.zeros((height, width), bool)
    return coco.decode(coco.merge(coco.frPyObjects(flat, height, width))).astype(bool)


def cut_polygon(corners: Sequence[tuple[float, float]], height: int, width: int) -> list[tuple[float, float]]:
    """What of a polygon lies on a picture and a little around it, so that filling it takes as long as the picture is
    large, however far its corners are away. Polygons near the picture stay as they are.

    Source: Sutherland and Hodgman, Reentrant polygon clipping, 1974.
    """
    near = max(height, width)
    if all(-near <= x <= width + near and -near <= y <= height + near for x, y in corners):
        return list(corners)
    found = list(corners)
    for axis, bound, side in ((0, -MARGIN, 1), (0, width + MARGIN, -1), (1, -MARGIN, 1), (1, height + MARGIN, -1)):
        given, found = found, []
        for at, corner in enumerate(given):
            before = given[at - 1]
            inside, was_inside = ((point[axis] - bound) * side >= 0 for point in (corner, before))
            if inside != was_inside:
                share = (bound - before[axis]) / (corner[axis] - before[axis])
                crossing = [b + share * (c - b) for b, c in zip(before, corner, strict=True)]
                crossing[axis] = bound
                found.append((crossing[0], crossing[1]))
            if inside:
                found.append(corner)
    return found


def paint_circle(mask: np.ndarray, centre: tuple[float, float], edge: tuple[float, float]) -> None:
    """Fill a circle, as far as it lies on the picture.

    Args:
        mask: [H, W] bool, changed in place. centre, edge: x, y of its middle and of a point on it.
    """
    import numpy as np

    radius = math.hypot(edge[0] - centre[0], edge[1] - centre[1])
    height, width = mask.shape
    left, right = (min(max(math.floor(centre[0] + sign * radius) + add, 0), width) for sign, add in ((-1, 0), (1, 2)))
    top, bottom = (min(max(math.floor(centre[1] + sign * radius) + add, 0), height) for sign, add in ((-1, 0), (1, 2)))
    rows, columns = np.ogrid[top:bottom, left:right]
    # Half a pixel on: the pixel on which the edge was clicked belongs to it.
    mask[top:bottom, left:right] |= np.hypot(columns - centre[0], rows - centre[1]) <= radius + 0.5


def _is_near(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < FAR


def _lengths(text: str) -> list[int] | None:
    """The run lengths that COCO packs into text, five bits a letter; from the fourth on they are differences."""
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16 and 1) << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths if shift == 0 else None
