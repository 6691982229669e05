"""The built-in benchmark: held-out generated videos with exact masks. It needs no folder; frames are made as they are
used."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from eval.datasets import base
from eval.datasets.base import Prompt, Video
from sam2long.errors import DataError


class SynthLong(base.Dataset):
    """`size`, `frames` and `videos` make smaller ones of the same videos, for tests and first looks.

    Prompts: each object's mask in the first frame that shows it."""

    source = "sam2long.synthetic (built in)"
    protocol = "sav"
    all_prompts_first = False
    void = None

    def __init__(
        self,
        name: str,
        root: Path | None = None,
        videos: list[str] | None = None,
        size: int = 256,
        frames: int | None = None,
    ):
        super().__init__(name, root, videos)
        self.size, self.frames = size, frames

    @lru_cache(maxsize=1)  # noqa: B019 - one table per data set object
    def _table(self) -> dict:
        from sam2long.synthetic import SYNTHLONG

        return {v.name: v for v in SYNTHLONG}

    def all_names(self) -> list[str]:
        return list(self._table())

    def _scene(self, video: str):
        return self._table()[video].scene(self.size)

    def _count(self, video: str) -> int:
        whole = self._table()[video].num_frames
        return whole if self.frames is None else min(self.frames, whole)

    def gt(self) -> None:
        return None  # `export_gt` writes one

    def video(self, name: str) -> Video:
        count = self._count(name)
        return Video(name, tuple(f"{i:05d}" for i in range(count)), (self.size, self.size), tuple(range(count)))

    def prompts(self, video: Video) -> list[Prompt]:
        scene, found = self._scene(video.name), {}
        for i in range(len(video.frame_names)):
            ids = scene.ids(i)
            for obj in range(1, scene.num_objects + 1):
                if obj not in found and (mask := ids == obj).any():
                    found[obj] = Prompt(obj, str(obj), i, mask)
            if len(found) == scene.num_objects:
                break
        return [found[obj] for obj in sorted(found)]

    def write_frames(self, video: Video, folder: Path) -> None:
        """Lossless: PNG content under the .jpg names that predictors look for."""
        scene = self._scene(video.name)
        for i in range(len(video.frame_names)):
            Image.fromarray(scene.frame(i).image).save(folder / f"{i:05d}.jpg", format="PNG", compress_level=1)

    def export_gt(self, folder: Path) -> None:
        """Write the masks as id maps, <video>/<frame>.png, for the scorer."""
        for name in self.names():
            scene, target = self._scene(name), folder / name
            target.mkdir(parents=True, exist_ok=True)
            for i in range(self._count(name)):
                Image.fromarray(np.ascontiguousarray(scene.ids(i))).save(target / f"{i:05d}.png")

    def check(self) -> list[str]:
        try:
            names = self.names()
        except DataError as error:
            return [str(error)]
        return [] if names else ["sam2long.synthetic lists no video; install sam2long again"]

    def check_video(self, name: str) -> Iterator[str]:
        yield from ()
