"""`open_source`: which kind of source an object is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sam2long.errors import VideoError
from sam2long.video.arrays import ArraySource, ListSource, TensorSource
from sam2long.video.file import VideoFileSource
from sam2long.video.folder import ImageFolderSource
from sam2long.video.live import CameraSource
from sam2long.video.source import FrameSource, Selection
from sam2long.video.stills import STACK_SUFFIXES, StackSource
from sam2long.video.stream import StreamSource

WHAT = (
    "a video file, a TIFF stack, a folder of images, an array [T, H, W] or [T, H, W, 3], a list or an iterator of "
    "arrays [H, W, 3] uint8, a tensor, a camera number or a URL"
)


def open_source(
    obj: Any,
    *,
    start: int = 0,
    stop: int | None = None,
    stride: int = 1,
    prefetch: int = 4,
    reconnect: bool = False,
) -> FrameSource:
    """Open anything that has frames. Nothing but the first frame is decoded until it is asked for.

    Args:
        obj: path of a video file (any container PyAV opens), of a TIFF stack, or of a folder of images (JPEG, PNG,
            TIFF, BMP, WebP); array, or anything like one (h5py, zarr, dask), [T, H, W, 3] or [T, H, W] of 8 or 16
            bits; list or iterator of arrays [H, W, 3] uint8; tensor [T, 3, H, W] or [T, H, W, 3], uint8 or 0..1;
            camera number; URL (rtsp, http, ...). A FrameSource is returned as it is.
        start, stop, stride: which frames of the video; `index` then counts these.
        prefetch: frames decoded ahead in a thread; 0 for no thread.
        reconnect: for cameras and URLs: connect again when they break off.
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
        return CameraSource(int(obj), selection, prefetch, reconnect=reconnect)
    if isinstance(obj, str) and "://" in obj and not os.path.exists(obj):  # a file that is there is a file
        return CameraSource(obj, selection, prefetch, reconnect=reconnect)
    if reconnect:
        raise VideoError("reconnecting goes with cameras and URLs; leave it out for everything else")
    if isinstance(obj, (str, os.PathLike)):
        # Absolute: FFmpeg takes a:b.mp4 for an address, and the host may change its folder while frames are read.
        return _open_path(Path(os.path.abspath(obj)), selection, prefetch)
    if "torch" in sys.modules and isinstance(obj, sys.modules["torch"].Tensor):
        return TensorSource(obj, selection, prefetch)
    if hasattr(obj, "shape") and hasattr(obj, "__getitem__"):
        return ArraySource(obj, selection, prefetch)
    if hasattr(obj, "__len__") and hasattr(obj, "__getitem__"):
        return ListSource(obj, selection, prefetch)
    if isinstance(obj, Iterable):
        return StreamSource(obj, selection, prefetch, name="the iterator")
    raise VideoError(f"cannot read frames from {type(obj).__name__}; expected {WHAT}")


def _open_path(path: Path, selection: Selection, prefetch: int) -> FrameSource:
    if not path.exists():
        if path.is_symlink():
            raise VideoError(f"{path} is a link that leads nowhere; expected a video file or a folder of images")
        raise VideoError(f"{path} does not exist; expected a video file or a folder of images")
    if path.is_dir():
        return ImageFolderSource(path, selection, prefetch)
    if path.suffix.lower() in STACK_SUFFIXES:
        return StackSource(path, selection, prefetch)
    return VideoFileSource(path, selection, prefetch)
