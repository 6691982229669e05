"""sam2's image encoder: what it says of a frame, and how many frames it is given at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2long.errors import ConfigError
from sam2long.network.parts import Compiled, Parts

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


class ImageEncoder:
    """Image features of one frame or of several at a time.

    Args:
        model: whose encoder it is.
        parts: the network's calls.
        frames_per_pass: how many frames of a stored video to encode at a time, whether or not that changes the last
            bits; None: as many as keep it busy, and one where it is compiled or more would change them.
    """

    def __init__(self, model: SAM2Base, parts: Parts, frames_per_pass: int | None = None) -> None:
        if frames_per_pass is not None and not (isinstance(frames_per_pass, int) and frames_per_pass >= 1):
            raise ConfigError(f"frames_per_pass is {frames_per_pass!r}; expected a whole number of 1 or more, or None")
        self.model = model
        self.parts = parts
        self.frames = 0  # that it was given; each frame once is the promise
        self._compiled_by_sam2 = "forward" in vars(model.image_encoder)
        self._settled = frames_per_pass is not None
        if frames_per_pass is None:
            compiled = self._compiled_by_sam2 or isinstance(parts.encode, Compiled)  # another shape takes minutes
            fitting = min(FRAMES_PER_PASS, PIXELS_PER_PASS // model.image_size**2)
            frames_per_pass = 1 if compiled else max(1, fitting)
        self.frames_per_pass = frames_per_pass

    def encode(self, images: Tensor) -> list[FrameFeatures]:
        """Image features, frame by frame. images: [N, 3, S, S] normalised float32 on the device."""
        self.frames += len(images)
        frames = self._encode(images)
        if len(images) > 1 and not self._settled:
            # Kernels depend on shapes and places, not on pixels, so one pass shows it for all.
            alone = [self._encode(image)[0] for image in images.split(1)]
            if not all(_same(*pair) for pair in zip(alone, frames, strict=True)):
                self.frames_per_pass = 1
                return alone
            self._settled = True
        return frames

    def _encode(self, images: Tensor) -> list[FrameFeatures]:
        out = self.parts.encode(images)
        maps, positions = out["backbone_fpn"], out["vision_pos_enc"]
        if self._compiled_by_sam2:  # into CUDA graphs, which reuse their outputs
            maps, positions = [each.clone() for each in maps], [each.clone() for each in positions]
        frames = []
        for i in range(len(images)):
            own = {"backbone_fpn": [m[i : i + 1] for m in maps], "vision_pos_enc": [p[i : i + 1] for p in positions]}
            frames.append(FrameFeatures(*self.model._prepare_backbone_features(own)[1:]))
        return frames


def _same(one: FrameFeatures, other: FrameFeatures) -> bool:
    return all(map(torch.equal, one.levels, other.levels))
