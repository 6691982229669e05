"""A run made by hand that has everything a format may fail on: a hole, parts, an overlap, absence, a late object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sam2long.export import MaskReader, MaskWriter
from tests.video_files import write_video

HEIGHT, WIDTH, FRAMES = 48, 64, 6
LABELS = {1: "pedestrian", 2: "", 7: "car"}
START = 2  # the first frame of the video that was tracked


def blob(top: int, left: int, height: int, width: int) -> np.ndarray:
    """An ellipse."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    y, x = (rows - top - (height - 1) / 2) / (height / 2), (columns - left - (width - 1) / 2) / (width / 2)
    return y * y + x * x <= 1


def frame_masks(frame: int, overlapping: bool) -> dict[int, np.ndarray]:
    """Object 1 has a hole from frame 1 on; 2 is in two parts, away on 3 and 4, one pixel on 5; 7 comes on frame 2."""
    ring = blob(4, 3 + frame, 20, 24)
    if frame >= 1:
        ring &= ~blob(10, 10 + frame, 6, 8)
    parts = blob(30, 4 + frame, 12, 9) | blob(33, 22, 6, 14)
    if frame == 5:
        parts = blob(40, 12, 1, 1)
    masks = {1: ring, 2: parts if frame not in (3, 4) else np.zeros((HEIGHT, WIDTH), bool)}
    if frame >= 2:
        masks[7] = blob(10 if overlapping else 27, (18 if overlapping else 40) + frame, 15, 17)
    if not overlapping:
        masks[2] &= ~masks.get(7, np.zeros((HEIGHT, WIDTH), bool))
    return masks


def make_run(folder: Path, *, overlapping: bool = False, video: bool = True) -> Path:
    """A folder as `sam2long track --start 2` leaves it."""
    folder.mkdir(parents=True)
    path = write_video(folder.parent / "clip.mp4", FRAMES + START + 2, height=HEIGHT, width=WIDTH) if video else None
    header = {
        "video": str(path or folder.parent / "gone.mp4"), "height": HEIGHT, "width": WIDTH, "fps": 25.0,
        "num_frames": FRAMES, "start": START, "stride": 1,
        "objects": {str(obj_id): label for obj_id, label in LABELS.items()},
    }  # fmt: skip
    with MaskWriter(folder / "masks.jsonl", header) as out:
        for frame in range(FRAMES):
            out.write(frame, START + frame, (START + frame) / 25, frame_masks(frame, overlapping))
    return folder


def masters(run: Path) -> dict[tuple[int, int], np.ndarray]:
    """(number in the video, object) -> mask, without the empty ones: what a reader has to find."""
    with MaskReader(run / "masks.jsonl") as masks:
        return {
            (masks.source_frame(frame), obj_id): mask
            for frame in masks.frames
            for obj_id, mask in masks.masks(frame).items()
            if mask.any()
        }


def assert_same(found: dict, run: Path) -> None:
    """Every mask is there, nothing else is, and each is its master to the pixel."""
    expected = masters(run)
    assert set(found) == set(expected)
    for key, mask in expected.items():
        wrong = int((found[key] != mask).sum())
        assert wrong == 0, f"object {key[1]} on frame {key[0]}: {wrong} pixels differ"
