"""TinyViT-5M as an image encoder for SAM's decoder, as MobileSAM has it: a picture in, one map at stride 16 out.

Architecture: Wu et al., "TinyViT" (arXiv 2207.10666), in the form of Zhang et al., "MobileSAM" (arXiv 2306.14289): the
last stage keeps stride 16, and SAM's neck follows. BatchNorm is folded into the convolutions, as in efficientnet.py;
scripts/nano/mobilesam.py folds the published weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

DIMS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEAD = 32  # channels of an attention head
WINDOWS = (0, 7, 14, 7)  # side of an attention window; the first stage has convolutions only
STRIDES = (2, 2, 1)  # from one stage to the next
WIDEN = 4
OUTPUT = 256  # channels


class Narrowing(nn.Module):
    """1x1, depthwise 3x3, 1x1: an inverted residual (`stride` None), or the step from one stage to the next."""

    def __init__(self, inputs: int, outputs: int, stride: int | None = None) -> None:
        super().__init__()
        inner = inputs * WIDEN if stride is None else outputs
        self.residual = stride is None
        self.conv1 = nn.Conv2d(inputs, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride or 1, 1, groups=inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return F.gelu(x + y) if self.residual else y


class Attention(nn.Module):
    """Self-attention in windows [N, side * side, C], with a learned bias for each distance."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.heads = channels // HEAD
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(self.heads, side * side))
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        rows, columns = rows.flatten(), columns.flatten()
        distance = (rows[:, None] - rows).abs() * side + (columns[:, None] - columns).abs()
        self.register_buffer("distance", distance, persistent=False)
        self._known: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, channels = x.shape
        of_heads = self.qkv(self.norm(x)).view(count, tokens, self.heads, 3 * HEAD).transpose(1, 2)
        queries, keys, values = of_heads.split(HEAD, -1)
        y = F.scaled_dot_product_attention(queries, keys, values, attn_mask=self._biases().to(queries.dtype))
        return self.proj(y.transpose(1, 2).reshape(count, tokens, channels))

    def _biases(self) -> Tensor:
        """Of each pair of places, [1, heads, side * side, side * side]; looked up once for weights that stay."""
        learned = self.attention_biases
        if learned.requires_grad:
            return learned[:, self.distance][None]
        if self._known is None or (self._known.device, self._known.dtype) != (learned.device, learned.dtype):
            self._known = learned[:, self.distance][None]
        return self._known


class Mlp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, WIDEN * channels)
        self.fc2 = nn.Linear(WIDEN * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class WindowBlock(nn.Module):
    """Attention in windows, a depthwise convolution, and an MLP; [B, H, W, C] in and out."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.attn = Attention(channels, side)
        self.local_conv = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)
        self.mlp = Mlp(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attended(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.mlp(x)

    def _attended(self, x: Tensor) -> Tensor:
        count, height, width, channels = x.shape
        side = self.side
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.view(count, rows, side, columns, side, channels).transpose(2, 3).reshape(-1, side * side, channels)
        y = self.attn(windows).view(count, rows, columns, side, side, channels).transpose(2, 3)
        return y.reshape(count, rows * side, columns * side, channels)[:, :height, :width]


class TinyViT(nn.Module):
    """[B, 3, H, W] normalised pictures -> [B, 256, H / 16, W / 16]; H and W multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        half = DIMS[0] // 2
        self.patch_embed = nn.ModuleList([nn.Conv2d(3, half, 3, 2, 1), nn.Conv2d(half, DIMS[0], 3, 2, 1)])
        self.stages = nn.ModuleList()
        self.steps = nn.ModuleList()
        for n, (channels, depth, side) in enumerate(zip(DIMS, DEPTHS, WINDOWS, strict=True)):
            blocks = (WindowBlock(channels, side) if side else Narrowing(channels, channels) for _ in range(depth))
            self.stages.append(nn.ModuleList(blocks))
            if n < len(STRIDES):
                self.steps.append(Narrowing(channels, DIMS[n + 1], STRIDES[n]))
        self.neck = nn.Sequential(nn.Conv2d(DIMS[-1], OUTPUT, 1, bias=False), LayerNorm2d(OUTPUT),
                                  nn.Conv2d(OUTPUT, OUTPUT, 3, padding=1, bias=False), LayerNorm2d(OUTPUT))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed[1](F.gelu(self.patch_embed[0](x.contiguous(memory_format=torch.channels_last))))
        for n, stage in enumerate(self.stages):
            if n:
                x = self.steps[n - 1](x).permute(0, 2, 3, 1)
            for block in stage:
                x = block(x)
            if n:
                x = x.permute(0, 3, 1, 2)
        return self.neck(x)
