"""MOSE v1 and v2, validation: every object in the first frame; ground truth of other frames is the server's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eval import pngs
from eval.datasets import base
from eval.protocols.lvos import read_meta
from sam2long.errors import DataError


class Mose(base.Dataset):
    protocol = "davis"

    def __init__(self, version: str, split: str = "valid", **common):
        super().__init__(**common)
        self.version, self.split = version, split
        self.source = {"v1": "henghuiding.com/MOSE (valid.tar.gz)", "v2": "the MOSEv2 page on Hugging Face (FudanCVL)"}[
            version
        ]
        self.protocol = {"v1": "davis", "v2": "mosev2"}[version]
        if not (self.root / "JPEGImages").is_dir() and (self.root / split / "JPEGImages").is_dir():
            self.root = self.root / split

    def gt(self) -> Path | None:
        """Only a tree with masks of every frame can be scored here (v2 with meta.json besides)."""
        names = self.names()
        complete = all(len(self.annotation_files(v)) == len(self.images(v)) for v in names)
        if self.version == "v2" and not (self.root / "meta.json").exists():
            return None
        return self.root if complete and names else None

    def check_split(self, names: list[str]) -> Iterator[str]:
        path = self.root / "meta.json"
        if self.version == "v2" and path.exists():
            try:
                meta = read_meta(path)
            except DataError as error:
                yield str(error)
                return
            for video in names:
                length = meta.get(video, {}).get("length")
                count = len(self.images(video))
                if length is not None and count and str(length) != str(count):
                    yield (
                        f"{path} gives video {video} {length} frames, {self.images_root / video} holds "
                        f"{count}; {self._get()}"
                    )
        alone = [v for v in pngs.subfolders(self.annotations_root) if not (self.images_root / v).is_dir()]
        if alone:
            yield (
                f"{self.annotations_root} holds videos without images in {self.images_root}: "
                f"{pngs.some(alone)}; {self._get()}"
            )
