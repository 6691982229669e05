"""What the user has said with napari's own layers: clicks, boxes and outlines, painted masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sam2long.errors import PromptError
from sam2long.hosts.boxes import inside
from sam2long.hosts.napari.masks import MaskStack
from sam2long.hosts.napari.video import LayerVideo
from sam2long.imports.areas import from_polygons
from sam2long.imports.prompt import ObjectPrompt

OBJECT, POSITIVE = "object", "positive"  # columns of a prompt layer's features
FIRST = 1  # the object of prompts that do not say which
CORNERS = 64  # of an ellipse that becomes an outline
HALF = 0.5  # napari measures from the centre of a pixel, the tracker from its corner

Prompts = dict[tuple[int, int], ObjectPrompt]  # (frame, object)


def collect(image: Any, video: LayerVideo, points: Any, shapes: Any, masks: MaskStack) -> Prompts:
    """All prompts on the frames of a video. What is painted counts before an outline, an outline before clicks.

    Args:
        image: the layer behind `video`. points, shapes: layers; None for none. masks: what was tracked and painted.
    Raises:
        PromptError: a layer of other dimensions, or a shape that has no inside.
    """
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for layer in (points, shapes):
        if layer is not None and layer.ndim != image.ndim:
            raise PromptError(
                f"the layer {layer.name} has {layer.ndim} dimensions and {image.name} has {image.ndim}; make one that "
                "fits with New prompt layers"
            )
    for at, click in enumerate(points.data if points is not None else ()):
        frame, (x, y), obj_id = *_pixel(click, points, image, video), _feature(points, at, OBJECT, FIRST)
        if frame is not None:
            entry = found.setdefault((frame, obj_id), {})
            entry["points"] = (*entry.get("points", ()), (x, y))
            entry["point_labels"] = (*entry.get("point_labels", ()), int(_feature(points, at, POSITIVE, True)))
    for at, (corners, kind) in enumerate(
        zip(shapes.data, shapes.shape_type, strict=True) if shapes is not None else ()
    ):
        placed = [_pixel(corner, shapes, image, video) for corner in corners]
        frames = {frame for frame, _ in placed}
        if len(frames) > 1:
            raise PromptError(f"shape {at + 1} of {shapes.name} lies on several frames; draw one on each frame")
        if (frame := frames.pop()) is None:
            continue
        entry = found.setdefault((frame, _feature(shapes, at, OBJECT, FIRST)), {})
        entry |= _area(kind, np.array([pixel for _, pixel in placed]), video, f"shape {at + 1} of {shapes.name}")
    for place, obj_id in masks.painted:
        mask = masks.mask(place, obj_id)
        if (frame := video.frame_at(place)) is not None and mask is not None and mask.any():
            found[frame, obj_id] = {"mask": mask}
    return {key: _prompt(*key, entry) for key, entry in sorted(found.items())}


def _prompt(frame: int, obj_id: int, said: Mapping[str, Any]) -> ObjectPrompt:
    if "mask" in said:
        said = {"mask": said["mask"]}
    return ObjectPrompt(frame=frame, obj_id=obj_id, **said)


def same(one: ObjectPrompt, other: ObjectPrompt) -> bool:
    """Whether two prompts say the same."""
    said = [(prompt.points, prompt.point_labels, prompt.box) for prompt in (one, other)]
    if one.mask is None or other.mask is None:
        return said[0] == said[1] and one.mask is other.mask
    return said[0] == said[1] and np.array_equal(one.mask, other.mask)


def _pixel(point: Any, layer: Any, image: Any, video: LayerVideo) -> tuple[int | None, tuple[float, float]]:
    """The frame that a point of a layer lies on, None for none of the video's, and its x and y there."""
    *leading, y, x = image.world_to_data(layer.data_to_world(point))
    return video.frame_at([round(float(index)) for index in leading]), (float(x) + HALF, float(y) + HALF)


def _feature(layer: Any, at: int, name: str, default: Any) -> Any:
    if name not in layer.features:
        return default
    value = layer.features[name].iloc[at]
    return default if value is None or value != value else type(default)(value)  # NaN where none was given


def _area(kind: str, corners: np.ndarray, video: LayerVideo, where: str) -> dict[str, Any]:
    """A rectangle becomes a box, what has another inside a mask."""
    if kind not in ("rectangle", "ellipse", "polygon"):
        raise PromptError(f"{where} is a {kind}, which has no inside; draw a rectangle, an ellipse or a polygon")
    _, height, width, _ = video.shape
    box = inside([*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()], height, width, where)
    if kind == "rectangle":
        return {"box": box}
    if kind == "ellipse":
        angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2
        corners = circle @ np.array([corners[1] - corners[0], corners[3] - corners[0]]) + corners.mean(axis=0)
    return {"mask": from_polygons([corners.ravel().tolist()], height, width, where)}
