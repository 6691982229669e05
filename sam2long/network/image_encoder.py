"""sam2's image encoder: what it says of frames, as `FrameFeatures`."""

from __future__ import annotations

from collections.abc import Callable

from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2long.network.features import FrameFeatures, ImageEncoder
from sam2long.network.parts import Compiled, Parts


def sam2_image_encoder(model: SAM2Base, parts: Parts, frames_per_pass: int | None = None) -> ImageEncoder:
    """The image encoder of a sam2 model. frames_per_pass: as for `ImageEncoder`."""
    compiled_by_sam2 = "forward" in vars(model.image_encoder)
    compiled = compiled_by_sam2 or isinstance(parts.encode, Compiled)
    return ImageEncoder(_forward(model, parts, compiled_by_sam2), model.image_size, frames_per_pass, compiled)


def _forward(model: SAM2Base, parts: Parts, clone: bool) -> Callable[[Tensor], list[FrameFeatures]]:
    def forward(images: Tensor) -> list[FrameFeatures]:
        out = parts.encode(images)
        maps, positions = out["backbone_fpn"], out["vision_pos_enc"]
        if clone:  # compiled by sam2 into CUDA graphs, which reuse their outputs
            maps, positions = [each.clone() for each in maps], [each.clone() for each in positions]
        frames = []
        for i in range(len(images)):
            own = {"backbone_fpn": [m[i : i + 1] for m in maps], "vision_pos_enc": [p[i : i + 1] for p in positions]}
            frames.append(FrameFeatures(*model._prepare_backbone_features(own)[1:]))
        return frames

    return forward
