"""Frames that are in memory already: arrays, lists of arrays, tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sam2long.errors import VideoError
from sam2long.video.model_input import check_image
from sam2long.video.source import FrameSource, Selection

if TYPE_CHECKING:
    import torch


class _InMemory(FrameSource):
    """Frames that are all there: any of them is as near as the next."""

    _frames: Sequence

    @property
    def available(self) -> int:
        return len(self._frames)

    def _walk(self, first: int, step: int) -> Iterator[tuple[int, np.ndarray, float | None]]:
        for index in range(first, len(self._frames) if step > 0 else -1, step):
            yield index, self._read(index), None


class ArraySource(_InMemory):
    """Frames out of an array [T, H, W, 3] uint8, or a sequence of arrays [H, W, 3] uint8. Nothing is copied."""

    def __init__(self, frames: np.ndarray | Sequence[np.ndarray], selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        if isinstance(frames, np.ndarray):
            if frames.ndim != 4 or frames.shape[3] != 3:
                raise VideoError(f"array has shape {frames.shape}; expected [frames, height, width, 3]")
            if frames.dtype != np.uint8:
                raise VideoError(f"array has dtype {frames.dtype}; expected uint8 with values 0 to 255")
        if len(frames) == 0:
            raise VideoError("there are no frames in the list or array; expected at least one")
        self._frames = frames
        self._check_not_empty("the array")
        check_image(frames[0], "frame 0")
        self.height, self.width = frames[0].shape[:2]

    def _read(self, source_index: int) -> np.ndarray:
        image = self._frames[source_index]
        check_same_size(image, source_index, self.height, self.width)
        return np.ascontiguousarray(image)


class TensorSource(_InMemory):
    """Frames out of a tensor [T, 3, H, W] or [T, H, W, 3]: uint8, or floating in 0..1. Converted one at a time."""

    def __init__(self, frames: torch.Tensor, selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        shape = tuple(frames.shape)
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise VideoError(
                f"tensor has shape {shape}; expected [frames, 3, height, width] or [frames, height, width, 3]"
            )
        if not frames.is_floating_point() and str(frames.dtype) != "torch.uint8":
            raise VideoError(f"tensor has dtype {frames.dtype}; expected uint8, or floating with values in 0..1")
        if 0 in shape:
            raise VideoError(f"tensor has shape {shape}: there are no frames in it")
        self._frames = frames if shape[3] == 3 else frames.permute(0, 2, 3, 1)  # [T, H, W, 3]
        self._check_not_empty("the tensor")
        self.height, self.width = self._frames.shape[1:3]

    def _read(self, source_index: int) -> np.ndarray:
        frame = self._frames[source_index].detach().cpu()
        if frame.is_floating_point():
            frame = frame.float()
            low, high = float(frame.min()), float(frame.max())
            if not (low >= 0.0 and high <= 1.0):  # also catches NaN
                raise VideoError(
                    f"frame {source_index} of the tensor has values from {low:g} to {high:g}; "
                    "expected 0..1, or pass uint8"
                )
            return np.ascontiguousarray(np.rint(frame.numpy() * 255.0).astype(np.uint8))
        return np.ascontiguousarray(frame.numpy())


def check_same_size(image: object, index: int, height: int, width: int) -> None:
    """A frame of a sequence: [H, W, 3] uint8 and as large as the first one."""
    check_image(image, f"frame {index}")
    if image.shape[:2] != (height, width):
        raise VideoError(
            f"frame {index} is {image.shape[1]}x{image.shape[0]} and the first frame is {width}x{height} "
            "(width x height); all frames must have one size"
        )
