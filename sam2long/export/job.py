"""What a format's writer is given: the masks frame by frame, where to write, and a list of what it could not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2long.errors import ConfigError
from sam2long.export.masks import decode_mask
from sam2long.export.recording import Recording
from sam2long.video.exif import copy_as_stored

JPEG_QUALITY = 95

Progress = Callable[[int, int], object]  # frames done, frames in all


@dataclass(slots=True)
class _Loss:
    masks: int = 0
    first: tuple[int, int] | None = None  # object, frame; None: it is about the whole run


class Losses:
    """What a format could not hold, counted over the run."""

    def __init__(self) -> None:
        self._found: dict[str, _Loss] = {}

    def add(self, what: str, frame: int | None = None, obj_id: int | None = None) -> None:
        """Note a loss in one mask, or, without frame and object, in the whole run.

        Args:
            what: a sentence without its full stop; the same for all masks that it is about.
        """
        loss = self._found.setdefault(what, _Loss())
        if frame is not None and obj_id is not None:
            loss.masks += 1
            loss.first = loss.first or (obj_id, frame)

    def sentences(self) -> list[str]:
        return [f"{what}{self._where(loss)}." for what, loss in self._found.items()]

    @staticmethod
    def _where(loss: _Loss) -> str:
        if loss.first is None:
            return ""
        obj_id, frame = loss.first
        if loss.masks == 1:
            return f" (object {obj_id} on frame {frame})"
        return f" ({loss.masks} masks; the first is object {obj_id} on frame {frame})"


@dataclass(frozen=True, slots=True, eq=False)
class MaskFrame:
    """The masks of one frame."""

    index: int  # among the tracked frames
    number: int  # in the video
    stem: str
    rles: dict[int, dict[str, Any]]  # object id -> COCO run lengths, also of empty masks

    def masks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(object id, [H, W] bool), also of empty masks."""
        for obj_id, rle in self.rles.items():
            yield obj_id, decode_mask(rle)

    def visible(self) -> Iterator[tuple[int, np.ndarray]]:
        """The masks that are not empty."""
        return ((obj_id, mask) for obj_id, mask in self.masks() if mask.any())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportJob:
    """One run on its way into one format.

    Args:
        run: the masks. folder: to write to; empty.
        shape: what stands for a mask in formats of shapes; None for the format's first.
        tolerance: pixels that polygons may be off the mask's edge, to have fewer corners.
        images: write the frames as well.
        feather: pixels on either side of an edge over which alpha fades. band: those that a trimap leaves unknown.
        tracked_only: videos have the tracked frames only, and not the whole video's.
        progress: called after every frame.
    """

    run: Recording
    folder: Path
    shape: str | None = None
    tolerance: float = 0.0
    images: bool = False
    feather: float = 0.0
    band: float | None = None
    tracked_only: bool = False
    progress: Progress = lambda done, total: None
    lost: Losses = field(default_factory=Losses)
    notes: dict[str, Any] = field(default_factory=dict)  # more that export.json is to say

    def frames(self) -> Iterator[MaskFrame]:
        """Every tracked frame."""
        for done, frame in enumerate(self.run.frames, start=1):
            yield MaskFrame(frame, self.run.source_frame(frame), self.run.stem(frame), self.run.rles(frame))
            self.progress(done, len(self.run.frames))

    def pictures(self, whole: bool = False) -> Iterator[tuple[MaskFrame, np.ndarray, float | None]]:
        """(masks, [H, W, 3] uint8, seconds) of every frame from the first tracked one to the last, also untracked; or
        of the whole video."""
        first = self.run.first_index(whole)
        with self.run.open_video(whole) as source:
            total = self.run.frames[-1] - first + 1 if not whole else len(source)
            for frame in source:
                index = first + frame.index
                masks = MaskFrame(index, self.run.source_frame(index), self.run.stem(index), self.run.rles(index))
                yield masks, frame.image, frame.time
                self.progress(frame.index + 1, total)

    def write_images(self, folder: Path, name: Callable[[int], str] | None = None) -> None:
        """When they are asked for: the frames that have masks as JPEGs, or as they are where the video is a folder.

        Args:
            folder: made when missing.
            name: frame index -> file name; default: `run.image_name`.
        """
        if not self.images:
            return
        name = name or self.run.image_name
        folder.mkdir(parents=True, exist_ok=True)
        tracked = set(self.run.frames)
        for masks, image, _ in self.pictures():
            if masks.index not in tracked:
                continue
            path, original = folder / name(masks.index), self.run.image_file(masks.index)
            if original is not None:
                copy_as_stored(original, path)
            else:
                Image.fromarray(image).save(path, quality=JPEG_QUALITY)

    def note_numbers(self, what: str, first: int) -> None:
        """Say that a format counts frames by itself, where the images have numbers of their own."""
        if said := self.run.renumbered(first):
            self.lost.add(f"The numbers of the images: in {what} {said}")

    def require_ids(self, least: int, most: int, what: str) -> None:
        """Refuse a run whose object ids a format cannot write."""
        for obj_id in self.run.objects:
            if not least <= obj_id <= most:
                raise ConfigError(
                    f"object {obj_id} does not fit into {what}, whose ids are {least} to {most}; "
                    "choose objects with --object, or another format, e.g. object-png"
                )
