"""Prompts made from true masks, as sam2 takes them: boxes, clicks, and clicks on what is wrong."""

from __future__ import annotations

import random

import cv2
import numpy as np
import torch
from torch import Tensor

PROMPTS = ("mask", "box", "click")


def box_points(masks: Tensor, rng: random.Random, jitter: float = 0.1) -> tuple[Tensor, Tensor]:
    """A box as sam2 takes it: two points with labels 2 and 3. Its sides are off by up to `jitter` of the size."""
    corners = []
    for m in masks:
        ys, xs = m.any(1).nonzero()[:, 0], m.any(0).nonzero()[:, 0]
        x0, x1, y0, y1 = int(xs[0]), int(xs[-1]) + 1, int(ys[0]), int(ys[-1]) + 1
        jx, jy = jitter * (x1 - x0), jitter * (y1 - y0)
        corners.append([[x0 + rng.uniform(-jx, jx), y0 + rng.uniform(-jy, jy)],
                        [x1 + rng.uniform(-jx, jx), y1 + rng.uniform(-jy, jy)]])  # fmt: skip
    height, width = masks.shape[-2:]
    points = torch.tensor(corners, device=masks.device).clamp(min=0)
    points = points.minimum(torch.tensor([width, height], device=masks.device))
    return points, torch.tensor([[2, 3]], dtype=torch.int32, device=masks.device).expand(len(masks), 2)


def click_points(masks: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
    """One positive click at a random pixel of each mask."""
    points = []
    for m in masks:
        spots = m.nonzero()
        y, x = spots[rng.randrange(len(spots))].tolist()
        points.append([[float(x), float(y)]])
    return torch.tensor(points, device=masks.device), torch.ones(len(masks), 1, dtype=torch.int32, device=masks.device)


def correction_points(
    truth: Tensor, predicted: Tensor, rng: random.Random, centred: float = 0.5
) -> tuple[Tensor, Tensor]:
    """One click per row on a wrong pixel (1: missed, 0: too much); on the object where all is right; else padding.

    As SAM 2 trains and is judged: anywhere on what is wrong, or, with the chance `centred`, in its very middle.
    """
    points, labels = [], []
    for want, got in zip(truth, predicted, strict=True):
        missed, extra = want & ~got, got & ~want
        if rng.random() < centred:
            (inside, spot), (beyond, other) = middle(missed), middle(extra)
            (x, y), label = (spot, 1) if inside >= beyond else (other, 0)
            nothing = not max(inside, beyond)
        else:
            spots, label = (missed, 1) if missed.sum() >= extra.sum() else (extra, 0)
            spots = spots.nonzero()
            nothing = not len(spots)
            y, x = (0, 0) if nothing else spots[rng.randrange(len(spots))].tolist()
        if nothing:  # all is right
            spots, label = want.nonzero(), 1
            y, x = spots[rng.randrange(len(spots))].tolist() if len(spots) else (0, 0)
            label = 1 if len(spots) else -1
        points.append([[float(x), float(y)]])
        labels.append([label])
    return torch.tensor(points, device=truth.device), torch.tensor(labels, dtype=torch.int32, device=truth.device)


def middle(mask: Tensor) -> tuple[float, tuple[int, int]]:
    """How far the innermost pixel of a mask [H, W] is from its edge (0: no mask), and that pixel's x and y."""
    inside = cv2.distanceTransform(np.pad(mask.cpu().numpy().astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return float(inside[y, x]), (int(x), int(y))
