"""Prompts made of true masks, as an annotator would give them."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.datasets.base import Prompt
from sam2long.export import polygons

PROMPTS = ("mask", "box", "click")
# What a simulated annotator does on a frame.
CORRECTIONS = {
    "mask": "the true mask",
    "clicks": "up to three clicks on the largest error",
    "boxes": "up to three clicks on the largest error, or a box (two clicks) and one where the mask is far off",
}


def give(predictor: Any, state: Any, prompt: Prompt, kind: str) -> Any:
    """Prompt a predictor with the given mask, the box around it, or one click in its middle; returns its answer.

    The middle is the pixel farthest from the mask's edge, the first of equals, as in SAM 2's interactive evaluation.
    """
    where = state, prompt.frame, prompt.obj
    if kind == "mask":
        return predictor.add_new_mask(*where, prompt.mask)
    if kind == "box":
        return predictor.add_new_points_or_box(*where, box=box_of(prompt.mask))
    _, (x, y) = innermost(prompt.mask)
    return predictor.add_new_points_or_box(*where, points=[[x, y]], labels=[1])


def box_of(mask: np.ndarray) -> list[int]:
    """The box around a mask [H, W] bool that is not empty: left, top, right, bottom, in pixels."""
    left, top, right, bottom = polygons.box(mask)
    return [left, top, right + 1, bottom + 1]


def innermost(mask: np.ndarray) -> tuple[float, tuple[float, float]]:
    """How far the pixel farthest from a mask's edge lies from it, and where it is: x, y. (0 for an empty mask.)"""
    import cv2

    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 0)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return float(depth[y, x]), (x + 0.5, y + 0.5)
