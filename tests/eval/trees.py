"""Mini data sets in their true layouts, and predictions for them: a disc that moves, drawn in a few milliseconds."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from eval import layouts
from eval.layouts import Clip
from eval.outputs import png_bytes
from sam2long.synthetic import Frame

H, W = 36, 48


def disc(x: float, y: float, r: float, shape=(H, W)) -> np.ndarray:
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return (xx - x) ** 2 + (yy - y) ** 2 <= r**2


def id_map(t: int, objects: dict[int, int], shape=(H, W)) -> np.ndarray:
    """Objects `id: first frame` at frame t; each moves along its own row."""
    ids = np.zeros(shape, np.uint8)
    for row, (obj, start) in enumerate(sorted(objects.items(), reverse=True)):
        if t >= start:
            ids[disc(8 + 2 * t, 9 + 9 * row, 6, shape)] = obj
    return ids


def save_ids(path: Path, ids: np.ndarray, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "P":
        path.write_bytes(png_bytes(ids))
        return
    image = Image.fromarray(ids)
    if mode == "1":
        image = Image.fromarray(ids > 0)
    elif mode == "RGB":
        image = Image.fromarray(np.stack([ids] * 3, -1))
    image.save(path)


def pixels(ids: np.ndarray) -> np.ndarray:
    return np.stack([60 + 40 * (ids == k) + 30 * k for k in range(3)], -1).astype(np.uint8)


def save_jpeg(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(ids)).save(path, quality=95)


OBJECTS = {"vid_a": {1: 0, 2: 0}, "vid_b": {1: 0}}  # all given in the first frame
LATE = {"vid_a": {1: 0, 2: 3}, "vid_b": {2: 0}}  # object 2 of vid_a starts late
FRAMES = 8


def clips(videos: dict[str, dict[int, int]], count: int = FRAMES, every: int = 1, void: bool = False) -> list[Clip]:
    """`count` frames of each video; the discs move on every `every` frames. With `void` some have a band of 255."""

    def frame(f: int, objects: dict[int, int]) -> Frame:
        ids = id_map(f // every, objects)
        image = pixels(ids)
        if void and f // every % 2:
            ids[:4] = 255
        return Frame(index=f, image=image, ids=ids, visible={})

    return [
        Clip(name=name, frames=[frame(f, objects) for f in range(count)], objects=tuple(sorted(objects)))
        for name, objects in videos.items()
    ]


def _builder(layout: str, *args, **kwargs) -> Callable[[Path], Path]:
    return lambda root: layouts.write(layout, root, clips(*args, **kwargs))


_SAV, _YTVOS30, _VOST = (LATE, 4 * FRAMES + 1, 4), (LATE, 5 * FRAMES, 5), (OBJECTS, 2 * FRAMES, 2, True)
BUILDERS = {
    "davis17-val": _builder("davis17-val", OBJECTS),
    "davis17-test-dev": _builder("davis17-test-dev", OBJECTS),
    "davis16-val": _builder("davis16-val", {name: {1: 0} for name in OBJECTS}),
    "sav-val": _builder("sav-val", *_SAV),
    "sav-test": _builder("sav-test", *_SAV),
    "sav-raw": _builder("sav-raw", LATE, 18, 4),
    **{name: _builder(name, LATE) for name in ("lvos-v1", "lvos-v1-test", "lvos-v2", "lvos-v2-test")},
    "mose-v1": _builder("mose-v1", OBJECTS),
    "mose-v2": _builder("mose-v2", OBJECTS),
    "ytvos19": _builder("ytvos19", LATE),
    "ytvos19-30fps": _builder("ytvos19-30fps", *_YTVOS30),
    "vost": _builder("vost", *_VOST),
    "vost-test": _builder("vost-test", *_VOST),
    "pumavos": _builder("pumavos", LATE),
    "folder": lambda root: folder(root),
}
davis17, sav, lvos, ytvos, vost = (BUILDERS[n] for n in ("davis17-val", "sav-val", "lvos-v2", "ytvos19", "vost"))
mose, mose2 = BUILDERS["mose-v1"], BUILDERS["mose-v2"]


def folder(root: Path) -> Path:
    """Not as the layout's writer has it: images beside each other, first masks only, in a folder and in one file."""
    for video, objects in OBJECTS.items():
        for t in range(FRAMES):
            save_ids(root / video / f"{t}.png", id_map(t, objects), mode="RGB")
    save_ids(root / "Annotations" / "vid_a" / "0.png", id_map(0, OBJECTS["vid_a"]))
    save_ids(root / "Annotations" / "vid_b.png", id_map(0, OBJECTS["vid_b"]))
    return root


def write_sequence(folder: Path, maps: list[np.ndarray], mode: str = "P") -> None:
    """One id map per frame, named 00000.png, 00001.png, ..."""
    for t, ids in enumerate(maps):
        save_ids(folder / f"{t:05d}.png", ids, mode)


def png(ids: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, format="PNG")
    return buffer.getvalue()
