"""Prompts become what sam2 makes of them: whatever its predictor takes is taken here, and means the same.

`require_sense` is for people: what a command line or a page is better refused, because it is hardly meant so.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam2long.errors import PromptError

POSITIVE, NEGATIVE = 1, 0
BOX_LABELS = (2, 3)  # sam2's labels of a box's two corners
PADDING = -1
NO_LABEL = -2, 4  # below and above all labels that mean something to sam2
BESIDE = 1.0  # pixels that people's points and boxes may lie outside the frame; detectors' boxes do


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
    adds: bool,
) -> tuple[Tensor, Tensor]:
    """Clicks and box as sam2's prompt encoder takes them.

    Args:
        points: [n, 2] or [1, n, 2] x, y, also outside the frame; or None.
        labels: [n] or [1, n]: 1 the object, 0 what is not, 2 and 3 a box's corners, -1 padding; or None.
        box: x1, y1, x2, y2; or None.
        height, width: of the video, in pixels.
        normalized_input: coordinates are 0..1 already instead of pixels.
        image_size: S, the side of the model's input.
        device: of the result.
        adds: to points that were given before, so that none is enough.
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
    coords, marks = torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.int32)
    if points is not None:
        coords, marks = _points(points, may_be_none=adds or box is not None), _labels(labels)
        if marks.shape[1] == 0 and box is None:  # sam2's padding goes for all of them
            marks = torch.full((1, coords.shape[1]), PADDING, dtype=torch.int32)
        if coords.shape[1] != marks.shape[1]:
            raise PromptError(f"{coords.shape[1]} points but {marks.shape[1]} labels; give one label for each point")
    if box is not None:
        coords = torch.cat([_box(box), coords], dim=1)
        marks = torch.cat([torch.tensor([BOX_LABELS], dtype=torch.int32), marks], dim=1)
    if not normalized_input:
        coords = coords / torch.tensor([width, height])  # in the caller's precision, as sam2 does
    return (coords * image_size).to(device, torch.float32), marks.to(device)


def check_mask(mask: Any, *, height: int, width: int, image_size: int, device: torch.device) -> Tensor:
    """A mask as sam2 takes it, resized as sam2 resizes it. An empty one says that the object is not there.

    Args:
        mask: [H, W] or [1, H, W] of any size. A tensor's numbers are soft: half and more is the object, after resizing.
            Of anything else (arrays, lists) what is not 0 is the object.
        height, width: of the video, for messages.
        image_size: S.
        device: of the result.
    Returns:
        [S, S] bool; float32 where soft values of the model's own size came, which sam2 leaves as they are.
    Raises:
        PromptError: wrong shape, or not numbers.
    """
    tensor = _tensor(mask, "mask")
    if not isinstance(mask, Tensor):
        tensor = tensor != 0
    if tensor.dim() == 3 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.dim() != 2 or 0 in tensor.shape:
        raise PromptError(f"mask has shape {tuple(tensor.shape)}; expected [height, width] = [{height}, {width}]")
    tensor = tensor.to(device).float()
    if tuple(tensor.shape) != (image_size, image_size):
        return _resized(tensor, image_size)
    kept = tensor >= 0.5
    return kept if torch.equal(kept.float(), tensor) else tensor


def _resized(mask: Tensor, image_size: int) -> Tensor:
    """[H, W] float -> [S, S] bool."""
    size = image_size, image_size
    resized = F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False, antialias=True)
    return resized[0, 0] >= 0.5


class Said(Protocol):
    """Points or box, or a mask, as somebody has said it."""

    @property
    def points(self) -> Any: ...  # x, y of each

    @property
    def box(self) -> Any: ...  # x1, y1, x2, y2, or None

    @property
    def mask(self) -> Any: ...  # [H, W], or None


def require_sense(said: Said, *, height: int, width: int, image_size: int) -> None:
    """Refuse what sam2 would take, and a person hardly means: points and boxes that are not on the frame, boxes
    without area, masks of another size, and masks in which nothing is left to see.

    Args:
        said: finished prompts of the command line, of a file, or of the page.
        height, width: of the video. image_size: S, the side of the model's input.
    Raises:
        PromptError: with what was wrong and what is expected.
    """
    if said.mask is not None:
        _require_mask(np.asarray(said.mask), height, width, image_size)
        return
    corners = [] if said.box is None else [said.box[:2], said.box[2:]]
    for x, y in (*corners, *said.points):
        if not (np.isfinite(x) and np.isfinite(y)):
            raise PromptError(f"point ({x:g}, {y:g}) is not finite; expected pixel coordinates")
        if not (-BESIDE <= x <= width + BESIDE and -BESIDE <= y <= height + BESIDE):
            raise PromptError(
                f"point ({x:g}, {y:g}) is outside the frame, which is {width} x {height} pixels (width x height)"
            )
    if said.box is not None:
        x1, y1, x2, y2 = said.box
        if x1 >= x2 or y1 >= y2:
            raise PromptError(
                f"box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) has no area; "
                "expected x1, y1, x2, y2 with x1 < x2 and y1 < y2 (corners, not width and height)"
            )


def _require_mask(mask: np.ndarray, height: int, width: int, image_size: int) -> None:
    if mask.shape not in ((height, width), (image_size, image_size)):
        raise PromptError(
            f"mask is {' x '.join(map(str, mask.shape[::-1]))} pixels (width x height); "
            f"the video is {width} x {height} and the model's input {image_size} x {image_size}"
        )
    if not mask.any():
        raise PromptError("mask is empty; mark at least one pixel, or remove the object instead")
    if not _resized(torch.from_numpy(mask != 0).float(), image_size).any():
        raise PromptError(
            f"mask has {int((mask != 0).sum())} pixels, too few to be seen at the model's input size of "
            f"{image_size} x {image_size}; mark a larger part of the object, or use a point"
        )


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


def _points(points: Any, may_be_none: bool) -> Tensor:
    coords = _given(points, "points", torch.float32)
    if coords.numel() == 0 and (may_be_none or coords.shape[-1] == 2):
        return torch.zeros(1, 0, 2)
    if coords.numel() == 0:
        raise PromptError("points is empty; give at least one point x, y, or a box")
    if coords.dim() == 2:
        coords = coords.unsqueeze(0)
    if coords.dim() != 3 or coords.shape[0] != 1 or coords.shape[2] != 2:
        raise PromptError(f"points has shape {tuple(coords.shape)}; expected [n, 2], one x, y per point")
    return coords


def _labels(labels: Any) -> Tensor:
    marks = _given(labels, "labels", torch.int32)
    if marks.numel() == 0:
        return torch.zeros(1, 0, dtype=torch.int32)
    if marks.dim() == 1:
        marks = marks.unsqueeze(0)
    if marks.dim() != 2 or marks.shape[0] != 1:
        raise PromptError(f"labels has shape {tuple(marks.shape)}; expected [n], one label per point")
    low, high = NO_LABEL
    if marks.is_floating_point():  # a label between two means nothing to sam2
        marks = torch.where(marks == marks.round(), marks, torch.full_like(marks, high))
    return marks.clamp(low, high).to(torch.int32) if marks.dtype != torch.bool else marks.to(torch.int32)


def _box(box: Any) -> Tensor:
    corners = _given(box, "box", torch.float32)
    if corners.numel() == 8:
        raise PromptError("two boxes given; one object takes one box, so add a second object for the other")
    if corners.numel() != 4:
        raise PromptError(f"box has shape {tuple(corners.shape)}; expected four numbers x1, y1, x2, y2")
    return corners.reshape(1, 2, 2)


def _given(value: Any, name: str, dtype: torch.dtype) -> Tensor:
    """A tensor as it is, anything else in a type of sam2's choice."""
    tensor = _tensor(value, name).cpu()
    return tensor if isinstance(value, Tensor) else tensor.to(dtype)


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
