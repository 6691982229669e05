"""Prompts on still pictures, SAM's own first lesson: crops at every scale, boxes, clicks, corrections."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nano.composed import shade
from nano.curriculum import Stage
from nano.losses import losses
from nano.network import Tracker
from nano.photos import VOID, Photo, touching
from nano.prompts import box_points, click_points, correction_points

PER_PICTURE = 3  # objects of one picture, which share its encoding
LEAST_SOURCE, LEAST = 100, 48  # pixels of an object: in its photograph, and in the crop
SHARES = (0.0015, 0.6)  # of the crop that its object takes, log-uniform: small ones are enlarged, large ones shrunk
WHOLE, MOSAIC = 0.35, 0.1  # chance of the whole picture, squashed as frames are; of four pictures in one
WIDER = 0.08  # chance that an object is meant with what touches it, as a rider with the horse
ROUNDS = {1: 4, 2: 3, 3: 1, 5: 2}  # prompts, the first and clicks on what is wrong -> weight
LOGITS = 32.0  # sam2 hands masks back to the decoder clamped to this
MARGIN = 0.08  # of a box's size: how far its sides may be off
LEARNS = ("image_encoder.", "sam_", "no_mem_embed")  # parameters that a still picture uses


class Stills:
    """Pictures with masks, cropped out of photographs."""

    def __init__(self, photos: list[Photo]) -> None:
        self.photos, self.counts, weights = [], [], []
        for photo in photos:
            counts = np.bincount(photo.ids.ravel(), minlength=256)
            counts[[0, VOID]] = 0
            if (counts >= LEAST_SOURCE).any():
                self.photos.append(photo)
                self.counts.append(counts)
                weights.append(math.sqrt((counts >= LEAST_SOURCE).sum()))  # more of those that mark many objects
        self.weights = np.cumsum(weights).tolist()

    def batch(self, rng: random.Random, stage: Stage, pictures: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """images [pictures, size, size, 3] uint8; masks [N, size, size] bool; of [N], the picture of each mask."""
        shots = [self.still(rng, stage.size) for _ in range(pictures)]
        of = np.repeat(np.arange(pictures), [len(masks) for _, masks in shots])
        return np.stack([image for image, _ in shots]), np.concatenate([masks for _, masks in shots]), of

    def still(self, rng: random.Random, size: int) -> tuple[np.ndarray, np.ndarray]:
        """image [size, size, 3] uint8; masks [n, size, size] bool, n from 1 to PER_PICTURE."""
        if rng.random() >= MOSAIC:
            image, masks = self.crop(rng, size)
        else:
            half = size // 2
            tiles = [self.crop(rng, half) for _ in range(4)]
            rows = [np.concatenate([tiles[at][0], tiles[at + 1][0]], 1) for at in (0, 2)]
            image = np.concatenate(rows)
            masks = np.zeros((4, size, size), bool)
            for at, (_, found) in enumerate(tiles):
                y, x = divmod(at, 2)
                masks[at, y * half : (y + 1) * half, x * half : (x + 1) * half] = found[0]
            masks = masks[rng.sample(range(4), PER_PICTURE)]
        if rng.random() < 0.5:
            image, masks = image[:, ::-1], masks[..., ::-1]
        image = shade(np.random.default_rng(rng.getrandbits(64)), image)
        if rng.random() < 0.2:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))
        if rng.random() < 0.2:
            quality = [cv2.IMWRITE_JPEG_QUALITY, rng.randrange(30, 90)]
            image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
        return image, masks

    def crop(self, rng: random.Random, size: int) -> tuple[np.ndarray, np.ndarray]:
        """A part of a photograph around one of its objects, which comes first, and others in it."""
        while True:
            at = rng.choices(range(len(self.photos)), cum_weights=self.weights)[0]
            photo, counts = self.photos[at], self.counts[at]
            k = int(rng.choice(np.flatnonzero(counts >= LEAST_SOURCE)))
            part = np.s_[:, :] if rng.random() < WHOLE else self.around(rng, photo, k, int(counts[k]))
            image, ids = photo.image[part], photo.ids[part]
            shrinks = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_LINEAR
            scale = size * size / ids.size
            image = cv2.resize(image, (size, size), interpolation=shrinks)
            ids = cv2.resize(ids, (size, size), interpolation=cv2.INTER_NEAREST)
            here = np.bincount(ids.ravel(), minlength=256)
            seen = (here >= LEAST) & (here < 0.9 * size * size) & (here >= 0.35 * scale * counts) & (counts > 0)
            if not seen[k]:
                continue
            others = [int(n) for n in np.flatnonzero(seen) if n != k]
            picked = [k, *rng.sample(others, min(PER_PICTURE - 1, len(others)))]
            masks = np.stack([ids == n for n in picked])
            if rng.random() < WIDER and (near := touching(ids, k)):
                masks[0] |= ids == rng.choice(near)
            return image, masks

    @staticmethod
    def around(rng: random.Random, photo: Photo, k: int, area: int) -> tuple[slice, slice]:
        height, width = photo.ids.shape
        side = math.sqrt(area / math.exp(rng.uniform(*map(math.log, SHARES))))
        narrow = math.exp(rng.uniform(-0.3, 0.3))
        w, h = min(width, max(64, side * narrow)), min(height, max(64, side / narrow))
        ys, xs = np.where(photo.ids == k)
        x = int(min(max(0, xs.mean() - w * rng.uniform(0.2, 0.8)), width - w))
        y = int(min(max(0, ys.mean() - h * rng.uniform(0.2, 0.8)), height - h))
        return np.s_[y : y + int(h), x : x + int(w)]


@sdpa_kernel(
    SDPBackend.MATH
)  # the fused kernel's way back is several times slower on the decoder's heads of 8 channels
def forward_stills(
    tracker: Tracker,
    images: Tensor,
    masks: Tensor,
    of: Tensor,
    stage: Stage,
    rng: random.Random,
    backward: Callable[[Tensor], None],
) -> dict[str, float]:
    """Ask for every mask by a box or a click, then by clicks on what is wrong; learn from all answers at once.

    Args:
        images: [B, 3, H, W] normalised.
        masks: [N, H, W] bool; of: [N], the picture of each.
        backward: called once with the loss; steps the optimiser.
    """
    every, _, sizes = tracker.encode(images)
    raws, want = [], []
    rounds = rng.choices(list(ROUNDS), list(ROUNDS.values()))[0]
    boxes = torch.rand(len(masks), device=masks.device) < 0.5
    firsts = {"box": [], "click": []}
    for name, rows in (("box", boxes), ("click", ~boxes)):
        at = rows.nonzero()[:, 0]
        if not len(at):
            continue
        truth = masks[at]
        top, high = tracker.grids([f[:, of[at]] for f in every], sizes)
        points, labels = box_points(truth, rng, MARGIN) if name == "box" else click_points(truth, rng)
        out = tracker.point_at(top, high, points, labels, multimask=name == "click")
        for turn in range(rounds):
            if turn:
                found = F.interpolate(out[3].detach().float(), size=masks.shape[-2:], mode="bilinear")[:, 0] > 0
                more, signs = correction_points(truth, found, rng)
                points, labels = torch.cat([points, more], 1), torch.cat([labels, signs], 1)
                so_far = out[3].detach().clamp(-LOGITS, LOGITS)
                out = tracker.point_at(top, high, points, labels, multimask=False, masks=so_far)
            picks = [1, 2, 3] if name == "click" and not turn else [0]
            raws.append((tracker.raw[0][:, picks], tracker.raw[1][:, picks], tracker.raw[3]))
            want.append(truth)
            if not turn:
                firsts[name] = [(raws[-1], truth)]
    target = torch.cat(want)
    part = losses(raws, target, target.flatten(1).any(1), stage.upsample, stage.every_mask)
    backward(part["mask"] + part["iou"] + part["presence"])
    log = {f"still_{name}": float(part[name].detach()) for name in ("mask", "iou", "J")}
    for name, asked in firsts.items():
        for raw, truth in asked:
            with torch.no_grad():
                log[f"still_J_{name}"] = float(losses([raw], truth, truth.flatten(1).any(1), 1)["J"])
    return log
