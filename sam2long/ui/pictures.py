"""Frames as JPEGs, decoded when they are asked for, and outlines of masks as the page draws them."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from sam2long.errors import VideoError
from sam2long.export.masks import decode_mask
from sam2long.video import FrameSource

LONGEST_SIDE = 1920  # of the picture on the page; masks and prompts are in the video's own pixels
QUALITY = 88
CACHE_BYTES = 64 << 20


class JpegFrames:
    """Any frame of a source as JPEG; those asked for last are kept, up to a number of bytes."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0

    def jpeg(self, frame: int) -> bytes:
        """Raises VideoError when the frame cannot be read."""
        with self._lock:
            if frame in self._kept:
                self._kept.move_to_end(frame)
                return self._kept[frame]
        image = Image.fromarray(self._source.frame(frame))
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "jpeg", quality=QUALITY)
        data = buffer.getvalue()
        with self._lock:
            if frame not in self._kept:
                self._kept[frame] = data
                self._size += len(data)
            while self._size > CACHE_BYTES and len(self._kept) > 1:
                self._size -= len(self._kept.popitem(last=False)[1])
        return data


def shapes_of(rle: Mapping[str, Any]) -> dict[str, Any]:
    """Of a mask: its box [x1, y1, x2, y2], and the corners of the smallest rotated box; None for an empty one."""
    import cv2

    points = cv2.findNonZero(decode_mask(rle).astype(np.uint8))
    if points is None:
        return {"box": None, "rotated": None}
    x, y, width, height = cv2.boundingRect(points)
    # Pixels have an area: the box goes around their outer edges, not through their centres.
    (cx, cy), (w, h), angle = cv2.minAreaRect(cv2.convexHull(points))
    corners = cv2.boxPoints(((cx + 0.5, cy + 0.5), (w + 1, h + 1), angle))
    return {"box": [x, y, x + width, y + height], "rotated": np.round(corners, 2).tolist()}


def check_frame(frame: int, source: FrameSource) -> int:
    if not 0 <= frame < len(source):
        raise VideoError(f"frame {frame} is out of range; the video's frames are 0 to {len(source) - 1}")
    return frame
