"""What every data set offers the runner, and the checks that most of them share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from eval import pngs
from eval.metrics import masks
from sam2long.errors import DataError

IMAGE_SUFFIXES = (*pngs.JPEG_SUFFIXES, ".png", ".PNG")


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One object's given mask. `label` is the object's name in the official layout ("3", or SA-V's folder "003")."""

    obj: int
    label: str
    frame: int  # index among the video's frames
    mask: np.ndarray  # [H, W] bool


@dataclass(frozen=True, slots=True)
class Video:
    """One video as the protocol runs it. `saved[i]` is the index of the frame whose masks `saved_names[i]`.png
    holds."""

    name: str
    frame_names: tuple[str, ...]
    size: tuple[int, int]  # height, width
    saved: tuple[int, ...]

    @property
    def saved_names(self) -> tuple[str, ...]:
        return tuple(self.frame_names[i] for i in self.saved)


class Dataset:
    """A benchmark with one image folder and one folder of id-map PNGs per video; the special ones override what
    differs."""

    source = ""  # where to get it, said in every fault
    per_object = False  # predictions are one PNG per object and frame (SA-V), not one id map per frame
    protocol = "sav"  # how predictions are scored by default, where ground truth is at hand
    all_prompts_first = True  # every object is given in the first frame
    void: int | None = pngs.VOID  # value in the prompts' PNGs that is no object
    frame_step: int | None = 1  # numbers of neighbouring frames differ by this; None: by anything

    def __init__(self, name: str, root: Path, videos: list[str] | None = None):
        self.name, self.root, self._chosen = name, root, videos

    # layout: what a data set has to say

    def all_names(self) -> list[str]:
        """Every video of the split, in the official order."""
        return pngs.subfolders(self.images_root)

    @property
    def images_root(self) -> Path:
        return self.root / "JPEGImages"

    @property
    def annotations_root(self) -> Path:
        return self.root / "Annotations"

    def gt(self) -> Path | None:
        """What `--gt` of the scorer takes, if the ground truth is here."""
        return self.root

    # shared readings

    def names(self) -> list[str]:
        names = self.all_names()
        if self._chosen is None:
            return names
        if unknown := [v for v in self._chosen if v not in names]:
            raise DataError(f"{self.name} in {self.root} has no video {pngs.some(unknown)}; check --videos")
        return [v for v in names if v in self._chosen]

    def images(self, video: str) -> list[Path]:
        """Image files in the order of the numbers that their names end in."""
        folder = self.images_root / video
        if not folder.is_dir():
            return []
        files = [p for p in folder.iterdir() if p.suffix in IMAGE_SUFFIXES and not p.name.startswith(".")]
        return sorted(files, key=lambda p: (pngs.frame_number(p.stem) or 0, p.name))

    def annotation_files(self, video: str) -> list[Path]:
        folder = self.annotations_root / video
        return [
            folder / f"{n}.png" for n in sorted(pngs.png_stems(folder), key=lambda n: (pngs.frame_number(n) or 0, n))
        ]

    def prompt_files(self, video: str) -> list[Path]:
        """The annotation PNGs in which given masks are looked for, in order."""
        return self.annotation_files(video)[: 1 if self.all_prompts_first else None]

    def saved_names(self, video: str) -> list[str]:
        """Names of the frames whose masks are to be written."""
        return [p.stem for p in self.images(video)]

    def video(self, name: str) -> Video:
        images = self.images(name)
        if not images:
            raise DataError(f"{self.images_root / name} holds no image; {self._get()}")
        frame_names = tuple(p.stem for p in images)
        index = {n: i for i, n in enumerate(frame_names)}
        if absent := [n for n in self.saved_names(name) if n not in index]:
            raise DataError(f"{self.images_root / name} has no image of frames {pngs.some(absent)}; {self._get()}")
        return Video(name, frame_names, image_size(images[0]), tuple(sorted(index[n] for n in self.saved_names(name))))

    def prompts(self, video: Video) -> list[Prompt]:
        """Every object's first given mask, by id."""
        index = {n: i for i, n in enumerate(video.frame_names)}
        found: dict[int, Prompt] = {}
        for path in self.prompt_files(video.name):
            ids = pngs.read_ids(path)
            for obj in masks.ids_in(ids):
                if obj not in found and obj != self.void:
                    if path.stem not in index:
                        raise DataError(f"{path} has no image in {self.images_root / video.name}; {self._get()}")
                    found[obj] = Prompt(obj, str(obj), index[path.stem], ids == obj)
        return [found[obj] for obj in sorted(found)]

    @contextmanager
    def frames_folder(self, video: Video, workdir: Path) -> Iterator[Path]:
        """A folder of 00000.jpg, 00001.jpg, ... as predictors read them: links to the images, removed afterwards.

        The files keep their content: a PNG linked as .jpg is read as the PNG it is."""
        folder = workdir / video.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            self.write_frames(video, folder)
            yield folder
        finally:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()

    def write_frames(self, video: Video, folder: Path) -> None:
        for i, image in enumerate(self.images(video.name)):
            (folder / f"{i:05d}.jpg").symlink_to(image.resolve())

    # checks

    def _get(self) -> str:
        return f"get {self.name} from {self.source}"

    def check(self) -> list[str]:
        """One sentence per fault of the layout: what, where it was looked for, where to get it. Empty: all is well."""
        if not self.root.is_dir():
            return [f"{self.root} is not a folder; expected the root of {self.name} there: {self._get()}"]
        if not self.images_root.is_dir():
            images = self.images_root.relative_to(self.root)
            inside = [d for d in pngs.subfolders(self.root) if (self.root / d / images).is_dir()]
            hint = f"; {self.root / inside[0]} looks like it, use that as --root" if inside else f"; {self._get()}"
            return [f"no folder {images} of images is in {self.root}{hint}"]
        if not self.annotations_root.is_dir():
            return [f"no folder {self.annotations_root.relative_to(self.root)} is in {self.root}; {self._get()}"]
        try:
            names = self.names()
        except DataError as error:
            return [str(error)]
        if not names:
            return [f"{self.images_root} holds no video folder; {self._get()}"]
        return [*self.check_split(names), *(fault for name in names for fault in self.check_video(name))]

    def check_split(self, names: list[str]) -> Iterator[str]:
        """Faults beyond single videos."""
        yield from ()

    def check_video(self, name: str) -> Iterator[str]:
        folder = self.images_root / name
        if not folder.is_dir():
            yield f"video {name} has no image folder {folder}; {self._get()}"
            return
        images = self.images(name)
        if not images:
            yield f"{folder} holds no image; expected one JPEG per frame: {self._get()}"
            return
        faults = list(self.check_images(folder, images))
        yield from faults or self.check_masks(name, images)  # masks against broken images would say it all again

    def check_images(self, folder: Path, images: list[Path]) -> Iterator[str]:
        if odd := [p.name for p in images if pngs.frame_number(p.stem) is None]:
            yield (
                f"{folder} holds {pngs.some(odd)}; expected names that end in the frame's number: rename or remove them"
            )
            return
        if empty := [p.name for p in images if p.stat().st_size == 0]:
            yield f"{len(empty)} images in {folder} are empty files: {pngs.some(empty)}; {self._get()}"
            return
        numbers = [pngs.frame_number(p.stem) for p in images]
        if len(set(numbers)) < len(numbers):
            twice = sorted({n for n in numbers if numbers.count(n) > 1})
            yield f"{folder} holds frames {pngs.some(twice)} more than once; keep one image of each"
            return
        if self.frame_step and len(numbers) > 1:
            have = set(numbers)
            if gaps := [n for n in range(numbers[0], numbers[-1] + 1, self.frame_step) if n not in have]:
                yield f"{len(gaps)} frames are missing in {folder}: {pngs.some(gaps)}; {self._get()}"
        try:
            first, last = image_size(images[0]), image_size(images[-1])
        except DataError as error:
            yield str(error)
            return
        if first != last:
            yield (
                f"{images[-1]} is {_size(last)}, {images[0].name} {_size(first)}; expected one size per "
                f"video: {self._get()}"
            )

    def check_masks(self, name: str, images: list[Path]) -> Iterator[str]:
        folder = self.annotations_root / name
        files = self.annotation_files(name)
        if not files:
            yield f"no PNG mask of video {name} is in {folder}; expected at least the first frame's: {self._get()}"
            return
        image_names = {p.stem for p in images}
        if alone := [p.name for p in files if p.stem not in image_names]:
            yield f"{folder} holds masks without an image in {images[0].parent}: {pngs.some(alone)}; {self._get()}"
        if self.all_prompts_first and files[0].stem != self.first_prompt_name(images):
            yield (
                f"{folder} begins with {files[0].name}; expected the mask of the first frame, "
                f"{self.first_prompt_name(images)}.png: {self._get()}"
            )
            return
        yield from self.check_mask(files[0], images[0])

    def first_prompt_name(self, images: list[Path]) -> str:
        return images[0].stem

    def check_mask(self, path: Path, image: Path) -> Iterator[str]:
        """A mask that can be read, has the image's size and holds an object (unless objects may start later)."""
        try:
            ids, size = pngs.read_ids(path), image_size(image)
        except DataError as error:
            yield str(error)
            return
        if ids.shape != size:
            yield f"{path} is {_size(ids.shape)}, its image {_size(size)}; expected equal sizes: {self._get()}"
        elif self.all_prompts_first and not [i for i in masks.ids_in(ids) if i != self.void]:
            yield f"{path} holds no object; expected the first mask of each object: {self._get()}"


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]}x{shape[0]}"


@lru_cache(maxsize=4096)
def image_size(path: Path) -> tuple[int, int]:
    """(height, width), from the header alone."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); download the file again") from None


def listed(root: Path, path: Path, source: str) -> list[str]:
    """Video names of a list file of the data set."""
    if not path.exists():
        raise DataError(f"the list of videos {path.relative_to(root)} is not in {root}; get it from {source}")
    names = pngs.read_list(path)
    if not names:
        raise DataError(f"{path} lists no video; expected one name per line: get it from {source}")
    return names
