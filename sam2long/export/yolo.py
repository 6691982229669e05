"""Ultralytics YOLO segmentation: a text file per frame, one polygon per object, and data.yaml."""

from __future__ import annotations

import json

from sam2long.export.job import ExportJob
from sam2long.export.polygons import join, outlines


def write_yolo(job: ExportJob) -> None:
    """labels/train/00000.txt: class x1 y1 x2 y2 ..., in shares of width and height; empty where nothing is seen."""
    run = job.run
    classes = {name: number for number, name in enumerate(run.classes)}
    labels = job.folder / "labels" / "train"
    labels.mkdir(parents=True)
    for frame in job.frames():
        lines = []
        for obj_id, mask in frame.visible():
            rings = outlines(mask, job.tolerance)
            if len(rings) > 1:
                job.lost.add(
                    "Gaps between the parts of an object: YOLO has one polygon per object, so a line one pixel wide "
                    "joins them",
                    frame.index, obj_id,
                )  # fmt: skip
            # Half a pixel on: readers cut the product with the width down to the pixel's number.
            corners = (join(rings) + 0.5) / (run.width, run.height)
            lines.append(f"{classes[run.class_of(obj_id)]} " + " ".join(f"{value:.6f}" for value in corners.ravel()))
        (labels / f"{frame.stem}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if len(run.objects) > len(classes):
        job.lost.add("Which object is which: YOLO knows classes only, and some objects share one")
    # JSON is YAML, and quotes whatever a name holds.
    listed = "\n".join(f"  {number}: {json.dumps(name)}" for name, number in classes.items())
    (job.folder / "data.yaml").write_text(
        f"train: images/train\nval: images/train\nnames:\n{listed}\n", encoding="utf-8"
    )
    job.write_images(job.folder / "images" / "train")
