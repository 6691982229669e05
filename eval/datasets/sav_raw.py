"""SA-V as it is downloaded: <video>.mp4 with <video>_manual.json and, for most, <video>_auto.json.

Masklets are COCO run lengths at 6 fps: entry f of "masklet" belongs to video frame 4f. Manual and automatic ids
overlap, so automatic ones get 500 added to their folder's number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from eval import pngs
from eval.datasets import base
from eval.datasets.base import Prompt, Video
from sam2long.errors import DataError

FRAMES_PER_ANNOTATION = 4
AUTO_OFFSET = 500


def decode_rle(rle: dict | None, size: tuple[int, int]) -> np.ndarray:
    """COCO compressed run lengths -> [H, W] bool. None is an absent object."""
    if rle is None:
        return np.zeros(size, bool)
    from pycocotools import mask as coco

    if tuple(rle["size"]) != size:
        raise DataError(
            f"a masklet is {rle['size'][1]}x{rle['size'][0]}, its video {size[1]}x{size[0]}; download it again"
        )
    return coco.decode(rle).astype(bool)


@lru_cache(maxsize=4)
def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        header = {k: int(float(content[k])) for k in ("video_frame_count", "video_height", "video_width")}
        return {"masklet": content["masklet"], "ids": [int(i) for i in content["masklet_id"]], **header}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is not an SA-V annotation ({error!r}); expected masklet, masklet_id, video_frame_count and size: "
            "download it again"
        ) from None


class SavRaw(base.Dataset):
    source = "Meta's SA-V page (sav_000.tar ...)"
    per_object = True
    protocol = "sav"
    all_prompts_first = False

    def __init__(self, auto: bool = False, **common):
        super().__init__(**common)
        self.auto = auto

    @property
    def images_root(self) -> Path:
        return self.root

    @property
    def annotations_root(self) -> Path:
        return self.root

    def gt(self) -> None:
        return None  # `export_gt` writes one

    def all_names(self) -> list[str]:
        return sorted(p.name[: -len("_manual.json")] for p in self.root.glob("*_manual.json"))

    def _json(self, video: str, kind: str = "manual") -> dict:
        return _read_json(self.root / f"{video}_{kind}.json")

    def masklets(self, video: str) -> Iterator[tuple[str, list]]:
        """(folder name, run lengths by annotated frame) of every object."""
        for kind, offset in (("manual", 0), ("auto", AUTO_OFFSET)):
            if kind == "auto" and (not self.auto or not (self.root / f"{video}_auto.json").exists()):
                continue
            content = self._json(video, kind)
            for column, obj in enumerate(content["ids"]):
                yield f"{obj + offset:03d}", [row[column] for row in content["masklet"]]

    def video(self, name: str) -> Video:
        content = self._json(name)
        count = content["video_frame_count"]
        return Video(
            name=name,
            frame_names=tuple(f"{i:05d}" for i in range(count)),
            size=(content["video_height"], content["video_width"]),
            saved=tuple(range(0, count, FRAMES_PER_ANNOTATION)),
        )

    def prompts(self, video: Video) -> list[Prompt]:
        prompts = []
        for obj, (label, rles) in enumerate(self.masklets(video.name), start=1):
            for f, rle in enumerate(rles):
                mask = decode_rle(rle, video.size)
                if mask.any():
                    prompts.append(Prompt(obj, label, f * FRAMES_PER_ANNOTATION, mask))
                    break
        return prompts

    def write_frames(self, video: Video, folder: Path) -> None:
        import av

        path, written = self.root / f"{video.name}.mp4", 0
        try:
            with av.open(str(path)) as container:
                for frame in container.decode(video=0):
                    if written < len(video.frame_names):
                        frame.to_image().save(folder / f"{written:05d}.jpg", quality=95, subsampling=0)
                        written += 1
        except (OSError, av.FFmpegError) as error:
            raise DataError(f"{path} cannot be decoded ({error}); download it again") from None
        if written < len(video.frame_names):
            raise DataError(
                f"{path} holds {written} frames, its annotation {len(video.frame_names)}; download it again"
            )

    def export_gt(self, folder: Path) -> None:
        """Write the masks in SA-V val's layout, <video>/<object>/<frame>.png, for the scorer."""
        for name in self.names():
            size = self.video(name).size
            for label, rles in self.masklets(name):
                target = folder / name / label
                target.mkdir(parents=True, exist_ok=True)
                for f, rle in enumerate(rles):
                    image = Image.fromarray(decode_rle(rle, size).astype(np.uint8))
                    image.save(target / f"{f * FRAMES_PER_ANNOTATION:05d}.png")

    def check(self) -> list[str]:
        if not self.root.is_dir():
            return [f"{self.root} is not a folder; expected <video>.mp4 and <video>_manual.json there: {self._get()}"]
        try:
            names = self.names()
        except DataError as error:
            return [str(error)]
        if not names:
            return [f"no <video>_manual.json is in {self.root}; {self._get()}"]
        return [fault for name in names for fault in self.check_video(name)]

    def check_video(self, name: str) -> Iterator[str]:
        if not (self.root / f"{name}.mp4").is_file():
            yield f"{self.root / f'{name}.mp4'} does not exist; expected the video of {name}_manual.json: {self._get()}"
        try:
            content = self._json(name)
        except DataError as error:
            yield str(error)
            return
        wanted = -(-content["video_frame_count"] // FRAMES_PER_ANNOTATION)
        if len(content["masklet"]) != wanted:
            yield (
                f"{name}_manual.json in {self.root} annotates {len(content['masklet'])} frames; expected "
                f"{wanted}, every "
                f"{FRAMES_PER_ANNOTATION}th of {content['video_frame_count']}: {self._get()}"
            )
        if odd := [f for f, row in enumerate(content["masklet"]) if len(row) != len(content["ids"])]:
            yield f"{name}_manual.json in {self.root} has frames without all objects: {pngs.some(odd)}; {self._get()}"
