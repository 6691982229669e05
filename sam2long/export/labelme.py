"""JSON per frame for LabelMe and for X-AnyLabeling, which read nearly the same: `label`, and `group_id` as track id."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
from PIL import Image

from sam2long.export.job import ExportJob
from sam2long.export.polygons import box, outlines, rotated_box
from sam2long.imports.labelme import fingerprint

LABELME_VERSION = "5.2.1"  # the first with shapes of the type "mask"
X_ANYLABELING_VERSION = "2.4.0"  # the first with rectangles of four corners


def write_labelme(job: ExportJob) -> None:
    """00000.json beside 00000.jpg. Shapes: polygon (one per part), rectangle, or mask, which holds everything."""
    _write(job, LABELME_VERSION, _labelme_shapes, {"imageData": None})


def write_x_anylabeling(job: ExportJob) -> None:
    """00000.json beside 00000.jpg. Shapes: polygon (one per part), rectangle, or rotation."""
    _write(job, X_ANYLABELING_VERSION, _x_anylabeling_shapes, {"imageData": None, "description": ""})


def _write(job: ExportJob, version: str, shapes_of: Any, more: dict[str, Any]) -> None:
    job.require_ids(1, 2**31 - 1, "group_id")
    written = job.notes["shapes"] = {}  # for the way back: which frames were changed in the editor
    for frame in job.frames():
        shapes = []
        for obj_id, mask in frame.visible():
            common = {"label": job.run.class_of(obj_id), "group_id": obj_id, "description": "", "flags": {}}
            shapes += [common | shape for shape in shapes_of(job, mask)]
            _note_losses(job, mask, frame.index, obj_id)
        content = {
            "version": version,
            "flags": {},
            "shapes": shapes,
            "imagePath": job.run.image_name(frame.index),
            "imageHeight": job.run.height,
            "imageWidth": job.run.width,
            "time": job.run.time(frame.index),
            **more,
        }
        path = job.folder / f"{frame.stem}.json"
        written[path.name] = fingerprint(content)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    job.write_images(job.folder)


def _labelme_shapes(job: ExportJob, mask: np.ndarray) -> list[dict[str, Any]]:
    left, top, right, bottom = box(mask)
    if job.shape == "rectangle":
        return [{"shape_type": "rectangle", "points": [[left, top], [right, bottom]], "mask": None}]
    if job.shape == "mask":
        cut = mask[top : bottom + 1, left : right + 1]
        return [{"shape_type": "mask", "points": [[left, top], [right, bottom]], "mask": _png(cut)}]
    return [{"shape_type": "polygon", "points": ring.tolist(), "mask": None} for ring in outlines(mask, job.tolerance)]


def _x_anylabeling_shapes(job: ExportJob, mask: np.ndarray) -> list[dict[str, Any]]:
    common: dict[str, Any] = {"score": None, "difficult": False, "attributes": {}, "kie_linking": []}
    if job.shape == "rectangle":
        left, top, right, bottom = box(mask)
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        return [common | {"shape_type": "rectangle", "points": corners}]
    if job.shape == "rotation":
        turned = rotated_box(mask)
        along = turned[1] - turned[0]
        direction = math.atan2(along[1], along[0]) % (2 * math.pi)
        return [common | {"shape_type": "rotation", "points": turned.tolist(), "direction": direction}]
    return [common | {"shape_type": "polygon", "points": ring.tolist()} for ring in outlines(mask, job.tolerance)]


def _note_losses(job: ExportJob, mask: np.ndarray, frame: int, obj_id: int) -> None:
    if job.shape in ("rectangle", "rotation"):
        left, top, right, bottom = box(mask)
        if job.shape == "rotation" or mask.sum() < (right - left + 1) * (bottom - top + 1):
            job.lost.add(f"The masks' shapes: a {job.shape} is a box", frame, obj_id)


def _png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
