"""A simulated annotator, who knows the true masks: how a video begins, and how a frame is corrected."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.datasets.base import Prompt
from eval.prompting import box_of, give, innermost
from sam2long.meeting import agreement

MOST_CLICKS = 3  # on one frame
GOOD = 0.9  # IoU with the truth at which nobody clicks again
FAR_OFF = 0.5  # IoU with the truth below which a box is drawn before anything is clicked
BOX = 2  # clicks that a box counts as: its corners


def begin(predictor: Any, state: Any, frame: int, obj_id: int, truth: np.ndarray, kind: str) -> np.ndarray:
    """The first prompt; returns the mask that it gives, [H, W] bool.

    Args:
        truth: [H, W] bool, not empty.
        kind: "mask", "box" or "click".
    """
    return _mask(give(predictor, state, Prompt(obj_id, str(obj_id), frame, truth), kind), obj_id)


def correct(
    predictor: Any, state: Any, frame: int, obj_id: int, truth: np.ndarray, seen: np.ndarray, kind: str
) -> tuple[np.ndarray, int]:
    """Correct one frame; returns its mask and the number of clicks.

    Args:
        truth: [H, W] bool. seen: [H, W] bool, the mask that is corrected.
        kind: "mask": the true mask, drawn, no click; "clicks": each in the middle of the largest error, as in
            SAM 2's interactive evaluation (arXiv 2408.00714, Sec. 6.1), at most three; "boxes": the same, but a
            mask that is far off is first replaced by a box, which counts as two clicks.
    """
    if kind == "mask":
        predictor.add_new_mask(state, frame, obj_id, truth)
        return truth, 0
    mask, clicks = seen, 0
    if kind == "boxes" and agreement(truth, mask) < FAR_OFF:
        mask = _mask(predictor.add_new_points_or_box(state, frame, obj_id, box=box_of(truth)), obj_id)
        clicks = BOX
    while clicks < MOST_CLICKS and not (clicks and agreement(truth, mask) >= GOOD):
        if (spot := on_error(truth, mask)) is None:
            break
        (x, y), label = spot
        found = predictor.add_new_points_or_box(
            state, frame, obj_id, points=[[x, y]], labels=[label], clear_old_points=clicks == 0
        )
        mask, clicks = _mask(found, obj_id), clicks + 1
    return mask, clicks


def on_error(truth: np.ndarray, mask: np.ndarray) -> tuple[tuple[float, float], int] | None:
    """A click in the middle of the largest error: (x, y), and 1 for what is missing or 0 for what is too much."""
    (missing, inside), (extra, outside) = innermost(truth & ~mask), innermost(mask & ~truth)
    if max(missing, extra) <= 0:
        return None
    return (inside, 1) if missing >= extra else (outside, 0)


def _mask(found: Any, obj_id: int) -> np.ndarray:
    _, obj_ids, logits = found
    return (logits[list(obj_ids).index(obj_id), 0] > 0).cpu().numpy()
