"""Results as `supervision.Detections`, for its annotators, zones and sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2long.errors import DataError
from sam2long.extras import require

if TYPE_CHECKING:
    import supervision


def to_supervision(
    obj_ids: Sequence[int], masks: Any, labels: Mapping[int, str] | None = None
) -> supervision.Detections:
    """The objects seen on one frame, with their ids as `tracker_id`. Objects without a pixel are left out.

    Args:
        obj_ids: N integers, as `propagate_in_video` and `track` give them.
        masks: of the same objects: logits [N, 1, H, W] or [N, H, W] as they come from there, or bool [N, H, W].
        labels: object id -> name; names become `data["class_name"]`, and `class_id` counts the names in the
            mapping's order. None: class 0 for all.
    Returns:
        boxes around the masks, masks, tracker ids, classes; the objects in the order given.
    Raises:
        DataError: ids that are not integers, or masks of another number or shape.
        ConfigError: supervision is not installed.
    """
    sv = require("supervision", "supervision", "to_supervision")
    array = masks.detach().cpu().numpy() if hasattr(masks, "detach") else np.asarray(masks)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3 or len(array) != len(obj_ids):
        raise DataError(f"masks has shape {array.shape} and there are {len(obj_ids)} ids; expected [N, H, W]")
    if not all(isinstance(obj_id, (int, np.integer)) for obj_id in obj_ids):
        raise DataError(f"object ids are {list(obj_ids)[:5]}; supervision takes integers as tracker ids")
    array = array if array.dtype == bool else array > 0
    seen = array.any(axis=(1, 2))
    if not seen.any():
        return sv.Detections.empty()
    array, ids = array[seen], np.array([int(obj_id) for obj_id in obj_ids])[seen]
    names = list(dict.fromkeys((labels or {}).values()))
    detections = sv.Detections(
        xyxy=sv.mask_to_xyxy(array).astype(np.float32),
        mask=array,
        tracker_id=ids,
        class_id=np.array([names.index(labels[i]) if labels and i in labels else 0 for i in ids.tolist()]),
    )
    if labels:
        detections.data["class_name"] = np.array([labels.get(obj_id, "") for obj_id in ids.tolist()])
    return detections
