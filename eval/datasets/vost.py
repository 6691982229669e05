"""VOST: 10 fps frames are tracked where they are at hand, the annotated 5 fps ones are saved; 255 is no object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eval import pngs
from eval.datasets import base


class Vost(base.Dataset):
    source = "vostdataset.org"
    protocol = "vost"
    frame_step = None

    def __init__(self, split: str, **common):
        super().__init__(**common)
        self.split = split

    @property
    def images_root(self) -> Path:
        fine = self.root / "JPEGImages_10fps"
        return fine if fine.is_dir() else self.root / "JPEGImages"

    def all_names(self) -> list[str]:
        return base.listed(self.root, self.root / "ImageSets" / f"{self.split}.txt", self.source)

    def gt(self) -> Path | None:
        return self.root if self.split in ("train", "val") else None

    def images(self, video: str) -> list[Path]:
        """From the first annotated frame on: nothing is known before it."""
        images, masks = super().images(video), self.annotation_files(video)
        start = (pngs.frame_number(masks[0].stem) or 0) if masks else 0
        return [p for p in images if (pngs.frame_number(p.stem) or 0) >= start]

    def saved_names(self, video: str) -> list[str]:
        coarse = self.root / "JPEGImages" / video
        if coarse.is_dir():
            return sorted(p.stem for p in coarse.iterdir() if p.suffix in pngs.JPEG_SUFFIXES)
        return [p.stem for p in self.annotation_files(video)]

    def check_split(self, names: list[str]) -> Iterator[str]:
        for video in names:
            have = {p.stem for p in self.images(video)}
            have |= {p.stem for p in self.annotation_files(video)} if have else set()  # reported with the masks
            if have and (absent := [n for n in self.saved_names(video) if n not in have]):
                yield f"{self.images_root / video} has no image of annotated frames {pngs.some(absent)}; {self._get()}"
