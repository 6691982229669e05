"""Prompts are checked here, before anything runs: what passes is a tensor that sam2 takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2long.errors import PromptError

POSITIVE, NEGATIVE = 1, 0
BOX_LABELS = (2, 3)  # sam2's labels of a box's two corners


def check_points(
    points: Any,
    labels: Any,
    box: Any,
    *,
    height: int,
    width: int,
    normalized_input: bool,
    image_size: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Clicks and box as sam2's prompt encoder takes them.

    Args:
        points: [n, 2] or [1, n, 2] x, y; or None.
        labels: [n] or [1, n], 1 for the object and 0 for what is not; or None.
        box: x1, y1, x2, y2; or None.
        height, width: of the video, in pixels.
        normalized_input: coordinates are 0..1 already instead of pixels.
        image_size: S, the side of the model's input.
        device: of the result.
    Returns:
        coordinates [1, n, 2] float32 in model pixels and labels [1, n] int32; a box comes first.
    Raises:
        PromptError: with what was wrong and what is expected.
    """
    if points is None and box is None:
        raise PromptError("no prompt given; pass points with labels, or a box x1, y1, x2, y2, or both")
    if (points is None) != (labels is None):
        given, missing = ("points", "labels") if labels is None else ("labels", "points")
        raise PromptError(f"{given} without {missing}; give one label (1 object, 0 not) for each point x, y")
    coords = torch.zeros(1, 0, 2)
    marks = torch.zeros(1, 0, dtype=torch.int32)
    if points is not None:
        coords, marks = _points(points), _labels(labels)
        if coords.shape[1] != marks.shape[1]:
            raise PromptError(f"{coords.shape[1]} points but {marks.shape[1]} labels; give one label for each point")
        if coords.shape[1] == 0 and box is None:
            raise PromptError("points is empty; give at least one point x, y, or a box")
    if box is not None:
        coords = torch.cat([_box(box), coords], dim=1)
        marks = torch.cat([torch.tensor([BOX_LABELS], dtype=torch.int32), marks], dim=1)
    extent = torch.tensor([1.0, 1.0] if normalized_input else [width, height], dtype=torch.float32)
    outside = ((coords < 0) | (coords > extent)).any(dim=-1)[0]
    if outside.any():
        x, y = coords[0, int(outside.nonzero()[0, 0])].tolist()
        unit = "in 0..1 (normalized)" if normalized_input else "pixels"
        raise PromptError(
            f"point ({x:g}, {y:g}) is outside the frame, which is {extent[0]:g} x {extent[1]:g} {unit} (width x height)"
        )
    coords = coords / extent if not normalized_input else coords
    return (coords * image_size).to(device), marks.to(device)


def check_mask(mask: Any, *, height: int, width: int, image_size: int, device: torch.device) -> Tensor:
    """A mask as sam2 takes it: bool [S, S], resized as sam2 resizes it.

    Args:
        mask: [H, W] or [1, H, W] of the video's size or the model's; bool, or numbers where above 0 is the object.
        height, width: of the video.
        image_size: S.
        device: of the result.
    Raises:
        PromptError: wrong shape or size, not numbers, or nothing in it.
    """
    tensor = _tensor(mask, "mask")
    if tensor.dim() == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.dim() != 2:
        raise PromptError(f"mask has shape {tuple(tensor.shape)}; expected [height, width] = [{height}, {width}]")
    if tuple(tensor.shape) not in ((height, width), (image_size, image_size)):
        raise PromptError(
            f"mask is {tensor.shape[1]} x {tensor.shape[0]} pixels (width x height); "
            f"the video is {width} x {height} and the model's input {image_size} x {image_size}"
        )
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise PromptError("mask holds values that are not finite; expected a boolean mask")
    tensor = tensor > 0
    if not tensor.any():
        raise PromptError("mask is empty; mark at least one pixel, or remove the object instead")
    tensor = tensor.to(device)
    if tuple(tensor.shape) == (image_size, image_size):
        return tensor
    resized = F.interpolate(
        tensor[None, None].float(), size=(image_size, image_size), mode="bilinear", align_corners=False, antialias=True
    )
    kept = resized[0, 0] >= 0.5
    if not kept.any():
        raise PromptError(
            f"mask has {int(tensor.sum())} pixels, too few to be seen at the model's input size of "
            f"{image_size} x {image_size}; mark a larger part of the object, or use a point"
        )
    return kept


def check_frame(frame: Any, num_frames: int | None) -> int:
    """A frame index of the video. num_frames: None for a stream."""
    if isinstance(frame, bool) or not isinstance(frame, (int, np.integer)):
        raise PromptError(f"frame index {frame!r} is not an integer")
    if frame < 0 or (num_frames is not None and frame >= num_frames):
        span = "0 or more" if num_frames is None else f"0 to {num_frames - 1}"
        raise PromptError(f"frame index {frame} is out of range; the video's frames are {span}")
    return int(frame)


def check_count(count: Any) -> int:
    """How many frames to track."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
        raise PromptError(f"max_frame_num_to_track is {count!r}; expected an integer of 0 or more")
    return int(count)


def check_object_id(obj_id: Any) -> Any:
    """Any hashable value but None; numpy integers become plain ones."""
    if isinstance(obj_id, np.integer) or (isinstance(obj_id, Tensor) and obj_id.numel() == 1):
        return int(obj_id)
    try:
        hash(obj_id)
    except TypeError:
        raise PromptError(f"object id {obj_id!r} cannot be a key; use an integer or a string") from None
    if obj_id is None:
        raise PromptError("object id is None; use an integer or a string")
    return obj_id


def _points(points: Any) -> Tensor:
    coords = _tensor(points, "points").to("cpu", torch.float32)
    if coords.numel() == 0:
        return torch.zeros(1, 0, 2)
    if coords.dim() == 2:
        coords = coords.unsqueeze(0)
    if coords.dim() != 3 or coords.shape[0] != 1 or coords.shape[2] != 2:
        raise PromptError(f"points has shape {tuple(coords.shape)}; expected [n, 2], one x, y per point")
    if not torch.isfinite(coords).all():
        raise PromptError("points holds values that are not finite; expected pixel coordinates")
    return coords


def _labels(labels: Any) -> Tensor:
    marks = _tensor(labels, "labels").to("cpu")
    if marks.numel() == 0:
        return torch.zeros(1, 0, dtype=torch.int32)
    if marks.dim() == 1:
        marks = marks.unsqueeze(0)
    if marks.dim() != 2 or marks.shape[0] != 1:
        raise PromptError(f"labels has shape {tuple(marks.shape)}; expected [n], one label per point")
    wrong = [value for value in marks.flatten().tolist() if value not in (POSITIVE, NEGATIVE)]
    if wrong:
        raise PromptError(f"label {wrong[0]!r} is unknown; 1 marks the object, 0 what is not the object")
    return marks.to(torch.int32)


def _box(box: Any) -> Tensor:
    corners = _tensor(box, "box").to("cpu", torch.float32)
    if corners.numel() == 8:
        raise PromptError("two boxes given; one object takes one box, so add a second object for the other")
    if corners.numel() != 4:
        raise PromptError(f"box has shape {tuple(corners.shape)}; expected four numbers x1, y1, x2, y2")
    if not torch.isfinite(corners).all():
        raise PromptError("box holds values that are not finite; expected x1, y1, x2, y2")
    x1, y1, x2, y2 = corners.flatten().tolist()
    if x1 >= x2 or y1 >= y2:
        raise PromptError(
            f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has no area; "
            "expected x1, y1, x2, y2 with x1 < x2 and y1 < y2 (corners, not width and height)"
        )
    return corners.reshape(1, 2, 2)


def _tensor(value: Any, name: str) -> Tensor:
    try:
        if isinstance(value, Tensor):
            tensor = value.detach()
        else:
            array = np.asarray(value)
            if array.dtype.kind == "O":
                array = array.astype(np.float64)
            if array.dtype.kind == "u" and array.dtype.itemsize > 1:
                array = array.astype(np.int64)  # torch compares no wider unsigned integers
            # torch takes no negative strides (mask[::-1]) and no foreign byte order.
            tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    except (TypeError, ValueError, RuntimeError):
        raise PromptError(f"{name} is {type(value).__name__} that is not a regular array of numbers") from None
    if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
        tensor = tensor.long()
    if tensor.is_complex():
        raise PromptError(f"{name} has complex numbers; expected real ones")
    return tensor
