"""Stills: palette images, one folder per object, cut-outs with alpha, trimaps, a label volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter

from sam2long.export.edges import INSIDE, alpha, trimap
from sam2long.export.job import ExportJob, MaskFrame
from sam2long.export.pngs import MAX_LABEL, davis_palette

MASK_VALUE = 255
MOST_LABEL_16 = 65535


def write_palette_pngs(job: ExportJob) -> None:
    """00000.png with an object id in every pixel, as DAVIS and YouTube-VOS have it. Where masks share pixels, the
    higher id lies on top."""
    job.require_ids(1, MAX_LABEL, "a palette PNG")
    palette = davis_palette()
    for frame in job.frames():
        image = Image.fromarray(_labels(job, frame, np.uint8, "a palette PNG"))
        image.putpalette(palette)
        image.save(job.folder / f"{frame.stem}.png")


def write_label_stack(job: ExportJob) -> None:
    """labels.tif: a page per frame from the first of the video that was opened to the last, with an object id in every
    pixel: 8 bits, or 16 where there are ids above 255."""
    job.require_ids(1, MOST_LABEL_16, "a label volume")
    run = job.run
    kind = np.uint8 if max(run.objects) <= MAX_LABEL else np.uint16
    nothing = np.zeros((run.height, run.width), kind)
    pages = max(run.frames[-1] + 1, run.masks.header.get("num_frames") or 0)
    with AppendingTiffWriter(str(job.folder / "labels.tif"), new=True) as file:
        written = 0

        def add(labels: np.ndarray) -> None:
            nonlocal written
            Image.fromarray(labels).save(file, format="TIFF", compression="tiff_deflate")
            file.newFrame()
            written += 1

        for frame in job.frames():
            while written < frame.index:
                add(nothing)
            add(_labels(job, frame, kind, "a label volume"))
        while written < pages:
            add(nothing)
    if run.source_frame(pages - 1) != pages - 1:
        job.lost.add(f"The frames' numbers: page 0 is frame {run.start} of the video, and each page {run.stride} on")
    if any(run.labels.values()):
        job.lost.add("The objects' names: a label volume has numbers only")


def _labels(job: ExportJob, frame: MaskFrame, kind: type, what: str) -> np.ndarray:
    """[H, W] with an object id in every pixel; where masks share pixels, the higher id lies on top."""
    labels: np.ndarray = np.zeros((job.run.height, job.run.width), kind)
    for obj_id, mask in frame.visible():
        if labels[mask].any():
            job.lost.add(
                f"Pixels that two objects claim went to the higher id: {what} has one object per pixel",
                frame.index, obj_id,
            )  # fmt: skip
        labels[mask] = obj_id
    return labels


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
            opacity = alpha(mask, job.feather)
            Image.fromarray(np.dstack([image * (opacity > 0)[:, :, None], opacity])).save(path)


def write_trimaps(job: ExportJob) -> None:
    """1/00000.png per object: 255 inside, 0 outside, 128 within `band` pixels of the edge."""
    for frame in job.frames():
        for obj_id, mask in frame.masks():
            path = job.folder / str(obj_id) / f"{frame.stem}.png"
            path.parent.mkdir(exist_ok=True)
            image = trimap(mask, job.band or 0.0)
            Image.fromarray(image).save(path)
            if mask.any() and not (image == INSIDE).any():
                job.lost.add(
                    "A sure part of objects that are thinner than the band on both sides: all of them is unknown; "
                    "a smaller --band keeps one", frame.index, obj_id,
                )  # fmt: skip
    job.write_images(job.folder / "images")
    if any(job.run.labels.values()):
        job.lost.add("The objects' names: a trimap has no place for them")


def save_mask(mask: np.ndarray, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * MASK_VALUE).save(path)
