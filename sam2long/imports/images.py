"""Mask images: black and white, or with an object id in every pixel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sam2long.errors import DataError, PromptError
from sam2long.imports.prompt import ObjectPrompt

if TYPE_CHECKING:
    import numpy as np

LABEL_IMAGE_BELOW = 128  # a grey image without brighter pixels holds object ids, not black and white


def masks_from_image(path: Path, frame: int, label: str = "") -> list[ObjectPrompt]:
    """One prompt per object of a mask image.

    A palette image, one of 16 bits, or a grey one with small values, holds an object id in each pixel (0 for
    none). Any other is black and white: brighter than half is object 1.
    """
    import numpy as np

    pixels, holds_ids = read_mask(path)
    if holds_ids:
        ids = [int(value) for value in np.unique(pixels) if value > 0]
        found = [(obj_id, pixels == obj_id) for obj_id in ids]
    else:
        mask = pixels >= LABEL_IMAGE_BELOW
        found = [(1, mask)] if mask.any() else []
    if not found:
        raise PromptError(f"{path} is all black; mark the object in white, or each object with its own palette colour")
    names = {obj_id: label if len(found) == 1 else "" for obj_id, _ in found}
    return [ObjectPrompt(frame=frame, obj_id=obj_id, label=names[obj_id], mask=mask) for obj_id, mask in found]


def read_mask(path: Path) -> tuple[np.ndarray, bool]:
    """(pixel values [H, W], whether they are object ids) of a mask image; see `masks_from_image`."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode == "P" or image.mode.startswith("I"):  # palette; 16 and 32 bits hold ids, not brightness
                return np.array(image), True
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
