"""masks/: palette PNGs as the VOS benchmarks want them, or one folder per object when masks overlap.

A palette PNG has one object per pixel. Frames are written as they come, before anyone can know whether masks
will overlap later on. So it begins with palette PNGs (masks/00000.png), and at the first pixel that two objects
claim, or an id above 254, the frames so far are written again from the master, as masks/<object>/00000.png
with 255 for the object, and so are all that follow. The new folder takes the old one's place in one step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from sam2long.atomic import replacing
from sam2long.export.masks import MaskReader

MAX_LABEL = 254  # 255 is void to whoever reads such images


def davis_palette() -> list[int]:
    """The colours of DAVIS and PASCAL VOC, 256 x (red, green, blue): label bits spread over the channels."""
    palette = []
    for label in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= (label >> channel & 1) << (7 - bit)
            label >>= 3
        palette.extend(colour)
    return palette


class PngWriter:
    """Writes masks as PNGs, each whole or not at all.

    Args:
        folder: masks/ of the run; made when missing. One that is there is continued.
        master: the masks.jsonl to write frames again from.
        name: frame index -> file name without ending.
    """

    def __init__(self, folder: Path, master: Path, name: Callable[[int], str]) -> None:
        self.folder = folder
        self._master = master
        self._name = name
        self._aside = folder.with_name(f".{folder.name}.partial")
        self._old = folder.with_name(f".{folder.name}.old")
        self._palette = davis_palette()
        if self._old.exists() and not folder.exists():
            os.replace(self._old, folder)  # killed between the two renames of `_switch`
        for leftover in (self._aside, self._old):
            shutil.rmtree(leftover, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.per_object = any(entry.is_dir() for entry in folder.iterdir())

    def write(self, frame: int, masks: Mapping[int, np.ndarray]) -> None:
        """Add the masks of a frame; other objects that the frame has already are kept.

        Args:
            frame: index; the master has it already.
            masks: object id -> [H, W] bool.
        """
        if not masks:
            return
        if not self.per_object:
            labels = self._labels(frame, masks)
            if labels is not None:
                self._save_labels(self.folder / f"{self._name(frame)}.png", labels)
                return
            self._switch()
        self._save_objects(self.folder, frame, masks)

    def _labels(self, frame: int, masks: Mapping[int, np.ndarray]) -> np.ndarray | None:
        """[H, W] uint8 with an object id in every pixel; None when that cannot be."""
        if not all(0 < obj_id <= MAX_LABEL for obj_id in masks):
            return None
        path = self.folder / f"{self._name(frame)}.png"
        shape = next(iter(masks.values())).shape
        labels = np.zeros(shape, np.uint8)
        if path.exists():
            with Image.open(path) as image:
                labels = np.array(image)
            labels[np.isin(labels, list(masks))] = 0
        for obj_id, mask in masks.items():
            if labels[mask].any():
                return None
            labels[mask] = obj_id
        return labels

    def _switch(self) -> None:
        shutil.rmtree(self._aside, ignore_errors=True)
        self._aside.mkdir()
        with MaskReader(self._master) as master:
            for frame in master.frames:
                self._save_objects(self._aside, frame, master.masks(frame))
        os.replace(self.folder, self._old)
        os.replace(self._aside, self.folder)
        shutil.rmtree(self._old)
        self.per_object = True

    def _save_labels(self, path: Path, labels: np.ndarray) -> None:
        image = Image.fromarray(labels)
        image.putpalette(self._palette)
        with replacing(path) as partial:
            image.save(partial, format="png")

    def _save_objects(self, folder: Path, frame: int, masks: Mapping[int, np.ndarray]) -> None:
        for obj_id, mask in masks.items():
            path = folder / str(obj_id) / f"{self._name(frame)}.png"
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as partial:
                Image.fromarray(mask.astype(np.uint8) * 255).save(partial, format="png")
