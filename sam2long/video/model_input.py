"""From a frame to what sam2's image encoder takes, to the bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sam2long.errors import VideoError

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def to_model_input(image: np.ndarray, image_size: int, resize: str = "bicubic") -> np.ndarray:
    """Resize a frame as sam2 resizes JPEG frames: PIL's bicubic on 8 bits, aspect ratio ignored.

    Args:
        image: [H, W, 3] uint8 RGB.
        image_size: S, the side of the model's input.
        resize: "bicubic", or "bilinear" for models that were trained with it.
    Returns:
        [S, S, 3] uint8.
    """
    check_image(image, "image")
    return np.array(Image.fromarray(image).resize((image_size, image_size), FILTERS[resize]))


def normalize_table(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The float32 value that sam2 gives the encoder for each 8-bit value of each channel.

    Indexing this table is sam2's arithmetic to the bit, and quicker: v / 255 in float64, stored as
    float32, then minus mean and divided by std in float32.

    Args:
        mean, std: one number per channel, of pixels in 0..1.
    Returns:
        [3, 256] float32; `table[c][image[..., c]]` is channel c.
    """
    values = (np.arange(256) / 255.0).astype(np.float32)  # [256]
    centred = values[None] - np.asarray(mean, dtype=np.float32)[:, None]
    return centred / np.asarray(std, dtype=np.float32)[:, None]  # [3, 256]


def check_image(image: object, name: str) -> None:
    """A frame must be an [H, W, 3] uint8 array; raises VideoError that says what was got."""
    if not isinstance(image, np.ndarray):
        raise VideoError(f"{name} is a {type(image).__name__}; expected an array [height, width, 3] of uint8 RGB")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise VideoError(f"{name} has shape {image.shape}; expected [height, width, 3]")
    if image.dtype != np.uint8:
        raise VideoError(f"{name} has dtype {image.dtype}; expected uint8 with values 0 to 255")
