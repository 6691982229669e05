"""From a frame source to image features: resized as sam2 does it, encoded once, the latest one kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sam2long.devices import moved
from sam2long.errors import StateError
from sam2long.sam2_adapter import FrameFeatures, Sam2Model
from sam2long.video import FrameSource, normalize_table, to_model_input

IMAGE_MEAN = (0.485, 0.456, 0.406)  # as in sam2's load_video_frames
IMAGE_STD = (0.229, 0.224, 0.225)


class FrameReader:
    """Reads frames of a source as image features.

    Args:
        source: where frames come from.
        model: whose image encoder is used.
    """

    def __init__(self, source: FrameSource, model: Sam2Model) -> None:
        self.source = source
        self.model = model
        table = torch.from_numpy(np.asarray(normalize_table(IMAGE_MEAN, IMAGE_STD)))  # [3, 256]
        self._table = table.to(model.device)
        self._latest: tuple[int, FrameFeatures] | None = None

    def features(self, frame: int) -> FrameFeatures:
        """Features of any frame; asking for the same frame again costs nothing."""
        if self._latest is None or self._latest[0] != frame:
            self._encode(frame, self._resized(self.source.frame(frame)))
        return self._latest[1]

    def sequence(self, start: int, end: int, direction: int) -> Iterator[tuple[int, FrameFeatures]]:
        """Features of the frames from `start` to `end`, both included, read ahead in a thread.

        Ends early where the source does (a damaged file says so in its `damage`).
        """
        if (end - start) * direction < 0:
            return
        frames = self.source.iter_from(start, reverse=direction < 0, image_size=self.model.model.image_size)
        try:
            for frame in frames:
                if self._latest is None or self._latest[0] != frame.index:
                    self._encode(frame.index, frame.model_input)
                yield frame.index, self._latest[1]
                if frame.index == end:
                    return
        finally:
            frames.close()

    def push(self, frame: int, image: np.ndarray) -> FrameFeatures:
        """Features of a frame that the caller brings: live use."""
        self._encode(frame, self._resized(image))
        return self._latest[1]

    def _resized(self, image: np.ndarray) -> np.ndarray:
        return to_model_input(image, self.model.model.image_size)

    def _encode(self, frame: int, resized: np.ndarray) -> None:
        pixels = moved(torch.from_numpy(resized), self.model.device).long()  # [S, S, 3]
        # A table look-up gives sam2's float32 values to the bit, on every device.
        channels = [self._table[c][pixels[..., c]] for c in range(3)]
        with self.model.running():
            self._latest = (frame, self.model.encode(torch.stack(channels).unsqueeze(0)))


class LiveSource:
    """The frames of a stream that the caller feeds: only the latest one can be asked for."""

    num_frames = None
    fps = None
    names = None
    damage = None

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def frame(self, index: int) -> np.ndarray:
        raise StateError(
            f"frame {index} of a live stream is gone; prompts and corrections go on the frame that was given last"
        )

    def iter_from(self, index: int, reverse: bool = False) -> Iterator:
        raise StateError("a live stream has no stored frames to go through; feed frames with track()")

    def close(self) -> None:
        """Nothing is held."""
