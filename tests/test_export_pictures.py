"""report.csv, timeline.png and the painting of overlays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from sam2long.export import write_report, write_timeline
from sam2long.export.overlay import COLOURS, paint
from sam2long.export.timeline import STATUS_COLOURS


def report_of(statuses, objects=(1,)):
    """A report whose statuses are written as a string: v, u, a."""
    names = {"v": "visible", "u": "uncertain", "a": "absent"}
    rows = [
        (frame, obj_id, frame == 0, float("nan") if frame == 0 else 0.8, 3.0, names[letter], 1 + frame % 3, 0.5, (0, 1))
        for frame, letter in enumerate(statuses)
        for obj_id in objects
    ]
    columns = ["frame", "obj_id", "prompted", "iou", "object_logit", "status", "pathways", "margin", "memory_frames"]
    return pd.DataFrame(rows, columns=columns)


def share_of_colour(path, colour):
    """Which part of a picture has this colour."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    with Image.open(path) as image:
        return (np.array(image.convert("RGB")) == wanted).all(axis=2).mean()


def test_report_names_objects_and_frames_of_the_video(tmp_path):
    write_report(
        report_of("va", (1, 2)), tmp_path / "report.csv", labels={1: "=dog", 2: ""},
        source_frame=lambda f: 10 + 5 * f, time=lambda f: None if f else 1.25,
    )  # fmt: skip
    lines = (tmp_path / "report.csv").read_text().splitlines()
    assert lines[0] == (
        "frame,source_frame,time,obj_id,label,prompted,iou,object_logit,status,pathways,margin,memory_frames"
    )
    assert lines[1] == "0,10,1.250000,1,'=dog,True,,3,visible,1,0.5,0 1", "no formula"
    assert lines[4] == "1,15,,2,,False,0.8,3,absent,2,0.5,0 1"


def test_timeline_gives_each_status_its_share_of_the_band(tmp_path):
    path = tmp_path / "timeline.png"
    write_timeline(report_of("v" * 40 + "u" * 20 + "a" * 20), path, labels={1: "dog"})
    visible, uncertain, absent = (share_of_colour(path, colour) for colour in STATUS_COLOURS.values())
    # The legend has a patch of each colour, so the shares are not quite 2 : 1 : 1.
    assert 1.7 < visible / uncertain < 2.1 and 0.8 < uncertain / absent < 1.25
    write_timeline(report_of("v" * 80), path, labels={})
    assert share_of_colour(path, STATUS_COLOURS["absent"]) < 0.01


def test_timeline_of_many_objects_and_of_frames_with_gaps_can_be_drawn(tmp_path):
    report = report_of("vvaauu", tuple(range(1, 41)))
    write_timeline(report[report["frame"] != 3], tmp_path / "timeline.png", labels={7: "a long name"})
    with Image.open(tmp_path / "timeline.png") as image:
        assert image.height > 900


def test_paint_colours_the_mask_and_leaves_the_rest():
    image = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:60] = True
    other = np.zeros((60, 80), bool)
    other[0:5, 0:5] = True
    painted = paint(image, {4: mask, 9: other, 11: np.zeros((60, 80), bool)}, {4: "", 9: "", 11: ""})
    np.testing.assert_array_equal(painted[~(mask | other)], 100)
    assert tuple(painted[20, 30]) == COLOURS[0] and tuple(painted[0, 0]) == COLOURS[1]  # edges are plain
    inside = painted[30, 45].astype(int)
    assert (inside != 100).any() and np.abs(inside - 100).max() < np.abs(np.array(COLOURS[0]) - 100).max()
    assert (image == 100).all()
    named = paint(image, {4: mask}, {4: "dog"})
    assert (named[:20] != 100).any() and (painted[8:20] == 100).all()


def test_timeline_rows_of_all_objects_are_equally_high(tmp_path):
    path = tmp_path / "timeline.png"
    write_timeline(report_of("a" * 30, (1, 2, 3)), path, labels={1: "a name that is longer than fits"})
    grey = [int(STATUS_COLOURS["absent"][at : at + 2], 16) for at in (1, 3, 5)]
    with Image.open(path) as image:
        banded = (np.array(image.convert("RGB")) == grey).all(axis=2).mean(axis=1) > 0.5
    starts = np.flatnonzero(np.diff(banded.astype(int)) == 1)
    ends = np.flatnonzero(np.diff(banded.astype(int)) == -1)
    heights = ends - starts
    assert len(heights) == 3 and heights.min() > 10 and heights.max() - heights.min() <= 1
