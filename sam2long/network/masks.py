"""Masks at another size, apart from each other, without small holes: plain torch, alike on every device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FILLED_LOGIT = 0.1  # just inside the object, as sam2 fills
APART_LOGIT = -10.0  # what a mask has at most where another one wins, or that is another thing, as in sam2


def enlarged(masks: Tensor, height: int, width: int) -> Tensor:
    """Logits [N, K, h, w] at another size, [N, K, height, width]."""
    if tuple(masks.shape[-2:]) == (height, width):
        return masks
    return F.interpolate(masks, size=(height, width), mode="bilinear", align_corners=False)


def boxes(masks: Tensor) -> Tensor:
    """Around what is marked, [..., 4] float32: first column, first row, and those behind the last; all 0 for nothing.

    Args:
        masks: [..., h, w] logits.
    """
    found = masks > 0
    starts, ends = [], []
    for marked in (found.any(-2), found.any(-1)):  # columns, rows
        count = marked.shape[-1]
        places = torch.arange(1, count + 1, device=masks.device, dtype=torch.float32)
        ends.append((marked * places).amax(-1))
        starts.append(count - (marked * places.flip(0)).amax(-1))
    return torch.stack([*starts, *ends], -1) * (ends[0] > 0).unsqueeze(-1)


def apart(masks: Tensor) -> Tensor:
    """Masks that do not overlap: a pixel belongs to the object whose logit is highest. masks: [N, 1, H, W] logits."""
    winner = masks.argmax(dim=0, keepdim=True)
    here = torch.arange(len(masks), device=masks.device)[:, None, None, None]
    return torch.where(winner == here, masks, masks.clamp(max=APART_LOGIT))


def gathered(masks: Tensor, gap: int) -> Tensor:
    """What is marked most densely somewhere, and what is joined to that; pieces farther away are marked no more.

    Nothing is looked at on the host: the steps are as many as any way through a mask takes, or nearly.

    Args:
        masks: [N, 1, h, h] logits.
        gap: pieces that are so many pixels apart, or less, are joined; even.
    """
    marked = (masks > 0).float()
    near = F.max_pool2d(marked, gap + 1, stride=1, padding=gap // 2)
    dense = F.avg_pool2d(marked, 2 * gap + 1, stride=1, padding=gap) * marked
    middle = dense.flatten(1).argmax(1, keepdim=True)
    reached = torch.zeros_like(marked).flatten(1).scatter_(1, middle, 1.0).view_as(marked)
    for _ in range(masks.shape[-1] // 2):
        reached = F.max_pool2d(reached, 5, stride=1, padding=2) * near
    return torch.where((marked > 0) & (reached == 0), masks.clamp(max=APART_LOGIT), masks)


def fill_small_holes(logits: Tensor, max_area: int) -> Tensor:
    """Raise 8-connected background parts of at most `max_area` pixels to just above zero.

    A part of that size is at most `max_area` pixels across, so that many steps of spreading labels
    settle it; parts that are larger are recognised by a neighbour with another label, or by their count.

    Args:
        logits: [B, 1, H, W] floating mask logits; > 0 is the object.
        max_area: in pixels of this mask; 0 or less fills nothing.
    Returns:
        [B, 1, H, W], the same dtype and device.
    """
    if max_area <= 0:
        return logits
    background = logits <= 0
    batch, _, height, width = logits.shape
    # float64 holds every label exactly, and max pooling takes it on every device but MPS.
    exact = torch.float32 if batch * height * width < 1 << 24 else torch.float64
    labels = torch.arange(1, batch * height * width + 1, device=logits.device, dtype=exact).view_as(logits)
    labels = torch.where(background, labels, 0)
    for _ in range(max_area):
        labels = torch.where(background, F.max_pool2d(labels, 3, stride=1, padding=1), 0)
    highest = F.max_pool2d(labels, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(torch.where(background, -labels, -torch.inf), 3, stride=1, padding=1)
    unsettled = background & ((highest != labels) | (lowest != labels))
    index = labels.long().flatten()
    counts = torch.zeros(batch * height * width + 1, dtype=torch.long, device=logits.device)
    counts.scatter_add_(0, index, torch.ones_like(index))
    larger = torch.zeros_like(counts).scatter_add_(0, index, unsettled.flatten().long()) > 0
    small = ((counts <= max_area) & ~larger)[index].view_as(background)
    return torch.where(background & small, FILLED_LOGIT, logits)
