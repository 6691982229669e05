"""CVAT for video 1.1: annotations.xml with a track per object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring
from xml.sax.saxutils import quoteattr

import numpy as np

from sam2long.export.job import ExportJob
from sam2long.export.masks import decode_mask, run_lengths
from sam2long.export.polygons import box, edges
from sam2long.naming import printable

Shape = tuple[str, dict[str, Any]]  # tag and attributes


def write_cvat(job: ExportJob) -> None:
    """Shapes: polygon, where every further part of an object is a track of its own in the same group; rectangle; or
    mask, which holds everything, but which CVAT takes in as one mask per frame instead of a track."""
    run = job.run
    path = job.folder / "annotations.xml"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        file.write(_meta(job))
        number = 0
        for position, obj_id in enumerate(run.objects):
            for shapes in _tracks(job, obj_id):
                attributes = {
                    "id": number, "label": run.class_of(obj_id), "source": "semi-auto", "group_id": obj_id
                }  # fmt: skip
                file.write(f"  <track{_attributes(attributes)}>\n")
                file.writelines(f"    <{tag}{_attributes(values)}></{tag}>\n" for tag, values in shapes)
                file.write("  </track>\n")
                number += 1
            job.progress(position + 1, len(run.objects))
        file.write("</annotations>\n")
    job.note_numbers("CVAT", 0)
    if job.shape == "mask":
        job.lost.add(
            "The tracks: CVAT tracks no masks, and takes each in as a shape of one frame, in its object's group"
        )


def _tracks(job: ExportJob, obj_id: int) -> Iterator[list[Shape]]:
    """The tracks of one object, each with its shapes; only its own masks are in memory, as shapes."""
    run = job.run
    rows: list[tuple[int, list[Shape]]] = []  # frame number -> shapes, one for each track
    for frame in run.frames:
        rle = run.rles(frame).get(obj_id)
        mask = None if rle is None else decode_mask(rle)
        seen = mask if mask is not None and mask.any() else None
        rows.append((run.source_frame(frame), [] if seen is None else _shapes(job, seen)))
        if seen is not None and job.shape == "rectangle" and not seen[_inside(seen)].all():
            job.lost.add("The masks' shapes: a rectangle is a box", frame, obj_id)
    length = run.video_length()
    if job.shape == "mask":
        for number, shapes in rows:
            if shapes:
                yield list(_keyframes([(number, shapes)], run.stride, length))
        return
    for part in range(max((len(shapes) for _, shapes in rows), default=0)):
        yield list(_keyframes([(number, shapes[part : part + 1]) for number, shapes in rows], run.stride, length))


def _keyframes(rows: list[tuple[int, list[Shape]]], stride: int, length: int) -> Iterator[Shape]:
    """A keyframe for every frame with the shape, and one that says where it leaves the picture.

    Args:
        rows: (frame number, the shape or nothing). stride: from one number to the next.
        length: frames of the video; there is no leaving after its end.
    """
    present = [(number, shapes[0]) for number, shapes in rows if shapes]
    for (number, shape), (following, _) in zip(present, [*present[1:], (None, None)], strict=True):
        yield _on(shape, number, 0)
        if following != number + stride and number + stride < length:
            yield _on(shape, number + stride, 1)


def _on(shape: Shape, number: int, outside: int) -> Shape:
    tag, values = shape
    return tag, {"frame": number, "keyframe": 1, "outside": outside, "occluded": 0, **values, "z_order": 0}


def _shapes(job: ExportJob, mask: np.ndarray) -> list[Shape]:
    left, top, right, bottom = box(mask)
    if job.shape == "rectangle":
        # CVAT measures from corner to corner of pixels.
        return [("box", {"xtl": left, "ytl": top, "xbr": right + 1, "ybr": bottom + 1})]
    if job.shape == "mask":
        place = {"left": left, "top": top, "width": right - left + 1, "height": bottom - top + 1}
        return [("mask", {"rle": ", ".join(map(str, run_lengths(mask[_inside(mask)].ravel()))), **place})]
    return [
        ("polygon", {"points": ";".join([f"{x},{y}" for x, y in ring.tolist()])}) for ring in edges(mask, job.tolerance)
    ]


def _inside(mask: np.ndarray) -> tuple[slice, slice]:
    left, top, right, bottom = box(mask)
    return slice(top, bottom + 1), slice(left, right + 1)


def _meta(job: ExportJob) -> str:
    run = job.run
    meta = Element("meta")
    task = SubElement(meta, "task")
    for key, value in {
        "name": run.name, "size": run.video_length(), "mode": "interpolation", "overlap": 0, "flipped": False,
        "start_frame": 0, "stop_frame": run.video_length() - 1,
    }.items():  # fmt: skip
        SubElement(task, key).text = str(value)
    labels = SubElement(task, "labels")
    for name in run.classes:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "attributes")
    original = SubElement(task, "original_size")
    SubElement(original, "width").text, SubElement(original, "height").text = str(run.width), str(run.height)
    indent(meta, level=1)
    return f"  {tostring(meta, encoding='unicode')}\n"


def _attributes(values: dict[str, Any]) -> str:
    return "".join(f" {key}={quoteattr(printable(str(value)))}" for key, value in values.items())
