"""Frames that can be fetched by their numbers: arrays and what looks like them, lists of arrays, tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2long.errors import VideoError
from sam2long.video.depth import DTYPES, Depth, grey_to_rgb
from sam2long.video.model_input import check_image
from sam2long.video.source import FrameSource, Selection

if TYPE_CHECKING:
    import torch


CHANNELS = (1, 2, 3, 4)  # of pictures: a last side of these need not be a width


class _ByNumber(FrameSource):
    """Frames that are all there: any of them is as near as the next."""

    _frames: Sequence

    @property
    def available(self) -> int:
        return len(self._frames)

    def _walk(self, first: int, step: int) -> Iterator[tuple[int, np.ndarray, float | None]]:
        for index in range(first, self.available if step > 0 else -1, step):
            yield index, self._read(index), None


class ListSource(_ByNumber):
    """Frames out of a sequence of arrays [H, W, 3] uint8. Nothing is copied."""

    def __init__(self, frames: Sequence[np.ndarray], selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        if len(frames) == 0:
            raise VideoError("there are no frames in the list; expected at least one")
        self._frames = frames
        self._check_not_empty("the list")
        check_image(frames[0], "frame 0")
        self.height, self.width = frames[0].shape[:2]

    def _read(self, source_index: int) -> np.ndarray:
        image = self._frames[source_index]
        check_same_size(image, source_index, self.height, self.width)
        return np.ascontiguousarray(image)


class ArraySource(_ByNumber):
    """Frames out of an array, or of anything that has a shape and gives a frame for a number: h5py, zarr, dask, ...

    Frames are fetched when they are needed, one at a time. 16 bits become 8 as `Depth` says.

    Args:
        frames: [T, H, W, 3], or [T, H, W] where W is above 4; uint8, uint16 or int16.
    """

    def __init__(self, frames: Any, selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        shape = tuple(int(side) for side in frames.shape)
        dtype = np.dtype(frames.dtype) if hasattr(frames, "dtype") else np.asarray(frames[0]).dtype
        if not (len(shape) == 3 or len(shape) == 4 and shape[3] == 3) or dtype.name not in ("uint8", *DTYPES):
            raise VideoError(
                f"array has shape {shape} and dtype {dtype}; expected [frames, height, width, 3] or "
                "[frames, height, width], of uint8 (0 to 255), uint16 or int16"
            )
        if 0 in shape:
            raise VideoError(f"array has shape {shape}: there are no frames in it")
        if len(shape) == 3 and shape[2] in CHANNELS:
            raise VideoError(
                f"array has shape {shape}, which is one picture [height, width, channels] or {shape[0]} grey frames of "
                f"{shape[2]} x {shape[1]} pixels; pass array[None] for the picture, or "
                "array[..., None].repeat(3, axis=3) for the frames"
            )
        self._frames, self._count = frames, shape[0]
        self._check_not_empty("the array")
        self.height, self.width = shape[1:3]
        self._depth = None
        if dtype.name in DTYPES:
            self._depth = Depth.sample(self._count, self._fetch)
            self.notes = self._depth.notes()

    @property
    def available(self) -> int:
        return self._count

    def _fetch(self, source_index: int) -> np.ndarray:
        return np.asarray(self._frames[source_index])

    def _read(self, source_index: int) -> np.ndarray:
        frame = self._fetch(source_index)
        return np.ascontiguousarray(grey_to_rgb(frame) if self._depth is None else self._depth.to_rgb(frame))


class TensorSource(_ByNumber):
    """Frames out of a tensor [T, 3, H, W] or [T, H, W, 3]: uint8, or floating in 0..1. Converted one at a time."""

    def __init__(self, frames: torch.Tensor, selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        shape = tuple(frames.shape)
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise VideoError(
                f"tensor has shape {shape}; expected [frames, 3, height, width] or [frames, height, width, 3]"
            )
        if shape[1] == shape[3] == 3:
            raise VideoError(
                f"tensor has shape {shape}: frames of 3 rows, or of 3 columns; pass an array [frames, height, width, 3]"
            )
        if not frames.is_floating_point() and str(frames.dtype) != "torch.uint8":
            raise VideoError(f"tensor has dtype {frames.dtype}; expected uint8, or floating with values in 0..1")
        if 0 in shape:
            raise VideoError(f"tensor has shape {shape}: there are no frames in it")
        tensor = frames if shape[3] == 3 else frames.permute(0, 2, 3, 1)  # [T, H, W, 3]
        self._frames = tensor
        self._check_not_empty("the tensor")
        self.height, self.width = tensor.shape[1:3]

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


def check_same_size(image: Any, index: int, height: int, width: int) -> None:
    """A frame of a sequence: [H, W, 3] uint8 and as large as the first one."""
    check_image(image, f"frame {index}")
    if image.shape[:2] != (height, width):
        raise VideoError(
            f"frame {index} is {image.shape[1]}x{image.shape[0]} and the first frame is {width}x{height} "
            "(width x height); all frames must have one size"
        )
