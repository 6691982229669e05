"""A part of a picture, and prompts and masks between it and the whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sam2long.network.masks import enlarged
from sam2long.network.protocol import Points
from sam2long.tracking.prompts import POSITIVE

LOGITS = 32.0  # the most that a mask prompt says, as in sam2; less its negative is certain not to be the object
SURE = 10.0  # the logit of a mask that was given: more does not count as more


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture, in its pixels."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of_all(cls, height: int, width: int) -> Window:
        """The whole of a picture."""
        return cls(0, 0, width, height)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def inside(points: Points, view: Window, height: int, width: int, size: int) -> Points:
    """The same prompt as the model takes it when it sees the window alone.

    Args:
        points: coordinates [1, n, 2] in model pixels of the whole picture, and labels [1, n].
        height, width: of the picture. size: S, the side of the model's input.
    """
    coords, labels = points
    seen, outside = _within(coords, view, height, width, size)
    return seen, torch.where(outside & (labels < POSITIVE), -1, labels)  # a negative click far away says nothing here


def holds(view: Window, points: Points, height: int, width: int, size: int) -> bool:
    """Whether all that a prompt marks as the object is in a window. Args as for `inside`."""
    coords, labels = points
    _, outside = _within(coords, view, height, width, size)
    return not bool((outside & (labels >= POSITIVE)).any())


def _within(coords: Tensor, view: Window, height: int, width: int, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates in model pixels of the window, [1, n, 2], and which are outside it, [1, n]."""
    start = torch.tensor([view.left, view.top], device=coords.device)
    extent = torch.tensor([view.width, view.height], device=coords.device)
    pixels = coords * torch.tensor([width, height], device=coords.device) / size
    seen = (pixels - start) / extent * size
    return seen, ((seen < 0) | (seen > size)).any(-1)


def reframed(logits: Tensor, source: Window, target: Window, size: int | tuple[int, int]) -> Tensor:
    """A mask of one window as another window has it.

    Args:
        logits: [1, 1, h, w], of `source`.
        size: of the result, or its side.
    Returns:
        [1, 1, *size] float32; far below zero outside `source`.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    down, across = (torch.arange(n, device=logits.device) + 0.5 for n in (rows, columns))
    x = (across * target.width / columns + (target.left - source.left)) / source.width * 2 - 1
    y = (down * target.height / rows + (target.top - source.top)) / source.height * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
    found = F.grid_sample(logits.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where((y.abs() <= 1)[:, None] & (x.abs() <= 1)[None], found, -LOGITS)


def placed(logits: Tensor, view: Window, height: int, width: int) -> Tensor:
    """A window's mask at the size of the picture, [1, 1, height, width]; far below zero outside the window.

    Args:
        logits: [1, 1, h, w] of the window.
    """
    whole = logits.new_full((1, 1, height, width), -LOGITS)
    rows, columns = view.slices
    whole[..., rows, columns] = enlarged(logits, view.height, view.width)
    return whole
