"""A folder of images, one per frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sam2long.errors import VideoError
from sam2long.video.depth import Depth
from sam2long.video.exif import is_turned
from sam2long.video.source import FrameSource, Selection
from sam2long.video.stills import is_deep, pixels, reading

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts frame_2 before frame_10."""
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"([0-9]+)", name) if part]


class ImageFolderSource(FrameSource):
    """Images of one folder in natural order of their names, whatever the names are.

    Args:
        folder: the folder; subfolders and hidden files are left out.
    Attributes:
        files: paths of the selected frames.
        turned: how many images other programs turn, because their EXIF data say so.
    """

    def __init__(self, folder: Path, selection: Selection, prefetch: int) -> None:
        super().__init__(selection, prefetch)
        self.path = folder
        there = [p for p in folder.iterdir() if p.name[0] != "." and not p.is_dir()]
        self._files = sorted(
            (p for p in there if p.suffix.lower() in SUFFIXES and p.is_file()),
            key=lambda p: (natural_key(p.stem), p.name),
        )
        if not self._files:
            raise VideoError(f"folder {folder} has no images; expected files ending in {', '.join(SUFFIXES)}")
        self._check_not_empty(f"folder {folder}")
        self._check_names()
        self.turned = 0
        deep: list[Path] = []
        self.height, self.width = self._read_headers(deep)
        self._depth = Depth.sample(len(deep), lambda number: self._pixels(deep[number])) if deep else None
        self.notes = self._notes([p for p in there if p.suffix.lower() not in SUFFIXES or not p.is_file()])
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
        image = self._pixels(self._files[source_index])
        if image.shape[:2] != (self.height, self.width):  # the file has changed since the folder was opened
            raise VideoError(
                f"image {self._files[source_index]} is {image.shape[1]}x{image.shape[0]} (width x height); "
                f"expected {self.width}x{self.height}, as when the folder was opened"
            )
        return image if self._depth is None or image.dtype == np.uint8 else self._depth.to_rgb(image)

    @staticmethod
    def _pixels(file: Path) -> np.ndarray:
        with reading(file), Image.open(file) as image:
            return pixels(image, file)

    def _notes(self, others: list[Path]) -> list[str]:
        notes = self._depth.notes() if self._depth else []
        if self.turned:
            notes.append(
                f"other programs turn or mirror {self.turned} of the images as their EXIF data say; they are tracked "
                "as they are stored, as in sam2, and masks and boxes are meant so"
            )
        left_out = [file.name for file in others if file.suffix.lower() in Image.registered_extensions()]
        if left_out:
            notes.append(
                f"images of the folder that were left out: {len(left_out)} ({min(left_out)}, say); frames are files "
                f"that end in {', '.join(SUFFIXES)}, and links to them"
            )
        return notes

    def _check_names(self) -> None:
        seen: dict[str, Path] = {}
        for file in self._files:
            if other := seen.get(file.stem):
                raise VideoError(
                    f"folder {self.path} has both {other.name} and {file.name}; keep one image for each frame"
                )
            seen[file.stem] = file

    def _read_headers(self, deep: list[Path]) -> tuple[int, int]:
        """(height, width) of all images; adds those with 16 bits to `deep`."""
        first: tuple[int, int] = (0, 0)
        for file in self._files:
            with reading(file), Image.open(file) as image:
                size, pages = image.size, getattr(image, "n_frames", 1)
                if is_deep(image):
                    deep.append(file)
                self.turned += is_turned(image)
            if pages > 1:
                raise VideoError(
                    f"image {file} has {pages} pages; give it alone, as the video, or save its pages as images"
                )
            first = size if first == (0, 0) else first
            if size != first:
                raise VideoError(
                    f"image {file} is {size[0]}x{size[1]} and {self._files[0].name} is {first[0]}x{first[1]} "
                    "(width x height); all images of a folder must have one size"
                )
        return first[1], first[0]
