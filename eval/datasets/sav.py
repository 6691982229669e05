"""SA-V val and test: 24 fps frames, one folder of 6 fps PNGs per object, objects may overlap and may start late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eval import pngs
from eval.datasets import base
from eval.datasets.base import Prompt, Video
from sam2long.errors import DataError


class Sav(base.Dataset):
    source = "Meta's SA-V page (sav_val.tar, sav_test.tar)"
    per_object = True
    protocol = "sav"
    all_prompts_first = False

    def __init__(self, split: str, **common):
        super().__init__(**common)
        self.split = split
        nested = self.root / f"sav_{split}"
        if not (self.root / "JPEGImages_24fps").is_dir() and (nested / "JPEGImages_24fps").is_dir():
            self.root = nested

    @property
    def images_root(self) -> Path:
        return self.root / "JPEGImages_24fps"

    @property
    def annotations_root(self) -> Path:
        return self.root / "Annotations_6fps"

    def gt(self) -> Path:
        return self.annotations_root

    def all_names(self) -> list[str]:
        return base.listed(self.root, self.root / f"sav_{self.split}.txt", self.source)

    def object_folders(self, video: str) -> list[str]:
        return pngs.subfolders(self.annotations_root / video)

    def _object_files(self, video: str, folder: str) -> list[Path]:
        path = self.annotations_root / video / folder
        return [path / f"{n}.png" for n in sorted(pngs.png_stems(path), key=lambda n: pngs.frame_number(n) or 0)]

    def saved_names(self, video: str) -> list[str]:
        return sorted({p.stem for f in self.object_folders(video) for p in self._object_files(video, f)})

    def prompts(self, video: Video) -> list[Prompt]:
        index = {n: i for i, n in enumerate(video.frame_names)}
        prompts = []
        for obj, folder in enumerate(self.object_folders(video.name), start=1):
            for path in self._object_files(video.name, folder):
                mask = pngs.read_binary(path)
                if mask.any():
                    if path.stem not in index:
                        raise DataError(f"{path} has no image in {self.images_root / video.name}; {self._get()}")
                    prompts.append(Prompt(obj, folder, index[path.stem], mask.astype(bool)))
                    break
        return prompts

    def check_masks(self, name: str, images: list[Path]) -> Iterator[str]:
        folders = self.object_folders(name)
        if not folders:
            yield (
                f"no object folder of video {name} is in {self.annotations_root / name}; expected one folder of "
                "PNGs per "
                f"object: {self._get()}"
            )
        image_names = {p.stem: p for p in images}
        for folder in folders:
            files = self._object_files(name, folder)
            if not files:
                yield f"{self.annotations_root / name / folder} holds no PNG mask; {self._get()}"
                continue
            if alone := [p.name for p in files if p.stem not in image_names]:
                yield (
                    f"{files[0].parent} holds masks without an image in {images[0].parent}: "
                    f"{pngs.some(alone)}; {self._get()}"
                )
                continue
            try:
                pngs.read_binary(files[0])
            except DataError as error:
                yield str(error)
                continue
            yield from self.check_mask(files[0], image_names[files[0].stem])
