"""Videos with known masks, written as the benchmarks lay them out: data sets for tests and first tries.

Every layout that `eval.datasets` reads can be written. The masks of all frames are there where the benchmark's own
evaluator (or ours) can use them, and only the first masks where the real ones lie on a server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eval.outputs import png_bytes
from sam2long.errors import ConfigError, DataError
from sam2long.export.masks import encode_mask
from sam2long.folder import replacing_folder
from sam2long.synthetic import Frame, Scene


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Clip:
    """A video whose objects are known: `frames` can be counted, and gone through more than once."""

    name: str
    frames: Collection[Frame]
    objects: tuple[int, ...]

    @staticmethod
    def of(scene: Scene) -> Clip:
        objects = tuple(range(1, scene.num_objects + 1))
        return Clip(name=f"{scene.scenario}_{scene.seed:04d}", frames=scene, objects=objects)

    def new_on(self, ids: np.ndarray, seen: set[int]) -> list[int]:
        """Objects whose first pixels are in `ids`; they are put into `seen`."""
        new = [o for o in self.objects if o not in seen and (ids == o).any()]
        seen.update(new)
        return new


def write(layout: str, root: str | Path, clips: Sequence[Clip]) -> Path:
    """Write the clips as data set `layout` (a name of `eval.datasets`) into the new folder `root`, whole or not at all.

    Raises:
        ConfigError: no such layout, no clip, two of one name, or odd sides where the layout holds videos.
        DataError: there is something in `root` already.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"there is no layout {layout!r} to write; expected one of {', '.join(LAYOUTS)}")
    names = [clip.name for clip in clips]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"the videos are called {names}; expected one or more, each with a name of its own")
    root = new_root(root)
    with replacing_folder(root) as partial:
        LAYOUTS[layout](partial, clips)
    return root


def new_root(root: str | Path) -> Path:
    """The absolute path of a folder that a data set may be written to.

    Raises:
        DataError: there is something in it already.
    """
    root = Path(root).resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} is already there; give a folder that is new or empty")
    return root


# one function per layout


def _plain(base: str, split: str | None = None, listed: str = "", pattern: str = "{:05d}", size: str = "") -> Writer:
    """Images and id maps under the same names; with `split` "test" only the first masks."""

    def write_plain(root: Path, clips: Sequence[Clip]) -> None:
        for clip in clips:
            for f in clip.frames:
                name = pattern.format(f.index)
                _jpeg(root / base / "JPEGImages" / size / clip.name / f"{name}.jpg", f.image)
                if split != "test" or f.index == 0:
                    _ids(root / base / "Annotations" / size / clip.name / f"{name}.png", f.ids)
        if listed:
            _list(root / listed, clips)

    return write_plain


def _davis16(root: Path, clips: Sequence[Clip]) -> None:
    """All objects are one, with the value 255."""
    for clip in clips:
        for f in clip.frames:
            _jpeg(root / "JPEGImages/480p" / clip.name / f"{f.index:05d}.jpg", f.image)
            whole = np.where(f.ids > 0, 255, 0).astype(np.uint8)
            _png(root / "Annotations/480p" / clip.name / f"{f.index:05d}.png", Image.fromarray(whole))
    _list(root / "ImageSets/2016/val.txt", clips)


def _sav(split: str) -> Writer:
    """24 frames per second, masks on every fourth, one folder per object."""

    def write_sav(root: Path, clips: Sequence[Clip]) -> None:
        base = root / f"sav_{split}"
        for clip in clips:
            for f in clip.frames:
                _jpeg(base / "JPEGImages_24fps" / clip.name / f"{f.index:05d}.jpg", f.image)
                for folder, obj in enumerate(clip.objects):
                    if f.index % 4 == 0:
                        path = base / "Annotations_6fps" / clip.name / f"{folder:03d}" / f"{f.index:05d}.png"
                        _png(path, Image.fromarray(f.ids == obj))
        _list(base / f"sav_{split}.txt", clips)

    return write_sav


def _sav_raw(root: Path, clips: Sequence[Clip]) -> None:
    """The training set's form: an mp4 at 24 frames per second, and run lengths of every fourth in JSON."""
    from sam2long.video import VideoWriter

    for clip in clips:
        height, width = next(iter(clip.frames)).ids.shape
        if height % 2 or width % 2:
            raise ConfigError(f"{clip.name} is {width}x{height}; sav-raw holds H.264 videos, so take even numbers")
        rows = []
        with VideoWriter(root / f"{clip.name}.mp4", 24, width, height) as video:
            for f in clip.frames:
                video.write(f.image)
                if f.index % 4 == 0:
                    rows.append([encode_mask(f.ids == o) for o in clip.objects])
        content = {
            "video_frame_count": float(len(clip.frames)),
            "video_height": float(height),
            "video_width": float(width),
            "masklet": rows,
            "masklet_id": list(range(len(clip.objects))),
        }
        _json(root / f"{clip.name}_manual.json", content)


def _lvos(split: str) -> Writer:
    """6 frames per second, numbered 1, 6, 11, ...; an object's range is in the meta file."""

    def write_lvos(root: Path, clips: Sequence[Clip]) -> None:
        base, meta = root / split, {}
        for clip in clips:
            starts: dict[int, int] = {}
            seen: set[int] = set()
            for f in clip.frames:
                name = f"{1 + 5 * f.index:08d}"
                _jpeg(base / "JPEGImages" / clip.name / f"{name}.jpg", f.image)
                new = clip.new_on(f.ids, seen)
                starts |= dict.fromkeys(new, f.index)
                if split == "val":
                    _ids(base / "Annotations" / clip.name / f"{name}.png", f.ids)
                elif new:
                    _ids(base / "Annotations" / clip.name / f"{name}.png", _only(f.ids, new))
            count = len(clip.frames)
            ranges = {
                str(o): {"start": str(1 + 5 * s), "end": str(1 + 5 * count), "frame_nums": str(count - s)}
                for o, s in starts.items()
            }
            meta[clip.name] = {"objects": {o: {"frame_range": r} for o, r in ranges.items()}}
        _json(base / f"{'valid' if split == 'val' else split}_meta.json", {"videos": meta})
        _list(base / "unseen_videos.txt", clips[len(clips) // 2 :])

    return write_lvos


def _mose2(root: Path, clips: Sequence[Clip]) -> None:
    """As version 1, and a meta file with lengths and objects."""
    _MOSE(root, clips)
    meta = {}
    for clip in clips:
        meta[clip.name] = {"length": len(clip.frames), "height": None, "width": None, "objects": list(clip.objects)}
    _json(root / "valid/meta.json", {"videos": meta})


def _ytvos(fps: int) -> Writer:
    """Every fifth frame of 30 per second, and with `fps` 30 the others beside them; first masks only."""

    def write_ytvos(root: Path, clips: Sequence[Clip]) -> None:
        meta, fine = {}, root / "all_frames/valid_all_frames/JPEGImages"
        every = 5 if fps == 30 else 1  # of the clip's frames
        for clip in clips:
            names: list[str] = []
            starts: dict[int, int] = {}
            seen: set[int] = set()
            for f in clip.frames:
                if fps == 30:
                    _jpeg(fine / clip.name / f"{f.index:05d}.jpg", f.image)
                if f.index % every:
                    continue
                name = f"{5 * len(names):05d}"
                _jpeg(root / "valid/JPEGImages" / clip.name / f"{name}.jpg", f.image)
                if new := clip.new_on(f.ids, seen):
                    starts |= dict.fromkeys(new, len(names))
                    _ids(root / "valid/Annotations" / clip.name / f"{name}.png", _only(f.ids, new))
                names.append(name)
            objects = {str(o): {"category": "x", "frames": names[s:]} for o, s in starts.items()}
            meta[clip.name] = {"objects": objects}
        _json(root / "valid/meta.json", {"videos": meta})

    return write_ytvos


def _vost(split: str) -> Writer:
    """10 frames per second, masks on every second; numbers start anywhere."""

    def write_vost(root: Path, clips: Sequence[Clip]) -> None:
        for clip in clips:
            for f in clip.frames:
                name = f"frame{12 + 3 * f.index:05d}"
                _jpeg(root / "JPEGImages_10fps" / clip.name / f"{name}.jpg", f.image)
                if f.index % 2 == 0:
                    _jpeg(root / "JPEGImages" / clip.name / f"{name}.jpg", f.image)
                    if split != "test" or f.index == 0:
                        _ids(root / "Annotations" / clip.name / f"{name}.png", f.ids)
        _list(root / "ImageSets" / f"{split}.txt", clips)

    return write_vost


Writer = Callable[[Path, Sequence[Clip]], None]
_MOSE = _plain("valid")
LAYOUTS: dict[str, Writer] = {
    "davis17-val": _plain("", listed="ImageSets/2017/val.txt", size="480p"),
    "davis17-test-dev": _plain("", "test", listed="ImageSets/2017/test-dev.txt", size="480p"),
    "davis16-val": _davis16,
    "sav-val": _sav("val"),
    "sav-test": _sav("test"),
    "sav-raw": _sav_raw,
    "lvos-v1": _lvos("val"),
    "lvos-v1-test": _lvos("test"),
    "lvos-v2": _lvos("val"),
    "lvos-v2-test": _lvos("test"),
    "mose-v1": _MOSE,
    "mose-v2": _mose2,
    "ytvos19": _ytvos(6),
    "ytvos19-30fps": _ytvos(30),
    "vost": _vost("val"),
    "vost-test": _vost("test"),
    "pumavos": _plain("", pattern="frame_{:06d}"),
    "folder": _plain(""),
}


# files


def _jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95, subsampling=0)


def _png(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _ids(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(ids))


def _only(ids: np.ndarray, objects: list[int]) -> np.ndarray:
    return np.where(np.isin(ids, objects), ids, 0).astype(np.uint8)


def _list(path: Path, clips: Sequence[Clip]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{clip.name}\n" for clip in clips), encoding="utf-8")


def _json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
