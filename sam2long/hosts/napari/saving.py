"""A viewer's work as a run folder, as `sam2long track` leaves one, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam2long.atomic import replacing, write_json
from sam2long.errors import DataError
from sam2long.export.masks import MaskReader, MaskWriter, encode_mask
from sam2long.hosts.napari.masks import MaskStack
from sam2long.hosts.napari.prompts import Prompts
from sam2long.hosts.napari.video import LayerVideo
from sam2long.runs.prompting import from_file
from sam2long.runs.run_folder import COMPLETE, RunFolder
from sam2long.runs.settings import RunSettings
from sam2long.runs.versions import versions

HOST = "napari"
PROMPTS = "prompts.json"


def save(
    path: Path, video: LayerVideo, masks: MaskStack, prompts: Prompts, source: str, model: Mapping[str, Any]
) -> None:
    """Write masks.jsonl, prompts.json and run.json; `sam2long export` and `sam2long track --prompts` read them.

    Args:
        path: a folder, new or saved here before. video: the frames. source: the file behind them, "" for none.
        model: what was chosen, for run.json.
    Raises:
        DataError: no masks yet, or a folder that holds somebody else's run.
    """
    rles = {frame: by_id for place, by_id in masks.rles() if (frame := video.frame_at(place)) is not None}
    if not rles:
        raise DataError("there are no masks to save; track at least one frame first")
    folder = RunFolder(path)
    if folder.holds_a_run() and not _ours(folder):
        raise DataError(f"{path} holds a run that was not saved in napari; choose another folder")
    objects = sorted({obj_id for by_id in rles.values() for obj_id in by_id})
    count, height, width, _ = video.shape
    header = {
        "video": source, "height": height, "width": width, "fps": None, "num_frames": count, "start": 0, "stride": 1,
        "objects": {str(obj_id): "" for obj_id in objects},
    }  # fmt: skip
    with folder:
        with replacing(folder.masks) as partial, MaskWriter(partial, header) as writer:
            for frame, by_id in sorted(rles.items()):
                writer.write_encoded(frame, frame, None, by_id)
        write_json(path / PROMPTS, [_told(*key, prompt) for key, prompt in prompts.items()])
        write_json(
            folder.info,
            {
                "status": COMPLETE, "host": HOST, "settings": RunSettings(video=source, **model).to_dict(),
                "versions": versions(), "layer": describe(video),
            },
        )  # fmt: skip


def read(path: Path, video: LayerVideo, masks: MaskStack) -> Prompts:
    """Fill `masks` with those of a run, and return its prompts.

    Raises:
        DataError: no run, or one of other pictures.
    """
    with MaskReader(RunFolder(path).masks) as run:
        count, height, width, _ = video.shape
        size = run.header.get("height"), run.header.get("width")
        if size != (height, width) or (run.frames and run.frames[-1] >= count):
            raise DataError(
                f"{path} holds masks of {size[1]} x {size[0]} pixels up to frame {max(run.frames, default=0)}, and the "
                f"layer has {count} frames of {width} x {height}; choose the layer that was tracked"
            )
        for frame in run.frames:
            masks.put(video.place(frame), run.masks(frame))
    told = from_file(path / PROMPTS) if (path / PROMPTS).exists() else []
    return {(prompt.frame, prompt.obj_id): prompt for prompt in told}


def describe(video: LayerVideo) -> dict[str, Any]:
    """How a layer became a video, for its metadata and for run.json."""
    return {"contrast_limits": list(video.limits), "axis": video.axis, "at": list(video.at)}


def _ours(folder: RunFolder) -> bool:
    return folder.info.exists() and folder.read_info().get("host") == HOST


def _told(frame: int, obj_id: int, prompt: Any) -> dict[str, Any]:
    said = prompt.describe()
    if prompt.mask is not None:
        said = {"frame": frame, "object": obj_id, "mask": encode_mask(prompt.mask)}
    return said
