"""YouTube-VOS 2019 valid: objects start where their first mask is given; only the frames listed in meta.json are
wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eval import pngs
from eval.datasets import base
from eval.protocols.lvos import read_meta
from sam2long.errors import DataError


class YouTubeVos(base.Dataset):
    source = "youtube-vos.org (2019, valid, and valid_all_frames for 30 fps)"
    all_prompts_first = False

    def __init__(self, fps: int, **common):
        super().__init__(**common)
        self.fps = fps
        self.frame_step = {6: 5, 30: 1}[fps]

    @property
    def images_root(self) -> Path:
        whole = self.root / "all_frames" / "valid_all_frames" / "JPEGImages"
        return whole if self.fps == 30 else self.root / "valid" / "JPEGImages"

    @property
    def annotations_root(self) -> Path:
        return self.root / "valid" / "Annotations"

    @property
    def meta_path(self) -> Path:
        return self.root / "valid" / "meta.json"

    def gt(self) -> None:
        return None  # the server's

    def all_names(self) -> list[str]:
        return list(read_meta(self.meta_path))

    def _objects(self, video: str) -> dict[str, list[str]]:
        entry = read_meta(self.meta_path)[video]
        try:
            return {obj: list(o["frames"]) for obj, o in entry["objects"].items()}
        except (KeyError, TypeError, AttributeError):
            raise DataError(
                f'{self.meta_path}, video {video}: expected "objects" with "frames" each; {self._get()}'
            ) from None

    def saved_names(self, video: str) -> list[str]:
        return sorted({f for frames in self._objects(video).values() for f in frames})

    def images(self, video: str) -> list[Path]:
        images = super().images(video)
        if self.fps == 30 and images:  # from the first to the last frame that is wanted
            numbers = [pngs.frame_number(f) for f in self.saved_names(video)]
            images = [p for p in images if min(numbers) <= (pngs.frame_number(p.stem) or 0) <= max(numbers)]
        return images

    def check_split(self, names: list[str]) -> Iterator[str]:
        for video in names:
            try:
                objects = self._objects(video)
            except DataError as error:
                yield str(error)
                continue
            images = {p.stem for p in self.images(video)}
            if images and (absent := [f for f in self.saved_names(video) if f not in images]):
                yield (
                    f"{self.meta_path} lists frames of video {video} without an image in {self.images_root / video}: "
                    f"{pngs.some(absent)}; {self._get()}"
                )
            firsts = {p.stem for p in self.annotation_files(video)}
            for obj, frames in objects.items():
                if frames and frames[0] not in firsts:
                    yield (
                        f"object {obj} of video {video} starts at frame {frames[0]}, but "
                        f"{self.annotations_root / video} has "
                        f"no {frames[0]}.png; {self._get()}"
                    )
