"""LabelMe and X-AnyLabeling: a JSON file per frame, shapes with `label` and `group_id`."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.errors import DataError
from sam2long.imports.areas import MOST_CORNERS, check_size, cut_polygon, paint_circle
from sam2long.imports.numbering import FrameNumbers
from sam2long.imports.prompt import ObjectPrompt
from sam2long.naming import Key, ObjectNumbers, check_name, read_key

if TYPE_CHECKING:
    import numpy as np

BOXES = {"rectangle": (2, 4), "rotation": (4, 4), "oriented_rectangle": (4, 4)}  # how many corners each may have
AREAS = ("polygon", "mask", "circle")
DECIMALS = 2  # of corners, when asking whether a file has changed


def looks_like(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def fingerprint(content: dict[str, Any]) -> str:
    """A digest of what is drawn, whatever else an editor has changed by saving the file."""
    drawn = [
        [shape.get("label"), shape.get("group_id"), shape.get("shape_type"), shape.get("mask"),
         [[round(float(value), DECIMALS) for value in point] for point in shape.get("points", [])]]
        for shape in content["shapes"]
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(drawn).encode()).hexdigest()


def read_labelme(files: Iterable[tuple[Path, dict[str, Any]]], frames: FrameNumbers) -> list[ObjectPrompt]:
    """The prompts of files that `looks_like` has passed.

    `group_id` is the object. Shapes without one are named by their label: one object per label.
    Polygons, circles and masks are masks; what has only a rectangle (also a rotated one) or points is a box or clicks.

    Raises:
        DataError: with the file and the shape.
    """
    drawings = [_Drawing(path, content, frames) for path, content in files]
    numbers = ObjectNumbers(key for drawing in drawings for key in drawing.objects)
    return [
        drawing.prompt(shapes, numbers.of(key), numbers.called(key) if isinstance(key, int) else "")
        for drawing in drawings
        for key, shapes in drawing.objects.items()
    ]


class _Drawing:
    """One file: its frame, its size, and its shapes by object (group_id, or label where there is none)."""

    def __init__(self, path: Path, content: dict[str, Any], frames: FrameNumbers) -> None:
        self.name = path.name
        self.frame = frames.of(path.name, path.name)
        self.size = check_size(content.get("imageHeight"), content.get("imageWidth"), path.name)
        self.objects: dict[Key, list[dict[str, Any]]] = {}
        self.corners = 0
        for number, shape in enumerate(content["shapes"], start=1):
            self._add(shape, f"{path.name}, shape {number}")

    def _add(self, shape: Any, where: str) -> None:
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DataError(f"{where} has no label; expected a shape of LabelMe or X-AnyLabeling")
        kind, points = shape.get("shape_type") or "polygon", shape.get("points")
        if not isinstance(points, list) or not points or not all(_is_point(point) for point in points):
            raise DataError(f"{where}: points is {str(points)[:60]}; expected [[x, y], ...]")
        self.corners += len(points)
        if self.corners > MOST_CORNERS:
            raise DataError(f"{where}: {self.name} has more than {MOST_CORNERS} corners; draw with fewer")
        if kind not in (*BOXES, *AREAS, "point"):
            raise DataError(
                f"{where} is a {kind}, which says no area of an object; use polygon, rectangle, rotation, circle, "
                "mask or point"
            )
        group = shape.get("group_id")
        label = check_name(shape["label"], f"{where}: label")
        key = f"label {label}" if group is None else read_key(group, f"{where}: group_id")
        known = self.objects.setdefault(key, [])
        if group is None and known:
            raise DataError(
                f"{where}: {self.name} has several shapes {shape['label']!r} without group_id; give each object its "
                "own group_id, and the parts of one object the same"
            )
        known.append({**shape, "label": label, "shape_type": kind, "where": where})

    def prompt(self, shapes: list[dict[str, Any]], obj_id: int, called: str) -> ObjectPrompt:
        common = {"frame": self.frame, "obj_id": obj_id, "label": shapes[0]["label"], "called": called}
        if any(shape["shape_type"] in AREAS for shape in shapes):
            mask = self._mask([shape for shape in shapes if shape["shape_type"] != "point"])
            return ObjectPrompt(**common, mask=mask)
        boxes = [shape for shape in shapes if shape["shape_type"] in BOXES]
        if len(boxes) > 1:
            raise DataError(f"{boxes[1]['where']}: object {obj_id} has two boxes; draw one around it, or polygons")
        clicks = tuple((float(x), float(y)) for shape in shapes if shape not in boxes for x, y in shape["points"])
        box = self._box(boxes[0]) if boxes else None
        return ObjectPrompt(**common, points=clicks, point_labels=(1,) * len(clicks), box=box)

    def _box(self, shape: dict[str, Any]) -> tuple[float, float, float, float]:
        counts = BOXES[shape["shape_type"]]
        if len(shape["points"]) not in counts:
            raise DataError(f"{shape['where']} is a {shape['shape_type']} with {len(shape['points'])} corners")
        xs, ys = zip(*shape["points"], strict=True)
        height, width = self.size  # editors let corners lie outside the picture
        return max(0.0, min(xs)), max(0.0, min(ys)), min(float(width), max(xs)), min(float(height), max(ys))

    def _mask(self, shapes: list[dict[str, Any]]) -> np.ndarray:
        import numpy as np
        from PIL import Image, ImageDraw

        height, width = self.size
        image = Image.new("1", (width, height))
        draw = ImageDraw.Draw(image)
        whole = np.zeros(self.size, bool)
        for shape in shapes:
            points = [(float(x), float(y)) for x, y in shape["points"]]
            if shape["shape_type"] == "mask":
                self._paste(whole, shape)
            elif shape["shape_type"] == "circle":
                paint_circle(whole, points[0], points[-1])
            elif len(points) == 2:
                (x1, x2), (y1, y2) = (sorted(side) for side in zip(*points, strict=True))
                if x2 >= 0 and y2 >= 0 and x1 < width and y1 < height:
                    box = max(x1, -1.0), max(y1, -1.0), min(x2, width + 1.0), min(y2, height + 1.0)
                    draw.rectangle(box, outline=1, fill=1)
            elif len(points) < 3:
                raise DataError(f"{shape['where']} is a polygon with {len(points)} corners; expected 3 or more")
            elif len(points := cut_polygon(points, height, width)) >= 3:
                draw.polygon(points, outline=1, fill=1)
        whole |= np.array(image)
        if not whole.any():
            raise DataError(f"{shapes[0]['where']} marks no pixel of the frame; draw it again")
        return whole

    def _paste(self, whole: np.ndarray, shape: dict[str, Any]) -> None:
        import numpy as np
        from PIL import Image

        height, width = self.size
        left, top = (round(value) for value in shape["points"][0])
        where = f"{shape['where']}: its mask does not lie inside the frame"
        try:
            data = base64.b64decode(shape.get("mask") or "", validate=True)
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                if left < 0 or top < 0 or left + image.width > width or top + image.height > height:
                    raise DataError(where)  # before any of its pixels is decoded
                cut = np.array(image.convert("L")) > 0 if image.mode != "1" else np.array(image)
        except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{shape['where']}: mask is not a PNG in base64; expected what LabelMe writes") from None
        whole[top : top + cut.shape[0], left : left + cut.shape[1]] |= cut


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(part, (int, float)) and not isinstance(part, bool) and abs(part) < 1e7 for part in value)
    )
