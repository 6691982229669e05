"""`python -m eval pack`: the zip that a benchmark's server takes, checked first.

Every expected frame must be there as an 8-bit palette PNG of the video's size with no ids but the given ones.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from eval import datasets, pngs, runner
from eval.datasets.base import Dataset, Video
from eval.metrics import masks
from eval.protocols import base
from sam2long.atomic import replacing
from sam2long.errors import ConfigError, DataError

_ROOT_IN_ZIP = {  # folder that the server wants around the video folders
    "davis17-test-dev": "",
    "mose-v1": "",
    "mose-v2": "",
    "ytvos19": "Annotations/",
    "ytvos19-30fps": "Annotations/",
    "lvos-v1-test": "Annotations/",
}
NAMES = tuple(_ROOT_IN_ZIP)
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the same predictions give the same zip
MOST_FAULTS = 50


def check_video(pred: Path, dataset: Dataset, video: Video) -> list[str]:
    """Faults of one predicted video, one sentence each."""
    folder = pred / video.name
    if not folder.is_dir():
        return [f"video {video.name} has no prediction in {pred}; predict every video of {dataset.name}"]
    have, wanted = set(pngs.png_stems(folder)), video.saved_names
    faults = []
    if missing := [n for n in wanted if n not in have]:
        faults.append(
            f"{len(missing)} of {len(wanted)} frames of video {video.name} are missing in {folder}: "
            f"{pngs.some(f'{n}.png' for n in missing)}; the server wants every one"
        )
    if extra := sorted(have - set(wanted)):
        faults.append(
            f"{folder} holds frames that are not asked for: {pngs.some(f'{n}.png' for n in extra)}; remove them"
        )
    if odd := sorted(e.name for e in os.scandir(folder) if not (e.is_file() and e.name.endswith(".png"))):
        faults.append(f"{folder} holds something other than PNG files: {pngs.some(odd)}; remove it")
    allowed = {p.obj for p in dataset.prompts(video)}
    for name in wanted:
        if name in have:
            faults += check_png(folder / f"{name}.png", video, allowed)
    return faults


def check_png(path: Path, video: Video, allowed: set[int]) -> list[str]:
    try:
        with Image.open(path) as image:
            mode, size = image.mode, (image.height, image.width)
        ids = pngs.read_ids(path) if mode == "P" else None
    except (UnidentifiedImageError, OSError, DataError):
        return [f"{path} cannot be read as a PNG; write it again"]
    if ids is None:
        return [f"{path} has PNG mode {mode}; the server wants an 8-bit palette PNG (mode P): save ids with a palette"]
    if size != video.size:
        return [
            f"{path} is {size[1]}x{size[0]}, its video {video.size[1]}x{video.size[0]}; save masks at the video's size"
        ]
    if odd := [i for i in masks.ids_in(ids) if i not in allowed]:
        return [
            f"{path} holds ids {pngs.some(odd)}, which are not among the given objects {sorted(allowed)}; remove them"
        ]
    return []


def check(dataset: Dataset, pred: Path) -> list[str]:
    names = dataset.names()
    pred = base.unwrap_predictions(pred, names)
    faults = [fault for n in names for fault in check_video(pred, dataset, dataset.video(n))]
    if extra := sorted(set(pngs.subfolders(pred)) - set(names)):
        faults.append(f"{pred} holds videos that {dataset.name} does not: {pngs.some(extra)}; remove them")
    return faults


def pack(name: str, root: Path, pred: Path, target: Path) -> int:
    """Check the predictions and write the server's zip; returns the number of PNGs in it.

    Raises:
        DataError: naming every fault (at most 50); nothing is written then.
    """
    if name not in _ROOT_IN_ZIP:
        raise ConfigError(f"data set {name} has no server to pack for; expected one of {', '.join(NAMES)}")
    dataset = datasets.open_dataset(name, root)
    runner.require_sound(dataset)
    names = dataset.names()
    pred = base.unwrap_predictions(pred, names)
    if faults := check(dataset, pred):
        more = f"\n... and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise DataError(f"{len(faults)} faults; no zip was written:\n" + "\n".join(faults[:MOST_FAULTS]) + more)
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    # PNGs do not get smaller
    with replacing(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for video in names:
            for frame in dataset.video(video).saved_names:
                info = zipfile.ZipInfo(f"{_ROOT_IN_ZIP[name]}{video}/{frame}.png", _FIXED_TIME)
                info.external_attr = 0o644 << 16
                archive.writestr(info, (pred / video / f"{frame}.png").read_bytes())
                count += 1
    return count
