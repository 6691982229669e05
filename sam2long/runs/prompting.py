"""What the user says about objects: flags and prompts.json; all become `ObjectPrompt`s.

prompts.json is a list (or {"prompts": list}) of

    {"frame": 0, "object": 1, "label": "dog", "box": [x1, y1, x2, y2]}
    {"frame": 0, "object": 2, "points": [[x, y], ...], "labels": [1, 0, ...]}
    {"frame": 90, "object": 1, "mask": "dog_90.png"}

For several clips, an object with a list for each, by the clip's name with or without its ending:

    {"a.mp4": [{"frame": 0, "object": 1, "box": [x1, y1, x2, y2]}], "b": [...]}

`frame` counts the frames of the video and is 0 when left out; `labels` are all 1 when left out; a mask is an
image beside the file or COCO run lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2long.errors import DataError, PromptError, short
from sam2long.imports.areas import FAR, from_run_lengths
from sam2long.imports.images import masks_from_image, read_mask
from sam2long.imports.prompt import ObjectPrompt, labels_of
from sam2long.json_file import read_json
from sam2long.naming import MOST_ID, check_id, check_name

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ObjectPrompt", "from_file", "from_flags", "labels_of", "masks_from_image"]

KEYS = {"frame", "object", "label", "points", "labels", "box", "mask"}


def from_flags(
    frame: int, box: str | None, points: Sequence[str], negatives: Sequence[str], mask: Path | None, label: str
) -> list[ObjectPrompt]:
    """The prompts of --box, --point, --neg and --mask; empty when none was given."""
    if mask is not None:
        if box or points or negatives:
            raise PromptError("--mask does not go with --box, --point or --neg; give the mask or the others")
        return masks_from_image(mask, frame, label)
    if not (box or points or negatives):
        return []
    coordinates = [_point(text, "--point") for text in points] + [_point(text, "--neg") for text in negatives]
    corners = None
    if box:
        x1, y1, x2, y2 = _numbers(box, 4, "--box", "x1,y1,x2,y2")
        corners = x1, y1, x2, y2
    if not points and corners is None:
        raise PromptError("--neg only says what is not the object; add a --point or a --box that says what is")
    marks = (1,) * len(points) + (0,) * len(negatives)
    return [
        ObjectPrompt(frame=frame, obj_id=1, label=label, points=tuple(coordinates), point_labels=marks, box=corners)
    ]


def from_file(path: Path, clip: str = "") -> list[ObjectPrompt]:
    """The prompts of a prompts.json.

    Args:
        path: of the file.
        clip: name of the video file or folder, for a file with prompts of several.
    Raises:
        DataError: not such a file; the message names the entry.
    """
    content = read_json(path, "a list of prompts")
    if isinstance(content, dict) and content:
        content = content["prompts"] if _is_one_list(content, path) else _of_clip(content, path, clip)
    if not isinstance(content, list) or not content:
        raise DataError(f'{path} has no prompts; expected a list like [{{"frame": 0, "object": 1, "box": [...]}}]')
    prompts = [_entry(entry, f"{path.name}, prompt {number}", path.parent) for number, entry in enumerate(content, 1)]
    seen: set[tuple[int, int]] = set()
    for prompt in prompts:
        if (key := (prompt.frame, prompt.obj_id)) in seen:
            raise DataError(f"{path.name} prompts object {key[1]} twice on frame {key[0]}; put both in one entry")
        seen.add(key)
    return prompts


def clips_in(path: Path) -> list[str]:
    """The names of the clips that a prompts.json has prompts for; none where it is a list."""
    content = read_json(path, "a list of prompts")
    if isinstance(content, dict) and content and not _is_one_list(content, path):
        return list(content)
    from_file(path)  # what is wrong with it is wrong for every clip
    return []


def some(names: Sequence[str]) -> str:
    """The first of them, for a message."""
    return ", ".join(name or '""' for name in names[:5]) + (", ..." if len(names) > 5 else "")


def _is_one_list(content: dict[str, Any], path: Path) -> bool:
    """Whether it is {"prompts": list} and not several clips."""
    others = [name for name in content if name != "prompts"]
    if "prompts" in content and others and "format" not in content:  # a project of `sam2long annotate` says more
        raise DataError(
            f"{path} has prompts and {some(others)} beside each other; expected a list, or clips only, one that is "
            "called prompts with its ending"
        )
    return "prompts" in content


def _of_clip(content: dict[str, Any], path: Path, clip: str) -> Any:
    found = [name for name in dict.fromkeys((clip, Path(clip).stem)) if name in content]
    if not found:
        raise DataError(f"{path} has no prompts for {clip}; expected its name among {some(list(content))}")
    if len(found) > 1:
        raise DataError(f"{path} has prompts for {found[0]} and for {found[1]}; leave one of the two out")
    return content[found[0]]


def numbered_otherwise(prompts: Sequence[ObjectPrompt]) -> str | None:
    """What files call their objects, where that could not be their numbers, for the user; None where it was."""
    said = []
    for what, names in (
        ("objects by colour", {prompt.obj_id: prompt.colour for prompt in prompts if prompt.colour}),
        ("objects by what the file calls them", {prompt.obj_id: prompt.called for prompt in prompts if prompt.called}),
    ):
        if names:
            said.append(f"{what}: {', '.join(f'{number} {name}' for number, name in sorted(names.items()))}")
    return "; ".join(said) or None


def _entry(entry: Any, where: str, folder: Path) -> ObjectPrompt:
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {short(entry)}; expected an object with frame, object and box, points or mask")
    if unknown := sorted(set(entry) - KEYS):
        raise DataError(f"{where} has unknown keys {', '.join(unknown)}; expected {', '.join(sorted(KEYS))}")
    frame, obj_id = entry.get("frame", 0), entry.get("object")
    if isinstance(frame, bool) or not isinstance(frame, int) or frame < 0:
        raise DataError(f"{where}: frame is {short(frame)}; expected an integer of 0 or more")
    if isinstance(obj_id, str) and obj_id.strip().isdecimal() and len(obj_id) <= len(str(MOST_ID)):
        obj_id = int(obj_id)
    if obj_id == 0 and not isinstance(obj_id, bool):
        raise DataError(f"{where}: object is 0, which means background in mask images; count objects from 1")
    label = check_name(entry.get("label", ""), f"{where}: label")
    obj_id = check_id(obj_id, f"{where}: object")
    if entry.get("mask") is not None:
        if entry.get("points") or entry.get("box"):
            raise DataError(f"{where} has a mask and points or a box; give the mask or the others")
        mask = _entry_mask(entry["mask"], where, folder)
        return ObjectPrompt(frame=frame, obj_id=obj_id, label=label, mask=mask)
    points = entry.get("points") or []
    if not isinstance(points, list) or not all(_is_vector(point, 2) for point in points):
        raise DataError(f"{where}: points is {short(points)}; expected [[x, y], ...]")
    marks = entry.get("labels") or [1] * len(points)
    if not isinstance(marks, list) or len(marks) != len(points) or any(mark not in (0, 1) for mark in marks):
        raise DataError(f"{where}: labels is {short(marks)}; expected {len(points)}, each 1 (object) or 0 (not)")
    box = entry.get("box")
    if box is not None and not _is_vector(box, 4):
        raise DataError(f"{where}: box is {short(box)}; expected [x1, y1, x2, y2]")
    if not points and box is None:
        raise DataError(f"{where} says nothing about the object; add points, a box or a mask")
    return ObjectPrompt(
        frame=frame,
        obj_id=obj_id,
        label=label,
        points=tuple((float(x), float(y)) for x, y in points),
        point_labels=tuple(int(mark) for mark in marks),
        box=None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
    )


def _entry_mask(value: Any, where: str, folder: Path) -> np.ndarray:
    if isinstance(value, str):
        return read_mask(folder / value).labels != 0
    if isinstance(value, dict) and "counts" in value:
        return from_run_lengths(value, where)
    raise DataError(f"{where}: mask is neither the name of an image nor COCO run lengths (size, counts)")


def _point(text: str, flag: str) -> tuple[float, float]:
    x, y = _numbers(text, 2, flag, "x,y")
    return x, y


def _numbers(text: str, count: int, flag: str, form: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise PromptError(f"{flag} is {text!r}; expected {form} in pixels, without spaces")
    return numbers


def _is_vector(value: Any, length: int) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == length
        and all(isinstance(part, (int, float)) and not isinstance(part, bool) and abs(part) < FAR for part in value)
    )
