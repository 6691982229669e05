"""PNG sequences: palette images, one folder per object, cut-outs with alpha."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sam2long.export.job import ExportJob
from sam2long.export.pngs import MAX_LABEL, davis_palette

MASK_VALUE = 255


def write_palette_pngs(job: ExportJob) -> None:
    """00000.png with an object id in every pixel, as DAVIS and YouTube-VOS have it. Where masks share pixels, the
    higher id lies on top."""
    job.require_ids(1, MAX_LABEL, "a palette PNG")
    palette = davis_palette()
    for frame in job.frames():
        labels = np.zeros((job.run.height, job.run.width), np.uint8)
        for obj_id, mask in frame.visible():
            if labels[mask].any():
                job.lost.add(
                    "Pixels that two objects claim went to the higher id: a palette PNG has one object per pixel",
                    frame.index, obj_id,
                )  # fmt: skip
            labels[mask] = obj_id
        image = Image.fromarray(labels)
        image.putpalette(palette)
        image.save(job.folder / f"{frame.stem}.png")


def write_object_pngs(job: ExportJob) -> None:
    """1/00000.png, black with the object in white: the layout of SA-V and of overlapping masks."""
    for frame in job.frames():
        for obj_id, mask in frame.masks():
            save_mask(mask, job.folder / str(obj_id) / f"{frame.stem}.png")


def write_cutouts(job: ExportJob) -> None:
    """1/00000.png: the frame with the object opaque and everything else clear, for every tracked frame."""
    for frame, image, _ in job.pictures():
        for obj_id, mask in frame.masks():
            path = job.folder / str(obj_id) / f"{frame.stem}.png"
            path.parent.mkdir(exist_ok=True)
            # Clear pixels lose their colour: what was cut away must not lie hidden in the file.
            alpha = mask.astype(np.uint8)
            Image.fromarray(np.dstack([image * alpha[:, :, None], alpha * 255])).save(path)


def save_mask(mask: np.ndarray, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * MASK_VALUE).save(path)
