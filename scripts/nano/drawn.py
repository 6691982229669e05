"""Photographs with their objects drawn anew by MobileSAM: a model that learns from polygons draws like them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nano.photos import VOID, Photo
from nano.prompts import box_points
from sam2long import SAM2LongVideoPredictor
from sam2long.tracking.stills import Stills
from sam2long.tracking.window import Window, reframed

ALIKE = 0.72  # IoU from which the box was understood, and the drawn mask takes the place of the old one
SMALLEST = 0.0015  # of the picture: what is smaller stays as it was


def drawn_anew(predictor: SAM2LongVideoPredictor, photo: Photo) -> tuple[Photo, int]:
    """A photograph with what its objects' boxes mark, and how many were drawn. Where two overlap, the smaller shows."""
    stills = Stills(predictor.init_state(photo.image[None]).session.reader)
    counts = np.bincount(photo.ids.ravel(), minlength=VOID)
    masks: list[tuple[int, np.ndarray]] = []
    drawn = 0
    for k in (k for k in range(1, VOID) if counts[k]):
        mask = photo.ids == k
        found = _boxed(stills, mask, predictor.image_size) if counts[k] >= SMALLEST * mask.size else mask
        if found is not mask and (found & mask).sum() >= ALIKE * (found | mask).sum():
            mask, drawn = found, drawn + 1
        masks.append((k, mask))
    ids = np.where(photo.ids == VOID, VOID, 0).astype(np.uint8)
    for k, mask in sorted(masks, key=lambda each: -each[1].sum()):
        ids[mask] = k
    return replace(photo, ids=ids), drawn


def _boxed(stills: Stills, mask: np.ndarray, size: int) -> np.ndarray:
    """What MobileSAM marks in the box around a mask [H, W] bool."""
    height, width = mask.shape
    corners, labels = box_points(torch.from_numpy(mask)[None], random.Random(0), jitter=0.0)
    with torch.inference_mode():
        marked = stills.answer(0, (corners * torch.tensor([size / width, size / height]), labels), None)
        assert marked is not None  # a box is always answered
        return reframed(marked.logits, marked.view, Window.of_all(height, width), mask.shape)[0, 0].numpy() > 0


def write(predictor: SAM2LongVideoPredictor, photos: Iterable[Photo], folder: Path) -> int:
    """As `read_photos` reads them: `images/NAME.jpg`, `masks/NAME.png`. Returns how many objects were drawn."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    count = 0
    for photo in photos:
        photo, drawn = drawn_anew(predictor, photo)
        count += drawn
        Image.fromarray(photo.image).save(folder / "images" / f"{photo.name}.jpg", quality=95)
        Image.fromarray(photo.ids).save(folder / "masks" / f"{photo.name}.png")
    return count
