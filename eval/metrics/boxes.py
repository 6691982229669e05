"""Box tracking measures as LaSOT's users compute them (AUC, precision) and GOT-10k's (AO, success rates).

Boxes are [x, y, width, height] in pixels. Source: evaluation.md 2.6.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SUCCESS_THRESHOLDS = np.arange(0, 1.05, 0.05)  # 21
PRECISION_PIXELS = 20.0
NORM_PRECISION = 0.20


class BoxScores(NamedTuple):
    """Fractions over the frames of one video."""

    success: np.ndarray  # [21], share of frames with IoU above each threshold
    precision: float
    norm_precision: float
    iou: np.ndarray  # [frames], -1 where the ground truth has no box
    tracked: np.ndarray  # the IoUs that GOT-10k's measures take: without the first frame and those without a target


def mask_to_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """[H, W], not 0 is the object -> (xmin, ymin, xmax - xmin, ymax - ymin), without + 1, as SAMURAI does; zeros if
    empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x, int(rows[-1]) - y


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N, 4], [N, 4] -> [N]; 0 where both boxes have no area."""
    top_left = np.maximum(a[:, :2], b[:, :2])
    bottom_right = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    inter = np.clip(bottom_right - top_left, 0, None).prod(axis=1)
    union = a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - inter
    return np.divide(inter, union, out=np.zeros(len(a)), where=union > 0)


def fill_lost(pred: np.ndarray, first: np.ndarray) -> np.ndarray:
    """A box without width or height is replaced by the one before it, as it was predicted; then the first by the given
    one."""
    pred = pred.astype(np.float64, copy=True)
    for i in range(1, len(pred)):
        if (pred[i, 2:] == 0).any():
            pred[i] = pred[i - 1]
    pred[0] = first
    return pred


def score(gt: np.ndarray, pred: np.ndarray, visible: np.ndarray | None = None) -> BoxScores:
    """One video.

    Args:
        gt, pred: [N, 4] boxes of all annotated frames, the prompt's first.
        visible: [N] bool; frames where the target can be seen (LaSOT). None: wherever the box has an area.
    Returns:
        Shares of all N frames; frames without a visible target count as missed, as in the tools that print AUC, but
        in norm_precision only those that `visible` excludes: a box without area there counts as hit.
    """
    if gt.shape != pred.shape or gt.ndim != 2 or gt.shape[1] != 4:
        raise ValueError(f"prediction is {pred.shape}, ground truth {gt.shape}; expected equal [frames, 4]")
    gt, pred = gt.astype(np.float64), fill_lost(pred, gt[0])
    valid = (gt[:, 2:] > 0).all(axis=1)
    if visible is not None:
        valid &= visible
    overlap = np.where(valid, iou(pred, gt), -1.0)
    size = np.where(gt[:, 2:] > 0, gt[:, 2:], 1)
    centres = pred[:, :2] + 0.5 * (pred[:, 2:] - 1), gt[:, :2] + 0.5 * (gt[:, 2:] - 1)
    error = np.where(valid, _distance(*centres), np.inf)
    # Divided before it is subtracted: ties at 0.20 are common with whole pixels, and fall as in the tools.
    norm_error = np.where(valid, _distance(centres[0] / size, centres[1] / size), -1.0)
    if visible is not None:
        norm_error[~visible] = np.inf
    return BoxScores(
        success=(overlap[:, None] > SUCCESS_THRESHOLDS[None, :]).mean(axis=0),
        precision=float((error <= PRECISION_PIXELS).mean()),
        norm_precision=float((norm_error <= NORM_PRECISION).mean()),
        iou=overlap,
        tracked=overlap[1:][valid[1:]],
    )


def overlap_rates(tracked: np.ndarray) -> tuple[float, float, float]:
    """AO, SR50, SR75 of frames, those of one video or of all; nan of none."""
    if not tracked.size:
        return float("nan"), float("nan"), float("nan")
    return float(tracked.mean()), float((tracked > 0.5).mean()), float((tracked > 0.75).mean())


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a - b) ** 2).sum(axis=1))
