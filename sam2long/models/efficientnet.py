"""EfficientNet-Lite0 as a trunk for sam2's image encoder: plain convolutions, quick on a CPU.

Architecture: Tan and Le, "EfficientNet" (arXiv 1905.11946), in the "Lite" form that its authors published for small
devices: no squeeze-and-excitation, ReLU6. BatchNorm is folded into the convolutions, so the trunk is nothing but
convolutions with biases. scripts/nano/imagenet.py folds the ImageNet weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEM = 32
# expansion, channels, kernel, stride of the first block, blocks
STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)
# Stage whose output is a level, and the standard deviation of its values on photographs. The levels are divided by
# it: the neck learns from values near one, and without that every mask becomes empty within a few steps.
LEVELS = {1: 10.9, 2: 9.4, 4: 7.2, 6: 2.75}


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": with stride 2 the odd pixel goes to the right and to the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:1:-1]]  # width, height
        x = F.pad(x, [side for n in total for side in (n // 2, n - n // 2)])
        return F.conv2d(x, self.weight, self.bias, stride, 0, 1, self.groups)


class Block(nn.Module):
    """An inverted residual: widen (unless `expansion` is 1), filter each channel for itself, narrow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.widen = SameConv(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.filter = SameConv(inner, inner, kernel, stride, groups=inner)
        self.narrow = SameConv(inner, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.widen(x), inplace=True) if isinstance(self.widen, nn.Conv2d) else x
        y = self.narrow(F.relu6(self.filter(y), inplace=True))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """[B, 3, H, W] normalised pictures -> maps at strides 4, 8, 16, 32, largest first, as sam2's neck takes them.

    H and W of any size; maps are [B, C, ceil(H / stride), ceil(W / stride)] with C = 24, 40, 112, 320 (`channel_list`
    names them smallest map first, as sam2 does).
    """

    stills = redraw = close_up = True  # what these settings of `Sam2LongConfig` are for this model when nobody says

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        inputs = STEM
        for expansion, outputs, kernel, stride, blocks in STAGES:
            stage = [Block(inputs if n == 0 else outputs, outputs, expansion, kernel, stride if n == 0 else 1)
                     for n in range(blocks)]  # fmt: skip
            self.stages.append(nn.Sequential(*stage))
            inputs = outputs
        self.channel_list = [STAGES[n][1] for n in reversed(LEVELS)]
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)), inplace=True)
        levels = []
        for n, stage in enumerate(self.stages):
            x = stage(x)
            if n in LEVELS:
                levels.append(x / LEVELS[n])
        return levels
