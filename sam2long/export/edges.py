"""The edge of a mask as editors want it: a ramp of transparency, or a band that a matting network decides.

Both go by the distance to the edge. A mask that the border of the picture cuts has no edge there: it goes on outside.
"""

from __future__ import annotations

import numpy as np

from sam2long.extras import require

OUTSIDE, UNKNOWN, INSIDE = 0, 128, 255  # of a trimap, as ViTMatte, MatAnyone and compositors read it


def alpha(mask: np.ndarray, feather: float) -> np.ndarray:
    """Opacity of a mask.

    Args:
        mask: [H, W] bool.
        feather: pixels on either side of the edge over which the object fades; 0 keeps the edge hard.
    Returns:
        [H, W] uint8, 255 opaque; one half on the edge itself.
    """
    if not feather:
        return mask.astype(np.uint8) * 255
    return np.round(np.clip(0.5 + _distance(mask) / max(2 * feather, 1e-3), 0, 1) * 255).astype(np.uint8)


def trimap(mask: np.ndarray, band: float) -> np.ndarray:
    """Where the object is, where it is not, and where only a look at the picture can tell.

    Args:
        mask: [H, W] bool.
        band: pixels on either side of the edge that are unknown.
    Returns:
        [H, W] uint8: 0 outside, 128 unknown, 255 inside.
    """
    distance = _distance(mask)
    return np.where(np.abs(distance) < band, UNKNOWN, np.where(mask, INSIDE, OUTSIDE)).astype(np.uint8)


def _distance(mask: np.ndarray) -> np.ndarray:
    """[H, W] float32 pixels to the edge, which runs between pixels; negative outside, infinite without an edge."""
    cv2 = require("cv2", "export", "a soft edge")
    if mask.all() or not mask.any():
        return np.where(mask, np.float32(np.inf), np.float32(-np.inf))
    inside, outside = (
        cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for part in (mask, ~mask)
    )
    return np.where(mask, inside - 0.5, 0.5 - outside)
