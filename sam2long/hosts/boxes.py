"""Boxes as hosts give them."""

from __future__ import annotations

from collections.abc import Sequence

from sam2long.errors import PromptError

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels, from the corner of the first one


def inside(corners: Sequence[float], height: int, width: int, what: str = "the rectangle") -> Box:
    """The part of a box that is in the picture.

    Raises:
        PromptError: there is none.
    """
    (left, right), (top, bottom) = sorted(corners[0::2]), sorted(corners[1::2])
    box = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise PromptError(
            f"{what} ({', '.join(f'{value:g}' for value in corners)}) has nothing of the picture in it, which is "
            f"{width} x {height} pixels (width x height); draw it around the object"
        )
    return box
