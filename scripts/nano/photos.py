"""Photographs with masks, for training: YOLO polygons or palette masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

PICTURES = (".jpg", ".jpeg", ".png")
HELD_OUT = 0.1  # share of the photographs that are never trained on
SMALLEST = 0.004  # of the picture: an object below is in no clip
VOID = 255
# DAVIS is what the model is judged on; see `refuse_davis`.
DAVIS_2016_VAL = frozenset(
    [
        "blackswan",
        "bmx-trees",
        "breakdance",
        "camel",
        "car-roundabout",
        "car-shadow",
        "cows",
        "dance-twirl",
        "dog",
        "drift-chicane",
        "drift-straight",
        "goat",
        "horsejump-high",
        "kite-surf",
        "libby",
        "motocross-jump",
        "paragliding-launch",
        "parkour",
        "scooter-black",
        "soapbox",
    ]
)


class PhotosError(ValueError):
    """A folder that is no set of photographs with masks, in one sentence."""


@dataclass(frozen=True, eq=False)
class Photo:
    """image: [H, W, 3] uint8 RGB; ids: [H, W] uint8, 0 where there is no object, 255 where nobody knows."""

    name: str
    image: np.ndarray
    ids: np.ndarray

    @property
    def objects(self) -> list[int]:
        """Ids of the objects that are large enough to learn from."""
        counts = np.bincount(self.ids.ravel(), minlength=256)
        return [k for k in range(1, VOID) if counts[k] >= SMALLEST * self.ids.size]


def touching(ids: np.ndarray, k: int) -> list[int]:
    """The objects that touch object k. ids: [H, W] uint8."""
    around = cv2.dilate((ids == k).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return [int(n) for n in np.unique(ids[around]) if n not in (0, k, VOID)]


def split(photos: list[Photo], held_out: float) -> tuple[list[Photo], list[Photo]]:
    """Those to train on, and those kept out: an even choice by name, so that every folder is in both.

    Raises:
        PhotosError: no object is left to train on.
    """
    every = round(1 / held_out) if held_out else len(photos) + 1
    learned = [p for n, p in enumerate(photos, 1) if n % every]
    if not any(p.objects for p in learned):
        raise PhotosError(f"no object is left to train on with {held_out:g} of {len(photos)} photographs held out; "
                          "give more, or a smaller --held-out")  # fmt: skip
    return learned, [p for n, p in enumerate(photos, 1) if not n % every]


def refuse_davis(folder: Path) -> None:
    """DAVIS is for evaluation only: a model that has seen it cannot be judged on it.

    Raises:
        PhotosError: the folder lies in one named as DAVIS is, or holds folders or files named as its sequences are.
    """
    named = any(re.fullmatch(r"DAVIS|davis[-_]?(20)?1[67].*", part) for part in folder.resolve().parts)
    names = {re.sub(r"[-_]?\d+$", "", p.stem) for p in folder.rglob("*")}
    if named or len(names & DAVIS_2016_VAL) > 2:
        raise PhotosError(
            f"{folder} looks like DAVIS, which is for evaluation only; give photographs that no benchmark uses"
        )


def read_photos(folders: Sequence[Path], longest: int = 640) -> list[Photo]:
    """All photographs below each of `folders`, by name, no side longer than `longest` pixels.

    Expects `images/NAME.jpg` (or .png) with `labels/NAME.txt` (YOLO segmentation: class x1 y1 x2 y2 ..., fractions of
    width and height) or `masks/NAME.png` (palette: one id an object, 255 unknown). A picture without either is a
    background.

    Raises:
        PhotosError: no such folder, no pictures, DAVIS, a file that cannot be read, or no object anywhere.
    """
    return [photo for folder in folders for photo in _read_folder(folder, longest)]


def _read_folder(folder: Path, longest: int) -> list[Photo]:
    refuse_davis(folder)
    files = sorted(p for p in (folder / "images").glob("*") if p.suffix.lower() in PICTURES)
    if not files:
        raise PhotosError(
            f"{folder}/images holds no photographs; expected NAME.jpg with labels/NAME.txt or masks/NAME.png"
        )
    photos = [_read(file, longest) for file in files]
    if not any(photo.objects for photo in photos):
        raise PhotosError(
            f"{folder} has photographs but no object in labels/ or masks/; expected one file for each name"
        )
    return photos


def _read(file: Path, longest: int) -> Photo:
    polygons, mask = file.parents[1] / "labels" / f"{file.stem}.txt", file.parents[1] / "masks" / f"{file.stem}.png"
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        picture.thumbnail((longest, longest), Image.Resampling.BOX)
        if mask.is_file():
            with Image.open(mask) as opened:
                ids = np.array(opened.resize(picture.size, Image.Resampling.NEAREST))
        else:
            ids = _fill(polygons.read_text() if polygons.is_file() else "", picture.size)
    except (OSError, ValueError) as error:
        raise PhotosError(f"{file.name} or its mask cannot be read: {error}") from None
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise PhotosError(f"{mask} is not a palette or grey picture of object ids; expected one number per pixel")
    return Photo(file.stem, np.array(picture), ids)


def _fill(text: str, size: tuple[int, int]) -> np.ndarray:
    """Polygons as ids, the largest first, so that what lies in front (and is smaller) stays whole. size: (W, H)."""
    shapes = []
    for line in text.splitlines():
        numbers = [float(n) for n in line.split()[1:]]
        if len(numbers) >= 6 and len(numbers) % 2 == 0:
            shapes.append((np.array(numbers).reshape(-1, 2) * size).round().astype(np.int32))
    shapes.sort(key=lambda points: -cv2.contourArea(points))
    ids = np.zeros(size[::-1], np.uint8)
    for k, points in enumerate(shapes[: VOID - 1], start=1):
        cv2.fillPoly(ids, [points], k)
    return ids
