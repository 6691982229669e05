"""`open_source`: which kind of source an object is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sam2long.errors import VideoError
from sam2long.video.arrays import ArraySource, TensorSource
from sam2long.video.file import VideoFileSource
from sam2long.video.folder import ImageFolderSource
from sam2long.video.source import FrameSource, Selection
from sam2long.video.stream import StreamSource, open_live

WHAT = (
    "a video file, a folder of JPEG or PNG images, arrays [H, W, 3] uint8, a tensor, an iterator of arrays, "
    "a camera number or a URL"
)


def open_source(
    obj: Any, *, start: int = 0, stop: int | None = None, stride: int = 1, prefetch: int = 4
) -> FrameSource:
    """Open anything that has frames. Nothing but the first frame is decoded until it is asked for.

    Args:
        obj: path of a video file (any container PyAV opens) or of a folder of JPEG/PNG images; list of arrays or
            array [T, H, W, 3] uint8; tensor [T, 3, H, W] or [T, H, W, 3], uint8 or 0..1; iterator of arrays
            [H, W, 3] uint8; camera number; URL (rtsp, http, ...). A FrameSource is returned as it is.
        start, stop, stride: which frames of the video; `index` then counts these.
        prefetch: frames decoded ahead in a thread; 0 for no thread.
    Raises:
        VideoError: missing, empty, not a video, no frames, mixed sizes, wrong shape or dtype.
    """
    selection = Selection(start, stop, stride)
    if isinstance(obj, FrameSource):
        if selection != Selection():
            raise VideoError("start, stop and stride go where the source is opened; this one is open already")
        return obj
    if isinstance(obj, bool) or obj is None or isinstance(obj, (bytes, dict)):
        raise VideoError(f"cannot read frames from {type(obj).__name__}; expected {WHAT}")
    if isinstance(obj, (int, np.integer)):
        return open_live(int(obj), selection, prefetch)
    if isinstance(obj, str) and "://" in obj and not os.path.exists(obj):
        return open_live(obj, selection, prefetch)
    if isinstance(obj, (str, os.PathLike)):
        # Absolute: FFmpeg takes a:b.mp4 for an address, and the host may change its folder while frames are read.
        return _open_path(Path(os.path.abspath(obj)), selection, prefetch)
    if "torch" in sys.modules and isinstance(obj, sys.modules["torch"].Tensor):
        return TensorSource(obj, selection, prefetch)
    if isinstance(obj, (np.ndarray, list, tuple)):
        return ArraySource(obj, selection, prefetch)
    if isinstance(obj, Iterable):
        return StreamSource(obj, selection, prefetch, name="the iterator")
    raise VideoError(f"cannot read frames from {type(obj).__name__}; expected {WHAT}")


def _open_path(path: Path, selection: Selection, prefetch: int) -> FrameSource:
    if not path.exists():
        raise VideoError(f"{path} does not exist; expected a video file or a folder of images")
    if path.is_dir():
        return ImageFolderSource(path, selection, prefetch)
    return VideoFileSource(path, selection, prefetch)
