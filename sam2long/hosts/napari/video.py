"""An Image layer as a video: pictures along one of its axes, read when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sam2long.errors import VideoError, first_line
from sam2long.video.depth import grey_to_rgb

CHANNELS = (3, 4)  # of an RGB layer; a fourth one is alpha, which is left out


class LayerVideo:
    """What `open_source` takes for an array [T, H, W, 3] uint8.

    Values become 8 bits between the layer's contrast limits, as they are when this is made; RGB is taken as it is.

    Args:
        layer: an Image layer [(...,) T, (...,) Y, X(, RGB)]: numpy, dask, zarr; of several scales, the finest is taken.
        axis: which of the leading axes is time.
        at: where the other leading axes are held; the value at `axis` is not looked at.
    Raises:
        VideoError: no leading axis, or complex values.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, layer: Any, axis: int, at: Sequence[int]) -> None:
        self._data = layer.data[0] if layer.multiscale else layer.data
        self._name, self._rgb = layer.name, bool(layer.rgb)
        self.layer_shape = tuple(int(side) for side in self._data.shape)[: -1 if layer.rgb else None]
        leading = len(self.layer_shape) - 2
        if leading < 1:
            raise VideoError(
                f"the layer {layer.name} is one picture of {self.layer_shape[-1]} x {self.layer_shape[-2]} pixels; "
                "expected an Image layer with a time or z axis before these two"
            )
        if not 0 <= axis < leading:
            raise VideoError(f"axis {axis} of the layer {layer.name} is none before its last two; choose another one")
        kind = np.dtype(self._data.dtype).kind
        if kind not in "buif":
            raise VideoError(f"the layer {layer.name} has values of type {self._data.dtype}; expected plain numbers")
        self._unit = 255.0 if self._rgb and kind == "f" else 1.0
        self.limits = tuple(float(limit) for limit in layer.contrast_limits)
        self.axis, self.at = axis, tuple(int(index) for index in at[:leading])
        self.shape = (self.layer_shape[axis], *self.layer_shape[-2:], 3)

    def place(self, frame: int) -> tuple[int, ...]:
        """Where a frame lies among the leading axes."""
        return (*self.at[: self.axis], frame, *self.at[self.axis + 1 :])

    def frame_at(self, place: Sequence[int]) -> int | None:
        """Which frame lies there; None when another axis is held elsewhere, or there is none."""
        frame = place[self.axis]
        return frame if tuple(place) == self.place(frame) and 0 <= frame < self.shape[0] else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frame: int) -> np.ndarray:
        """[H, W, 3] uint8."""
        try:
            picture = np.asarray(self._data[self.place(int(frame))])
        except Exception as error:  # a file behind dask or zarr: whatever its library raises
            raise VideoError(
                f"frame {frame} of the layer {self._name} cannot be read ({first_line(error)}); see that its file is "
                "there, and track again from here"
            ) from error
        if picture.shape[:2] != self.shape[1:3]:
            raise VideoError(
                f"frame {frame} of the layer {self._name} is {picture.shape[1]} x {picture.shape[0]}, and the layer "
                f"{self.shape[2]} x {self.shape[1]} (width x height); all frames must have one size"
            )
        if self._rgb:
            values = picture[..., :3] * self._unit
            return np.ascontiguousarray(np.clip(values, 0, 255).astype(np.uint8))
        low, high = self.limits
        scaled = (picture.astype(np.float32) - low) * (255 / ((high - low) or 1))
        return grey_to_rgb(np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8))
