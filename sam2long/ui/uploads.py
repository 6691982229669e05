"""Files that a page sends: looked at before they are believed."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from sam2long.errors import DataError
from sam2long.imports import ObjectPrompt, read_prompts
from sam2long.imports.images import labels_of
from sam2long.json_file import parse_json
from sam2long.video import FrameSource

MASK_FORMATS = ("PNG",)
MOST_SHAPES = 1000
MOST_PIXELS = 1 << 29  # of all masks of an upload together


def read_mask(data: bytes, height: int, width: int) -> np.ndarray:
    """An uploaded mask picture of one object -> [H, W] bool; all ids or colours of the picture together.

    Raises:
        DataError: not a PNG, not of the video's size (its pixels are not decoded then), or no mask; see `labels_of`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=MASK_FORMATS) as image:
            if image.size != (width, height):
                raise DataError(
                    f"the mask is {image.width} x {image.height} pixels and the video {width} x {height}; "
                    "save it in the video's size"
                )
            image.load()
            return labels_of(image, "the mask").labels != 0
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("the upload is not a PNG picture; expected a mask in black and white") from None


def read_shapes(data: bytes, source: FrameSource) -> list[ObjectPrompt]:
    """A frame of LabelMe or X-AnyLabeling.

    Raises:
        DataError: not such a file, or of a picture of another size.
    """
    content = parse_json(data, "the upload", "a file of LabelMe or X-AnyLabeling")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError("the upload has no list of shapes; expected a file of LabelMe or X-AnyLabeling")
    if len(content["shapes"]) > MOST_SHAPES:
        raise DataError(f"the upload has {len(content['shapes'])} shapes; expected {MOST_SHAPES} at most for one frame")
    size = content.get("imageWidth"), content.get("imageHeight")
    if size != (source.width, source.height):  # before anything of that size is made
        raise DataError(
            f"the shapes are of a picture of {size[0]} x {size[1]} pixels and the video has "
            f"{source.width} x {source.height}; draw them on frames of this video"
        )
    shapes = [shape for shape in content["shapes"] if isinstance(shape, dict)]
    objects = {str(shape.get("group_id", shape.get("label")))[:99] for shape in shapes}
    if len(objects) * source.width * source.height > MOST_PIXELS:  # each may become a mask
        most = MOST_PIXELS // (source.width * source.height)
        raise DataError(f"the upload has {len(objects)} objects; expected {most} at most for one frame of this video")
    with tempfile.TemporaryDirectory(prefix="sam2long-") as folder:
        file = Path(folder) / "00000.json"  # the frame is the one that the page shows, whatever the file was called
        file.write_text(json.dumps(content), encoding="utf-8")
        return read_prompts(file)
