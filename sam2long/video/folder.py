"""A folder of JPEG or PNG images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sam2long.errors import VideoError
from sam2long.video.source import FrameSource, Selection

SUFFIXES = (".jpg", ".jpeg", ".png")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # PIL's convert("RGB") would clip these to white


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts frame_2 before frame_10."""
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"([0-9]+)", name) if part]


def read_image(path: Path) -> np.ndarray:
    """An image file as [H, W, 3] uint8 RGB, with sam2's pixels: PIL's `convert("RGB")`, EXIF rotation not applied.

    Alpha is dropped, palettes are looked up, grey is repeated, 16 bits keep their upper 8.

    Raises:
        VideoError: cannot be read; the message names the file.
    """
    try:
        with Image.open(path) as image:
            if image.mode in SIXTEEN_BIT:
                grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
                return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"image {path} cannot be read ({_first_line(error)}); replace or remove the file") from None


class ImageFolderSource(FrameSource):
    """Images of one folder in natural order of their names, whatever the names are.

    Args:
        folder: the folder; subfolders and hidden files are left out.
    Attributes:
        files: paths of the selected frames.
    """

    def __init__(self, folder: Path, selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        self.path = folder
        self._files = sorted(
            (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()),
            key=lambda p: (natural_key(p.stem), p.name),
        )
        if not self._files:
            raise VideoError(f"folder {folder} has no images; expected files ending in {', '.join(SUFFIXES)}")
        self._check_not_empty(f"folder {folder}")
        self._check_names()
        self.height, self.width = self._common_size()
        chosen = slice(selection.start, selection.stop, selection.stride)
        self.files = self._files[chosen]
        self.names = [file.stem for file in self.files]

    @property
    def available(self) -> int:
        return len(self._files)

    def _walk(self, first: int, step: int) -> Iterator[tuple[int, np.ndarray, float | None]]:
        for index in range(first, len(self._files) if step > 0 else -1, step):
            yield index, self._read(index), None

    def _read(self, source_index: int) -> np.ndarray:
        image = read_image(self._files[source_index])
        if image.shape[:2] != (self.height, self.width):  # the file has changed since the folder was opened
            raise VideoError(
                f"image {self._files[source_index]} is {image.shape[1]}x{image.shape[0]} (width x height); "
                f"expected {self.width}x{self.height}, as when the folder was opened"
            )
        return image

    def _check_names(self) -> None:
        seen: dict[str, Path] = {}
        for file in self._files:
            if other := seen.get(file.stem):
                raise VideoError(
                    f"folder {self.path} has both {other.name} and {file.name}; keep one image for each frame"
                )
            seen[file.stem] = file

    def _common_size(self) -> tuple[int, int]:
        """(height, width) of all images; reads their headers only."""
        first = None
        for file in self._files:
            try:
                with Image.open(file) as image:
                    size = image.size
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise VideoError(
                    f"image {file} cannot be read ({_first_line(error)}); replace or remove the file"
                ) from None
            first = first or size
            if size != first:
                raise VideoError(
                    f"image {file} is {size[0]}x{size[1]} and {self._files[0].name} is {first[0]}x{first[1]} "
                    "(width x height); all images of a folder must have one size"
                )
        return first[1], first[0]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
