"""LVOS v1 and v2: 6 fps frames named in steps of 5, objects may start late, frame ranges in <split>_meta.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eval import pngs
from eval.datasets import base
from eval.protocols import lvos as evaluator
from sam2long.errors import DataError


class Lvos(base.Dataset):
    source = "lingyihongfd.github.io/lvos.github.io (LVOS, annotations and <split>_meta.json)"
    protocol = "lvos"
    all_prompts_first = False
    frame_step = evaluator.FRAME_STEP

    def __init__(self, split: str, version: str, **common):
        super().__init__(**common)
        self.split, self.version = split, version
        for nested in (self.root / split, self.root / {"val": "valid"}.get(split, split)):
            if not (self.root / "JPEGImages").is_dir() and (nested / "JPEGImages").is_dir():
                self.root = nested

    def gt(self) -> Path | None:
        return self.root if self.split == "val" else None

    def check_split(self, names: list[str]) -> Iterator[str]:
        if self.split != "val":  # the test split's ranges are the server's
            return
        try:
            path = evaluator.find_meta(self.root, self.split)
            meta = evaluator.read_meta(path)
        except DataError as error:
            yield f"{error}; {self._get()}"
            return
        if absent := [v for v in meta if not (self.images_root / v).is_dir()]:
            yield f"{path} lists videos without images in {self.images_root}: {pngs.some(absent)}; {self._get()}"
        for video in names:
            if video not in meta:
                yield f"{path} does not list video {video}, whose images are in {self.images_root}; {self._get()}"
                continue
            images = {p.stem for p in self.images(video)}
            first, last = (
                min(images, default=""),
                max(images, default=""),
            )  # gaps between them are reported with the images
            for obj, entry in meta[video].get("objects", {}).items():
                try:
                    frames, _ = evaluator.object_range(video, obj, entry, path)
                except DataError as error:
                    yield str(error)
                    continue
                if missing := [f for f in frames if not first <= f <= last]:
                    yield (
                        f"{path} gives object {obj} of video {video} frames without an image in "
                        f"{self.images_root / video}: "
                        f"{pngs.some(missing)}; {self._get()}"
                    )
