"""DAVIS 2016 and 2017 at 480p: every object in the first frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval import pngs
from eval.datasets import base
from eval.datasets.base import Prompt, Video


class Davis17(base.Dataset):
    source = "davischallenge.org (DAVIS 2017, semi-supervised, 480p)"
    protocol = "davis"
    year = "2017"

    def __init__(self, split: str, **common):
        super().__init__(**common)
        self.split = split

    @property
    def images_root(self) -> Path:
        return self.root / "JPEGImages" / "480p"

    @property
    def annotations_root(self) -> Path:
        return self.root / "Annotations" / "480p"

    def all_names(self) -> list[str]:
        return base.listed(self.root, self.root / "ImageSets" / self.year / f"{self.split}.txt", self.source)

    def gt(self) -> Path | None:
        return self.root if self.split in ("train", "val") else None


class Davis16(Davis17):
    """One object; its masks are 0/255."""

    source = "davischallenge.org (DAVIS 2016, 480p)"
    protocol = "davis2016"
    year = "2016"
    void = None

    def all_names(self) -> list[str]:
        nested = self.root / "ImageSets" / "2016" / f"{self.split}.txt"
        if nested.exists():
            return base.listed(self.root, nested, self.source)
        # DAVIS 2016's own lists hold pairs of paths: /JPEGImages/480p/<video>/00000.jpg and the mask's
        lines = base.listed(self.root, self.root / "ImageSets" / "480p" / f"{self.split}.txt", self.source)
        return list(dict.fromkeys(Path(line.split()[0]).parent.name for line in lines))

    def prompts(self, video: Video) -> list[Prompt]:
        path = self.prompt_files(video.name)[0]
        mask = pngs.read_ids(path) != 0
        return [Prompt(1, "1", 0, np.asarray(mask))]


class DavisLong(Davis16):
    """DAVIS 2016 made long, with absences; see eval/davis_long.py."""

    source = "DAVIS 2016: python -m eval generate --layout davis-long --root DAVIS --out DIR"
