"""JSON files of COCO run lengths: COCO instances, YouTube-VIS, SA-V."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sam2long._version import __version__
from sam2long.export.job import ExportJob
from sam2long.export.json_stream import write_json_stream
from sam2long.export.masks import decode_mask, encode_mask, run_lengths

SMALL, MEDIUM = 32**2, 96**2  # COCO's bounds, which SA-V's size buckets take over


def area_and_box(rle: dict[str, Any]) -> tuple[int, list[float]]:
    """Pixels, and x, y, width, height of COCO run lengths."""
    from pycocotools import mask as coco

    packed = {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
    return int(coco.area(packed)), [float(side) for side in coco.toBbox(packed)]


def write_coco(job: ExportJob) -> None:
    """annotations.json: every frame is an image, every visible mask an annotation with its `track_id`."""
    run = job.run
    categories = {name: number for number, name in enumerate(run.classes, start=1)}

    def images() -> Iterator[dict[str, Any]]:
        for frame in run.frames:
            yield {
                "id": frame + 1, "file_name": run.image_name(frame), "height": run.height, "width": run.width,
                "frame_index": run.source_frame(frame), "time": run.time(frame),
            }  # fmt: skip

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for frame in job.frames():
            for obj_id, rle in frame.rles.items():
                area, box = area_and_box(rle)
                if area:
                    number += 1
                    yield {
                        "id": number, "image_id": frame.index + 1, "category_id": categories[run.class_of(obj_id)],
                        "segmentation": rle, "area": area, "bbox": box, "iscrowd": 0, "track_id": obj_id,
                    }  # fmt: skip

    write_json_stream(
        job.folder / "annotations.json",
        {
            "info": _info(job),
            "licenses": [],
            "categories": _categories(categories),
            "images": images,
            "annotations": annotations,
        },
    )
    job.write_images(job.folder / "images")


def write_youtube_vis(job: ExportJob) -> None:
    """instances.json: one video, one annotation per object with a mask or null for every frame."""
    run = job.run
    categories = {name: number for number, name in enumerate(run.classes, start=1)}
    size = {"height": run.height, "width": run.width, "length": len(run.frames)}

    def annotations() -> Iterator[dict[str, Any]]:
        for number, obj_id in enumerate(run.objects, start=1):
            found = [run.rles(frame).get(obj_id) for frame in run.frames]
            measured = [(rle, *area_and_box(rle)) if rle else (None, 0, []) for rle in found]
            yield {
                "id": number, "video_id": 1, "category_id": categories[run.class_of(obj_id)], "iscrowd": 0, **size,
                "segmentations": [_plain(rle) if rle and area else None for rle, area, _ in measured],
                "areas": [area or None for _, area, _ in measured],
                "bboxes": [box if area else None for _, area, box in measured],
                "track_id": obj_id,
            }  # fmt: skip
            job.progress(number, len(run.objects))

    names = [f"{run.name}/{run.image_name(frame)}" for frame in run.frames]
    write_json_stream(
        job.folder / "instances.json",
        {
            "info": _info(job),
            "licenses": [],
            "videos": [{"id": 1, "file_names": names, **size, "times": [run.time(frame) for frame in run.frames]}],
            "categories": _categories(categories),
            "annotations": annotations,
        },
    )
    job.write_images(job.folder / run.name)


def write_sav(job: ExportJob) -> None:
    """<video>_manual.json as SA-V has it: masklet[frame][object]."""
    run = job.run
    nothing = encode_mask(np.zeros((run.height, run.width), bool))
    areas: dict[int, list[int]] = {obj_id: [] for obj_id in run.objects}

    def masklets() -> Iterator[list[dict[str, Any]]]:
        for frame in job.frames():
            yield [frame.rles.get(obj_id, nothing) for obj_id in run.objects]
            for obj_id in run.objects:
                areas[obj_id].append(area_and_box(frame.rles.get(obj_id, nothing))[0])

    # SA-V has one number per masklet, the mean over the frames with the object in view.
    def sizes() -> Iterator[float]:
        return (float(np.mean([a for a in areas[o] if a] or [0])) for o in run.objects)

    def first_frames() -> Iterator[int]:
        return (next((at for at, area in enumerate(areas[o]) if area), -1) for o in run.objects)

    count = len(run.objects)
    numbers = [run.source_frame(frame) for frame in run.frames]
    write_json_stream(
        job.folder / f"{run.name}_manual.json",
        {
            "video_id": run.name,
            "video_duration": len(numbers) / run.fps if run.fps else None,
            "video_frame_count": len(numbers),
            "video_height": run.height,
            "video_width": run.width,
            "video_resolution": run.height * run.width,
            "masklet_num": count,
            "masklet_id": run.objects,
            "masklet_type": ["manual"] * count,
            "masklet_frame_count": [len(numbers)] * count,
            "masklet": masklets,
            "masklet_size_abs": sizes,
            "masklet_size_rel": lambda: (size / (run.height * run.width) for size in sizes()),
            "masklet_size_bucket": lambda: (_bucket(size) for size in sizes()),
            "masklet_first_appeared_frame": first_frames,
            "masklet_visibility_changes": lambda: (int(np.diff(np.array(areas[o]) > 0).sum()) for o in run.objects),
        },
    )
    if numbers != list(range(len(numbers))):
        job.lost.add("The frames' numbers in the video: SA-V counts its annotated frames from 0")
    else:
        job.note_numbers("SA-V", 0)
    if any(run.labels.values()):
        job.lost.add("The objects' names: SA-V has none")
    job.write_images(job.folder / run.name)


def _plain(rle: dict[str, Any]) -> dict[str, Any]:
    """Run lengths as a list of numbers: as YouTube-VIS publishes them, and all that some of its readers take."""
    return {"size": rle["size"], "counts": run_lengths(decode_mask(rle).ravel(order="F"))}


def _info(job: ExportJob) -> dict[str, str]:
    return {"description": f"masks of {job.run.name}", "version": f"sam2long {__version__}"}


def _categories(categories: dict[str, int]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name, "supercategory": ""} for name, number in categories.items()]


def _bucket(size: float) -> str:
    return "small" if size < SMALL else "medium" if size < MEDIUM else "large"
