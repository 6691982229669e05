"""Your own videos: <root>/JPEGImages/<video>/*.jpg|png, or <root>/<video>/*.jpg|png, with first masks in
<root>/Annotations/<video>/<frame>.png (objects may start late) or in one file <root>/Annotations/<video>.png."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eval import pngs
from eval.datasets import base
from eval.datasets.base import Prompt, Video
from eval.metrics import masks


class Folder(base.Dataset):
    source = "your own recordings (docs/evaluation.md shows the layout)"
    all_prompts_first = False
    frame_step = None
    void = None

    @property
    def images_root(self) -> Path:
        nested = self.root / "JPEGImages"
        return nested if nested.is_dir() else self.root

    def all_names(self) -> list[str]:
        return [n for n in pngs.subfolders(self.images_root) if n not in ("Annotations", "JPEGImages")]

    def gt(self) -> Path | None:
        """The masks, where every frame has one."""
        names = self.names()
        return self.root if names and all(len(self.annotation_files(v)) == len(self.images(v)) for v in names) else None

    def _single(self, video: str) -> Path:
        return self.annotations_root / f"{video}.png"

    def prompts(self, video: Video) -> list[Prompt]:
        if self._single(video.name).exists():
            ids = pngs.read_ids(self._single(video.name))
            return [Prompt(obj, str(obj), 0, ids == obj) for obj in masks.ids_in(ids)]
        return super().prompts(video)

    def check_masks(self, name: str, images: list[Path]) -> Iterator[str]:
        if self._single(name).exists():
            yield from self.check_mask(self._single(name), images[0])
        else:
            yield from super().check_masks(name, images)
