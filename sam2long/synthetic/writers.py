"""Generated videos on disk, in DAVIS's folders: JPEG frames, indexed PNG masks, a list of names."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from sam2long.errors import DataError
from sam2long.synthetic.scene import Scene

PALETTE = [0, 0, 0, 236, 95, 103, 153, 199, 148, 250, 200, 99, 102, 153, 204, 197, 148, 197, 95, 179, 179, 249, 145, 87]


def write_davis(
    scene: Scene, root: str | Path, name: str | None = None, *, resolution: str = "480p", quality: int = 95
) -> Path:
    """Write one video as `root/JPEGImages/<resolution>/<name>` and `root/Annotations/...`; returns the frame folder.

    `name` is also appended to `root/ImageSets/2017/val.txt`. Masks are lossless, frames are not.
    """
    root = Path(root)
    name = name or f"{scene.scenario}_{scene.seed}"
    frames, masks = root / "JPEGImages" / resolution / name, root / "Annotations" / resolution / name
    if frames.exists() or masks.exists():
        raise DataError(f"{name} is already in {root}; take another name or folder")
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    for frame in scene:
        Image.fromarray(frame.image).save(frames / f"{frame.index:05d}.jpg", quality=quality, subsampling=0)
        mask = Image.fromarray(frame.ids, mode="P")
        mask.putpalette(PALETTE)
        mask.save(masks / f"{frame.index:05d}.png")
    listed = root / "ImageSets" / "2017" / "val.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    with listed.open("a", encoding="utf-8") as out:
        out.write(name + "\n")
    return frames
