"""COCO instances JSON: run lengths, polygons or boxes, with track ids where there are several frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.errors import DataError
from sam2long.imports.areas import from_polygons, from_run_lengths
from sam2long.imports.numbering import FrameNumbers
from sam2long.imports.prompt import ObjectPrompt

if TYPE_CHECKING:
    import numpy as np

TRACK_KEYS = ("track_id", "instance_id")


def looks_like(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def read_coco(path: Path, content: dict[str, Any], frames: FrameNumbers) -> list[ObjectPrompt]:
    """The prompts of a file that `looks_like` has passed.

    An image is the frame that its `frame_index` says, or that it is named after. An annotation is the object that
    its `track_id` (or `instance_id`, also among `attributes`) says; in a file about one frame they are just counted.

    Raises:
        DataError: with the annotation.
    """
    try:
        images = {image["id"]: image for image in content["images"]}
        names = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
        used = {annotation["image_id"] for annotation in content["annotations"]}
    except (KeyError, TypeError):
        raise DataError(
            f"{path.name}: an image, annotation or category lacks its id; expected COCO instances"
        ) from None
    found: dict[tuple[int, int], ObjectPrompt] = {}
    for number, annotation in enumerate(content["annotations"], start=1):
        where = f"{path.name}, annotation {number}"
        image = images.get(annotation["image_id"])
        if image is None:
            raise DataError(f"{where}: there is no image {annotation['image_id']!r}")
        index = image.get("frame_index")
        frame = index if isinstance(index, int) else frames.of(str(image.get("file_name", "")), f"{where}: its image")
        obj_id = _object(annotation, number, len(used) == 1, where)
        if (frame, obj_id) in found:
            raise DataError(f"{where} is the second one of object {obj_id} on frame {frame}; put them into one")
        label = names.get(annotation.get("category_id"), "")
        found[frame, obj_id] = _prompt(annotation, image, where, frame=frame, obj_id=obj_id, label=label)
    return list(found.values())


def _object(annotation: dict[str, Any], number: int, one_frame: bool, where: str) -> int:
    more = annotation.get("attributes")
    for holder in (annotation, more if isinstance(more, dict) else {}):
        for key in TRACK_KEYS:
            if key in holder:
                value = holder[key]
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise DataError(f"{where}: {key} is {value!r}; expected the object's number, from 1")
                return value
    if one_frame:
        return number
    raise DataError(f"{where} has no track_id; with several frames it must say which object it is")


def _prompt(annotation: dict[str, Any], image: dict[str, Any], where: str, **common: Any) -> ObjectPrompt:
    segmentation, box = annotation.get("segmentation"), annotation.get("bbox")
    if segmentation:
        mask = _mask(segmentation, image, where)
        if not mask.any():
            raise DataError(f"{where}: its mask is empty; leave it out where the object is not seen")
        return ObjectPrompt(**common, mask=mask)
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(value, (int, float)) for value in box)):
        raise DataError(f"{where} has neither segmentation nor bbox; expected run lengths, polygons or a box")
    x, y, width, height = box
    return ObjectPrompt(**common, box=(x, y, x + width, y + height))


def _mask(segmentation: Any, image: dict[str, Any], where: str) -> np.ndarray:
    if isinstance(segmentation, dict):
        return from_run_lengths(segmentation, where)
    if isinstance(segmentation, list):
        return from_polygons(segmentation, image.get("height"), image.get("width"), where)
    raise DataError(f"{where}: segmentation is neither run lengths nor polygons")
