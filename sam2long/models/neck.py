"""sam2's neck for a small model whose frames are encoded several at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sam2.modeling.backbones.image_encoder import FpnNeck
from torch import Tensor


class FrameByFrameNeck(FpnNeck):
    """sam2's neck, one frame at a time.

    torch computes a convolution over one small map (at most 20,480 numbers) by another kernel than over several, with
    other last bits on some processors. The neck has such maps. It is a tenth of the encoder's time, and gains nothing
    from several frames; the trunk is the rest, and does.
    """

    def forward(self, xs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        if len(xs[0]) == 1:
            return super().forward(xs)
        each = [super(FrameByFrameNeck, self).forward([x[at : at + 1] for x in xs]) for at in range(len(xs[0]))]
        maps, positions = zip(*each, strict=True)
        return _joined(maps), _joined(positions)


def _joined(frames: Sequence[list[Tensor]]) -> list[Tensor]:
    """Levels of single frames as levels of them all."""
    return [torch.cat(level) for level in zip(*frames, strict=True)]
