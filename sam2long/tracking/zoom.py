"""A box around something small is answered from a crop of the picture around it.

A frame goes into the network at a fixed size, so a ball of a hand's width is a few pixels of its features. Zooming in
where a prompt points is an old idea of interactive segmentation (f-BRS, arXiv 2001.10331, Sec. 3.4); here it costs one
more pass of the image encoder on the prompted frame. What is found counts as a mask that the user gave.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2long.network.protocol import Points
from sam2long.tracking.prompts import BOX_LABELS, POSITIVE

MARGIN = 1.6  # of the box's longer side: how much of the picture is looked at
LARGEST = 0.5  # of the picture's width and height: a window that is wider or higher would bring nothing
SMALLEST = 32  # pixels of a window's side


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def window(points: Points, height: int, width: int, size: int) -> Window | None:
    """The part of a picture to look at for a box; None without a box, or where a closer look would show no more.

    Args:
        points: coordinates [1, n, 2] in model pixels and labels [1, n]; other clicks stay in view.
        height, width: of the picture. size: S, the side of the model's input.
    """
    coords, labels = (part[0].cpu() for part in points)
    corners = [coords[labels == label] for label in BOX_LABELS]
    if not all(len(corner) for corner in corners):
        return None
    pixels = coords[labels >= POSITIVE] * torch.tensor([width, height]) / size
    box = torch.cat([corner[-1:] for corner in corners]) * torch.tensor([width, height]) / size
    side = max(float((box[1] - box[0]).max()) * MARGIN, SMALLEST)
    middle = box.mean(0)
    first = torch.minimum(middle - side / 2, pixels.amin(0)).floor().clamp(min=0)
    last = torch.maximum(middle + side / 2, pixels.amax(0)).ceil().minimum(torch.tensor([width, height]))
    (left, top), (across, down) = first.int().tolist(), (last - first).int().tolist()
    if across > LARGEST * width or down > LARGEST * height:
        return None
    return Window(left, top, across, down)


def inside(points: Points, view: Window, height: int, width: int, size: int) -> Points:
    """The same prompt as the model takes it when it sees the window alone."""
    coords, labels = points
    start = torch.tensor([view.left, view.top], device=coords.device)
    extent = torch.tensor([view.width, view.height], device=coords.device)
    pixels = coords * torch.tensor([width, height], device=coords.device) / size
    seen = (pixels - start) / extent * size
    outside = ((seen < 0) | (seen > size)).any(-1) & (labels < POSITIVE)  # a negative click far away says nothing here
    return seen, torch.where(outside, -1, labels)


def pasted(logits: Tensor, view: Window, height: int, width: int, size: int) -> Tensor:
    """What was found in a window, as a mask of the whole frame.

    Args:
        logits: [1, 1, h, w], of the window.
    Returns:
        [size, size] bool, in model pixels.
    """
    at = torch.arange(size, device=logits.device) + 0.5
    x = (at * width / size - view.left) / view.width * 2 - 1
    y = (at * height / size - view.top) / view.height * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]  # [1, size, size, 2]
    seen = F.grid_sample(logits.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
    within = (y.abs() <= 1)[:, None] & (x.abs() <= 1)[None]
    return (seen > 0) & within
