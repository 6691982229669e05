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
    height, width = check_size(*size, where)
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
    from pycocotools import mask as coco

    height, width = check_size(height, width, where)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(_is_near, polygon)):
            raise DataError(
                f"{where}: {str(polygon)[:60]} is no polygon; expected x1, y1, x2, y2, x3, y3, ... in pixels"
            )
    return coco.decode(coco.merge(coco.frPyObjects(list(polygons), height, width))).astype(bool)


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
