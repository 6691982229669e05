"""Mask images: black and white, or with an object id in every pixel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sam2long.errors import DataError, PromptError
from sam2long.imports.prompt import ObjectPrompt

if TYPE_CHECKING:
    import numpy as np

TINY = 5e-4  # of the image
MOST_OBJECTS = 64  # in one image; more are the edges of a smoothed one
VOID = 255  # in a palette of ids
LABEL_IMAGE_BELOW = 128  # a grey image without brighter pixels holds object ids, not black and white


def masks_from_image(path: Path, frame: int, label: str = "") -> list[ObjectPrompt]:
    """One prompt per object of a mask image.

    A palette image, one of 16 bits, or a grey one with small values, holds an object id in each pixel (0 for
    none, and 255 in a palette for pixels that nobody knows). A picture with transparent parts is a cut-out: what is
    not transparent is object 1. In a picture of a few colours each is an object, 1, 2, 3 by their areas, largest
    first. Any other is black and white: brighter than half is object 1.

    Raises:
        PromptError: nothing is marked, or more than 64 objects are.
    """
    import numpy as np

    pixels, holds_ids = read_mask(path)
    if holds_ids:
        ids = [int(value) for value in np.unique(pixels) if value > 0]
        if len(ids) > MOST_OBJECTS:
            raise PromptError(
                f"{path} has {len(ids)} different values: more than {MOST_OBJECTS} objects, or smoothed edges; save it "
                "without smoothing, one value or palette colour for each object"
            )
        found = [(obj_id, pixels == obj_id) for obj_id in ids]
        tiny = sum(int(mask.sum()) < TINY * mask.size for _, mask in found)
        if tiny > max(2, len(found) / 2):
            raise PromptError(
                f"{path} has {len(found)} objects and {tiny} of them are hardly there, as smoothed edges look; save it "
                "without smoothing, one value or palette colour for each object"
            )
    else:
        mask = pixels >= LABEL_IMAGE_BELOW
        found = [(1, mask)] if mask.any() else []
    if not found:
        raise PromptError(f"{path} is all black; mark the object in white, or each object with its own palette colour")
    names = {obj_id: label if len(found) == 1 else "" for obj_id, _ in found}
    return [ObjectPrompt(frame=frame, obj_id=obj_id, label=names[obj_id], mask=mask) for obj_id, mask in found]


def _colours(pixels: np.ndarray) -> np.ndarray | None:
    """Ids of a picture [H, W, 3] in which each object has a colour of its own, black for none; None: it is grey."""
    import numpy as np

    if (pixels == pixels[..., :1]).all():
        return None
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    values, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    order = [n for n in np.argsort(-counts, kind="stable") if values[n] != 0]
    ids = np.zeros(len(values), np.uint32)
    ids[order] = np.arange(1, len(order) + 1)
    return ids[places].reshape(packed.shape)


def read_mask(path: Path) -> tuple[np.ndarray, bool]:
    """(pixel values [H, W], whether they are object ids) of a mask image; see `masks_from_image`."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode == "P" and "transparency" not in image.info:
                ids = np.array(image)
                return np.where(ids == VOID, 0, ids) if (ids == VOID).any() and len(np.unique(ids)) > 2 else ids, True
            if image.mode.startswith("I"):  # 16 and 32 bits hold ids, not brightness
                return np.array(image), True
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                alpha = np.array(image.convert("RGBA"))[..., 3]
                if alpha.min() < VOID:
                    return alpha, False
                image = image.convert("RGB")
            if image.mode == "RGB" and (ids := _colours(np.array(image))) is not None:
                return ids, True
            if image.mode == "1":
                return np.array(image).astype(np.uint8) * 255, False
            pixels = np.array(image.convert("L"))
    except OSError as error:
        reason = error.strerror or "not an image"
        raise DataError(f"the mask {path} cannot be read ({reason}); expected a PNG") from None
    values = [int(value) for value in np.unique(pixels) if value > 0]
    if len(values) > 1 and LABEL_IMAGE_BELOW <= values[-1] < 255:
        shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        raise DataError(
            f"the mask {path} has grey values {shown}: neither black and white nor object ids below "
            f"{LABEL_IMAGE_BELOW}; save it in black and white, or with a palette, one colour per object"
        )
    return pixels, bool(values) and values[-1] < LABEL_IMAGE_BELOW
