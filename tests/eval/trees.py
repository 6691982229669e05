"""Mini data sets in their true layouts, and predictions for them: a disc that moves, drawn in a few milliseconds."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from eval import pngs

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
    image = Image.fromarray(ids)
    if mode == "P":
        image = Image.frombytes("P", ids.shape[::-1], np.ascontiguousarray(ids).tobytes())
        image.putpalette(pngs.davis_palette())
    elif mode == "1":
        image = Image.fromarray(ids > 0)
    elif mode == "RGB":
        image = Image.fromarray(np.stack([ids] * 3, -1))
    image.save(path)


def save_jpeg(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([60 + 40 * (ids == k) + 30 * k for k in range(3)], -1).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


OBJECTS = {"vid_a": {1: 0, 2: 0}, "vid_b": {1: 0}}  # all given in the first frame
LATE = {"vid_a": {1: 0, 2: 3}, "vid_b": {2: 0}}  # object 2 of vid_a starts late
FRAMES = 8


def davis17(root: Path, split: str = "val", years: str = "2017") -> Path:
    for video, objects in OBJECTS.items():
        for t in range(FRAMES):
            ids = id_map(t, objects)
            save_jpeg(root / "JPEGImages" / "480p" / video / f"{t:05d}.jpg", ids)
            if split == "val" or t == 0:
                save_ids(root / "Annotations" / "480p" / video / f"{t:05d}.png", ids)
    _write_list(root / "ImageSets" / years / f"{split}.txt", OBJECTS)
    return root


def davis16(root: Path) -> Path:
    for video in OBJECTS:
        for t in range(FRAMES):
            ids = id_map(t, {1: 0})
            save_jpeg(root / "JPEGImages" / "480p" / video / f"{t:05d}.jpg", ids)
            save_ids(root / "Annotations" / "480p" / video / f"{t:05d}.png", ids * 255, mode="L")
    _write_list(root / "ImageSets" / "2016" / "val.txt", OBJECTS)
    return root


def mose(root: Path, full: bool = True, meta: bool = False) -> Path:
    for video, objects in OBJECTS.items():
        for t in range(FRAMES):
            ids = id_map(t, objects)
            save_jpeg(root / "valid" / "JPEGImages" / video / f"{t:05d}.jpg", ids)
            if full or t == 0:
                save_ids(root / "valid" / "Annotations" / video / f"{t:05d}.png", ids)
    if meta:
        videos = {v: {"length": FRAMES, "height": None, "width": None, "objects": list(o)} for v, o in OBJECTS.items()}
        (root / "valid" / "meta.json").write_text(json.dumps({"videos": videos}))
    return root


def sav(root: Path, split: str = "val") -> Path:
    base, count = root / f"sav_{split}", 4 * FRAMES + 1
    for video, objects in LATE.items():
        for f in range(count):
            save_jpeg(base / "JPEGImages_24fps" / video / f"{f:05d}.jpg", id_map(f // 4, objects))
        for folder, obj in enumerate(objects):
            for f in range(0, count, 4):
                mask = (id_map(f // 4, objects) == obj).astype(np.uint8)
                save_ids(base / "Annotations_6fps" / video / f"{folder:03d}" / f"{f:05d}.png", mask, mode="1")
    _write_list(base / f"sav_{split}.txt", LATE)
    return root


def lvos(root: Path, split: str = "val") -> Path:
    meta = {}
    for video, objects in LATE.items():
        names = [f"{1 + 5 * t:08d}" for t in range(FRAMES)]
        given: set[int] = set()
        for t, name in enumerate(names):
            ids = id_map(t, objects)
            save_jpeg(root / split / "JPEGImages" / video / f"{name}.jpg", ids)
            new = {o for o, start in objects.items() if start == t}
            if split == "val":
                save_ids(root / split / "Annotations" / video / f"{name}.png", ids)
            elif new:
                save_ids(
                    root / split / "Annotations" / video / f"{name}.png",
                    np.where(np.isin(ids, list(new)), ids, 0).astype(np.uint8),
                )
            given |= new
        meta[video] = {
            "objects": {
                str(o): {
                    "frame_range": {"start": str(1 + 5 * s), "end": str(1 + 5 * FRAMES), "frame_nums": str(FRAMES - s)}
                }
                for o, s in objects.items()
            }
        }
    name = {"val": "valid"}.get(split, split)
    (root / split / f"{name}_meta.json").write_text(json.dumps({"videos": meta}))
    (root / split / "unseen_videos.txt").write_text("vid_b\n")
    return root


def ytvos(root: Path, fps30: bool = False) -> Path:
    meta = {}
    for video, objects in LATE.items():
        names = [f"{5 * t:05d}" for t in range(FRAMES)]
        for t, name in enumerate(names):
            ids = id_map(t, objects)
            save_jpeg(root / "valid" / "JPEGImages" / video / f"{name}.jpg", ids)
            new = [o for o, s in objects.items() if s == t]
            if new:
                first = np.where(np.isin(ids, new), ids, 0).astype(np.uint8)
                save_ids(root / "valid" / "Annotations" / video / f"{name}.png", first)
        if fps30:
            for f in range(5 * FRAMES):
                path = root / "all_frames" / "valid_all_frames" / "JPEGImages" / video / f"{f:05d}.jpg"
                save_jpeg(path, id_map(f // 5, objects))
        meta[video] = {"objects": {str(o): {"category": "x", "frames": names[s:]} for o, s in objects.items()}}
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": meta}))
    return root


def vost(root: Path, split: str = "val") -> Path:
    for video, objects in OBJECTS.items():
        for t in range(FRAMES):
            ids = id_map(t, objects)
            if t % 2:
                ids[:4] = 255
            name = f"frame{12 + 6 * t:05d}"
            save_ids(root / "Annotations" / video / f"{name}.png", ids)
            save_jpeg(root / "JPEGImages" / video / f"{name}.jpg", ids)
        for f in range(2 * FRAMES):
            save_jpeg(root / "JPEGImages_10fps" / video / f"frame{12 + 3 * f:05d}.jpg", id_map(f // 2, objects))
    _write_list(root / "ImageSets" / f"{split}.txt", OBJECTS)
    return root


def pumavos(root: Path) -> Path:
    for video, objects in LATE.items():
        for t in range(FRAMES):
            ids = id_map(t, objects)
            save_jpeg(root / "JPEGImages" / video / f"frame_{t:06d}.jpg", ids)
            save_ids(root / "Annotations" / video / f"frame_{t:06d}.png", ids)
    return root


def folder(root: Path) -> Path:
    for video, objects in OBJECTS.items():
        for t in range(FRAMES):
            save_ids(root / video / f"{t}.png", id_map(t, objects), mode="RGB")
    save_ids(root / "Annotations" / "vid_a" / "0.png", id_map(0, OBJECTS["vid_a"]))
    save_ids(root / "Annotations" / "vid_b.png", id_map(0, OBJECTS["vid_b"]))
    return root


def sav_raw(root: Path) -> Path:
    import av
    from pycocotools import mask as coco

    root.mkdir(parents=True, exist_ok=True)
    count = 4 * 4 + 2
    for video, objects in LATE.items():
        with av.open(str(root / f"{video}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=24)
            stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
            for f in range(count):
                pixels = np.stack([40 * id_map(f // 4, objects) + 50] * 3, -1).astype(np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        rows = []
        for f in range(-(-count // 4)):
            rles = [coco.encode(np.asfortranarray(id_map(f, objects) == o)) for o in objects]
            rows.append([{"size": r["size"], "counts": r["counts"].decode()} for r in rles])
        content = {
            "video_frame_count": float(count),
            "video_height": float(H),
            "video_width": float(W),
            "masklet": rows,
            "masklet_id": list(range(len(objects))),
        }
        (root / f"{video}_manual.json").write_text(json.dumps(content))
    return root


BUILDERS = {
    "davis17-val": davis17,
    "davis17-test-dev": lambda r: davis17(r, "test-dev"),
    "davis16-val": davis16,
    "sav-val": sav,
    "sav-test": lambda r: sav(r, "test"),
    "sav-raw": sav_raw,
    "lvos-v1": lvos,
    "lvos-v1-test": lambda r: lvos(r, "test"),
    "lvos-v2": lvos,
    "lvos-v2-test": lambda r: lvos(r, "test"),
    "mose-v1": mose,
    "mose-v2": lambda r: mose(r, meta=True),
    "ytvos19": ytvos,
    "ytvos19-30fps": lambda r: ytvos(r, fps30=True),
    "vost": vost,
    "vost-test": lambda r: vost(r, "test"),
    "pumavos": pumavos,
    "folder": folder,
}


def _write_list(path: Path, names) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{n}\n" for n in names))


def write_sequence(folder: Path, maps: list[np.ndarray], mode: str = "P") -> None:
    """One id map per frame, named 00000.png, 00001.png, ..."""
    for t, ids in enumerate(maps):
        save_ids(folder / f"{t:05d}.png", ids, mode)


def png(ids: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, format="PNG")
    return buffer.getvalue()
