"""The text files of the MOT and MOTS challenges."""

from __future__ import annotations

import configparser
from pathlib import Path

import numpy as np

from sam2long.export.coco import area_and_box
from sam2long.export.job import ExportJob
from sam2long.export.masks import decode_mask, encode_mask
from sam2long.export.report import in_seconds

MOTS_CLASSES = {"car": 1, "pedestrian": 2, "person": 2}  # fixed by the challenge
MOTS_FIRST_FREE = 11  # 10 marks regions to ignore
MOTS_IDS_PER_CLASS = 1000
FALLBACK_FPS = 24.0


def write_mot(job: ExportJob) -> None:
    """<video>/gt/gt.txt: frame, id, left, top, width, height, 1, class, 1; frames and pixels count from 1."""
    run = job.run
    folder = job.folder / run.name
    (folder / "gt").mkdir(parents=True)
    classes = {name: number for number, name in enumerate(run.classes, start=1)}
    with (folder / "gt" / "gt.txt").open("w", encoding="utf-8", newline="\n") as lines:
        for frame in job.frames():
            for obj_id, rle in frame.rles.items():
                area, (left, top, width, height) = area_and_box(rle)
                if not area:
                    continue
                if area < width * height:
                    job.lost.add("The masks' shapes: MOT has boxes", frame.index, obj_id)
                lines.write(
                    f"{frame.number + 1},{obj_id},{left + 1:g},{top + 1:g},{width:g},{height:g},"
                    f"1,{classes[run.class_of(obj_id)]},1\n"
                )
    (folder / "gt" / "labels.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    _finish_sequence(job, folder)


def write_mots(job: ExportJob) -> None:
    """<video>/gt/gt.txt: frame id class height width run-lengths; frames count from 1, id is class x 1000 + object."""
    run = job.run
    job.require_ids(0, MOTS_IDS_PER_CLASS - 1, "MOTS text")
    folder = job.folder / run.name
    (folder / "gt").mkdir(parents=True)
    classes: dict[str, int] = {}
    for name in run.classes:
        taken = sum(number >= MOTS_FIRST_FREE for number in classes.values())
        classes[name] = MOTS_CLASSES.get(name.lower(), MOTS_FIRST_FREE + taken)
    with (folder / "gt" / "gt.txt").open("w", encoding="utf-8", newline="\n") as lines:
        for frame in job.frames():
            claimed = np.zeros((run.height, run.width), bool)
            for obj_id, rle in sorted(frame.rles.items()):
                mask = decode_mask(rle)
                if (claimed & mask).any():
                    job.lost.add(
                        "Pixels that two objects claim went to the lower id: MOTS has one object per pixel",
                        frame.index, obj_id,
                    )  # fmt: skip
                    mask &= ~claimed
                claimed |= mask
                if not mask.any():
                    continue
                number = classes[run.class_of(obj_id)]
                lines.write(
                    f"{frame.number + 1} {number * MOTS_IDS_PER_CLASS + obj_id} {number} "
                    f"{run.height} {run.width} {encode_mask(mask)['counts']}\n"
                )
    listed = "".join(f"{number} {name}\n" for name, number in classes.items())
    (folder / "gt" / "labels.txt").write_text(listed, encoding="utf-8")
    _finish_sequence(job, folder)


def _finish_sequence(job: ExportJob, folder: Path) -> None:
    """seqinfo.ini, times.csv, and the frames as img1/000001.jpg when they are asked for."""
    run = job.run
    job.note_numbers("the challenge's files", 1)
    ending = Path(run.image_name(run.frames[0])).suffix
    info = configparser.ConfigParser()
    info.optionxform = str  # type: ignore[method-assign, assignment]  # keys with capitals, as the challenges write them
    info["Sequence"] = {
        "name": run.name, "imDir": "img1", "frameRate": f"{run.fps or FALLBACK_FPS:g}",
        "seqLength": str(run.video_length()),
        "imWidth": str(run.width), "imHeight": str(run.height), "imExt": ending,
    }  # fmt: skip
    with (folder / "seqinfo.ini").open("w", encoding="utf-8") as file:
        info.write(file, space_around_delimiters=False)
    times = [(run.source_frame(frame) + 1, run.time(frame)) for frame in run.frames]
    if any(time is not None for _, time in times):  # a frame has no column for it
        lines = "".join(f"{number},{in_seconds(time)}\n" for number, time in times)
        (folder / "times.csv").write_text(f"frame,time\n{lines}", encoding="utf-8", newline="\n")
    job.write_images(folder / "img1", lambda frame: f"{run.source_frame(frame) + 1:06d}{ending}")
