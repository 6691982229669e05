"""Frames in and out: files, folders, arrays, iterators, cameras; and H.264 files.

    with open_source("dog.mp4", stride=2) as source:
        for frame in source:
            frame.index, frame.image, frame.time

One module per kind of source; `source.py` has what they share, `writer.py` the way back.
"""

from sam2long.video.model_input import normalize_table, to_model_input
from sam2long.video.opening import open_source
from sam2long.video.source import Frame, FrameSource
from sam2long.video.writer import VideoWriter

__all__ = ["Frame", "FrameSource", "VideoWriter", "normalize_table", "open_source", "to_model_input"]
