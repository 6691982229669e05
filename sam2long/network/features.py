"""What an image encoder says of a frame, and how many frames it is given at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sam2long.errors import ConfigError

PIXELS_PER_PASS, FRAMES_PER_PASS = 2 * 256**2, 8  # small frames are encoded together, up to either


@dataclass(frozen=True, slots=True, eq=False)
class FrameFeatures:
    """What the image encoder says of one frame, for any number of rows."""

    levels: list[Tensor]  # finest first, each [hw, 1, C]
    positions: list[Tensor]  # the same shapes
    sizes: list[tuple[int, int]]

    def rows(self, count: int) -> list[Tensor]:
        """All levels as views for `count` rows, each [hw, count, C]."""
        return [level.expand(-1, count, -1) for level in self.levels]

    def maps(self, level: int, count: int) -> Tensor:
        """One level as a map: [count, C, h, w], a view."""
        feature = self.levels[level]
        return feature.permute(1, 2, 0).reshape(1, feature.shape[2], *self.sizes[level]).expand(count, -1, -1, -1)

    def fine_maps(self, count: int) -> list[Tensor]:
        """All levels but the coarsest, as maps."""
        return [self.maps(level, count) for level in range(len(self.levels) - 1)]


class ImageEncoder:
    """Image features of one frame or of several at a time.

    Args:
        forward: images [N, 3, S, S] into the features of N frames.
        image_size: S.
        frames_per_pass: how many frames of a stored video to encode at a time, whether or not that changes the last
            bits; None: as many as keep it busy, and one where it is compiled or more would change them.
        compiled: another number of frames would be compiled anew, which takes minutes.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], list[FrameFeatures]],
        image_size: int,
        frames_per_pass: int | None = None,
        compiled: bool = False,
    ) -> None:
        if frames_per_pass is not None and not (isinstance(frames_per_pass, int) and frames_per_pass >= 1):
            raise ConfigError(f"frames_per_pass is {frames_per_pass!r}; expected a whole number of 1 or more, or None")
        self.forward = forward
        self.frames = 0  # that it was given; each frame once is the promise
        self._settled = frames_per_pass is not None
        if frames_per_pass is None:
            fitting = min(FRAMES_PER_PASS, PIXELS_PER_PASS // image_size**2)
            frames_per_pass = 1 if compiled else max(1, fitting)
        self.frames_per_pass = frames_per_pass

    def encode(self, images: Tensor) -> list[FrameFeatures]:
        """Image features, frame by frame. images: [N, 3, S, S] normalised float32 on the device."""
        self.frames += len(images)
        frames = self.forward(images)
        if len(images) > 1 and not self._settled:
            # Kernels depend on shapes and places, not on pixels, so one pass shows it for all.
            alone = [self.forward(image)[0] for image in images.split(1)]
            if not all(_same(*pair) for pair in zip(alone, frames, strict=True)):
                self.frames_per_pass = 1
                return alone
            self._settled = True
        return frames


def _same(one: FrameFeatures, other: FrameFeatures) -> bool:
    return all(map(torch.equal, one.levels, other.levels))
