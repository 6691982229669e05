"""COCO instances JSON: run lengths, polygons or boxes, with track ids where there are several frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sam2long.errors import DataError
from sam2long.imports.areas import from_polygons, from_run_lengths
from sam2long.imports.numbering import FrameNumbers
from sam2long.imports.prompt import ObjectPrompt
from sam2long.naming import Key, ObjectNumbers, check_name, read_key

if TYPE_CHECKING:
    import numpy as np

TRACK_KEYS = ("track_id", "instance_id")


def looks_like(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def read_coco(files: Iterable[tuple[Path, dict[str, Any]]], frames: FrameNumbers) -> list[ObjectPrompt]:
    """The prompts of files that `looks_like` has passed.

    An image is the frame that its `frame_index` says, or that it is named after. An annotation is the object that
    its `track_id` (or `instance_id`, also among `attributes`) says; in a file about one frame they are just counted.

    Raises:
        DataError: with the annotation.
    """
    entries = [entry for path, content in files for entry in _annotations(path, content, frames)]
    numbers = ObjectNumbers(entry.key for entry in entries)
    found: dict[tuple[int, int], ObjectPrompt] = {}
    for entry in entries:
        place = entry.frame, numbers.of(entry.key)
        if place in found:
            raise DataError(
                f"{entry.where} is the second one of object {entry.key} on frame {entry.frame}; put them into one"
            )
        found[place] = _prompt(
            entry.content, entry.image, entry.where, frame=entry.frame, obj_id=place[1], label=entry.label,
            called=numbers.called(entry.key),
        )  # fmt: skip
    return list(found.values())


class _Annotation(NamedTuple):
    where: str  # for messages
    frame: int
    key: Key  # what the file calls the object
    label: str
    content: dict[str, Any]
    image: dict[str, Any]


def _annotations(path: Path, content: dict[str, Any], frames: FrameNumbers) -> Iterator[_Annotation]:
    try:
        images = {image["id"]: image for image in content["images"]}
        names = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
        used = {annotation["image_id"] for annotation in content["annotations"]}
    except (KeyError, TypeError):
        raise DataError(
            f"{path.name}: an image, annotation or category lacks its id; expected COCO instances"
        ) from None
    for number, annotation in enumerate(content["annotations"], start=1):
        where = f"{path.name}, annotation {number}"
        image = images.get(annotation["image_id"])
        if image is None:
            raise DataError(f"{where}: there is no image {annotation['image_id']!r}")
        index = image.get("frame_index")
        frame = index if isinstance(index, int) else frames.of(str(image.get("file_name", "")), f"{where}: its image")
        key = _key(annotation, number, len(used) == 1, where)
        label = check_name(names.get(annotation.get("category_id"), ""), f"{where}: the category")
        yield _Annotation(where, frame, key, label, annotation, image)


def _key(annotation: dict[str, Any], number: int, one_frame: bool, where: str) -> Key:
    more = annotation.get("attributes")
    for holder in (annotation, more if isinstance(more, dict) else {}):
        for key in TRACK_KEYS:
            if holder.get(key) is not None:
                return read_key(holder[key], f"{where}: {key}")
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
