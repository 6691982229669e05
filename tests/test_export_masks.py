"""masks.jsonl and the PNGs made from it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sam2long.errors import DataError
from sam2long.export import MaskReader, MaskWriter, PngWriter, davis_palette

HEADER = {"height": 4, "width": 6}


def block(top, left, height=2, width=2):
    mask = np.zeros((4, 6), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def written(path, frames):
    """frames: (frame, {id: mask}) pairs."""
    with MaskWriter(path, HEADER) as out:
        for frame, masks in frames:
            out.write(frame, 10 * frame, frame / 25, masks)
    return path


def test_masks_come_back_as_they_were(tmp_path):
    noise = np.random.default_rng(0).random((4, 6)) > 0.5
    path = written(tmp_path / "masks.jsonl", [(0, {1: noise, 12: block(0, 0)}), (1, {1: np.zeros((4, 6), bool)})])
    with MaskReader(path) as masks:
        assert masks.header["height"] == 4 and masks.frames == [0, 1] and masks.source_frame(1) == 10
        np.testing.assert_array_equal(masks.masks(0)[1], noise)
        np.testing.assert_array_equal(masks.masks(0)[12], block(0, 0))
        assert not masks.masks(1)[1].any() and masks.masks(7) == {}


def test_lines_are_coco_run_lengths_that_other_tools_read(tmp_path):
    path = written(tmp_path / "masks.jsonl", [(3, {1: block(1, 2)})])
    line = json.loads(path.read_text().splitlines()[1])
    assert (line["frame"], line["source_frame"], line["time"]) == (3, 30, 0.12)
    np.testing.assert_array_equal(coco.decode(line["objects"]["1"]), block(1, 2))


def test_frames_out_of_order_and_in_several_lines_are_put_together(tmp_path):
    path = written(
        tmp_path / "m.jsonl",
        [(5, {1: block(0, 0)}), (6, {1: block(0, 1)}), (5, {2: block(2, 2)}), (4, {2: block(0, 3)})],
    )
    with MaskReader(path) as masks:
        assert masks.frames == [4, 5, 6]
        assert list(masks.masks(5)) == [1, 2]


def test_a_torn_last_line_is_left_out_and_a_broken_middle_is_refused(tmp_path):
    path = written(tmp_path / "masks.jsonl", [(0, {1: block(0, 0)}), (1, {1: block(0, 1)})])
    whole = path.read_bytes()
    for cut in (whole[:-1], whole[:-20]):
        path.write_bytes(cut)
        with MaskReader(path) as masks:
            assert masks.torn and masks.frames == [0]
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:10] + b"\n" + lines[2])
    with pytest.raises(DataError, match="broken in line 2"):
        MaskReader(path)
    path.write_text("hello\n")
    with pytest.raises(DataError):
        MaskReader(path)


def test_resuming_goes_on_after_the_bytes_that_count(tmp_path):
    path = tmp_path / "masks.jsonl"
    with MaskWriter(path, HEADER) as out:
        out.write(0, 0, None, {1: block(0, 0)})
        size = out.size
        out.write(1, 1, None, {1: block(0, 1)})
    with open(path, "a") as torn:
        torn.write('{"frame": 2, "obj')
    with MaskWriter.resume(path, size) as out:
        out.write(1, 1, None, {1: block(2, 2)})
    with MaskReader(path) as masks:
        assert masks.frames == [0, 1] and not masks.torn
        np.testing.assert_array_equal(masks.masks(1)[1], block(2, 2))
    with pytest.raises(DataError, match="shorter"):
        MaskWriter.resume(path, 10_000)


def test_davis_palette_starts_like_davis():
    palette = np.reshape(davis_palette(), (256, 3)).tolist()
    assert palette[:9] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128],
                           [128, 0, 128], [0, 128, 128], [128, 128, 128], [64, 0, 0]]  # fmt: skip
    assert palette[255] == [224, 224, 192]


def run_pngs(tmp_path, frames):
    """Write frames through master and PNGs, as a run does."""
    pngs = PngWriter(tmp_path / "masks", tmp_path / "masks.jsonl", lambda frame: f"{frame:05d}")
    with MaskWriter(tmp_path / "masks.jsonl", HEADER) as out:
        for frame, masks in frames:
            out.write(frame, frame, None, masks)
            pngs.write(frame, masks)
    return pngs


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_objects_that_do_not_overlap_share_palette_pngs(tmp_path):
    run_pngs(tmp_path, [(0, {1: block(0, 0), 2: block(0, 2)}), (1, {1: block(2, 0), 2: block(2, 2)})])
    assert files(tmp_path / "masks") == ["00000.png", "00001.png"]
    with Image.open(tmp_path / "masks" / "00001.png") as image:
        assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]
        np.testing.assert_array_equal(np.array(image), block(2, 0) * 1 + block(2, 2) * 2)


def test_a_frame_found_in_two_passes_keeps_both_objects(tmp_path):
    run_pngs(tmp_path, [(0, {1: block(0, 0)}), (0, {2: block(2, 2)}), (0, {1: block(0, 4)})])
    with Image.open(tmp_path / "masks" / "00000.png") as image:
        np.testing.assert_array_equal(np.array(image), block(0, 4) * 1 + block(2, 2) * 2)


def test_the_first_overlap_turns_the_run_into_one_folder_per_object(tmp_path):
    frames = [(0, {1: block(0, 0), 2: block(0, 2)}), (1, {1: block(1, 1), 2: block(2, 2)}), (2, {1: block(0, 0)})]
    pngs = run_pngs(tmp_path, frames)
    assert pngs.per_object
    assert files(tmp_path / "masks") == ["1/00000.png", "1/00001.png", "1/00002.png", "2/00000.png", "2/00001.png"]
    for frame, masks in frames:
        for obj_id, mask in masks.items():
            with Image.open(tmp_path / "masks" / str(obj_id) / f"{frame:05d}.png") as image:
                np.testing.assert_array_equal(np.array(image), mask * 255)
    assert files(tmp_path) == sorted([*(f"masks/{name}" for name in files(tmp_path / "masks")), "masks.jsonl"])
    again = PngWriter(tmp_path / "masks", tmp_path / "masks.jsonl", str)
    assert again.per_object


def test_an_id_above_255_does_not_fit_a_palette(tmp_path):
    run_pngs(tmp_path, [(0, {1: block(0, 0)}), (1, {1: block(0, 0), 300: block(2, 2)})])
    assert files(tmp_path / "masks") == ["1/00000.png", "1/00001.png", "300/00001.png"]


def test_a_kill_in_the_middle_of_the_switch_is_repaired(tmp_path):
    run_pngs(tmp_path, [(0, {1: block(0, 0)})])
    (tmp_path / "masks").rename(tmp_path / ".masks.old")
    (tmp_path / ".masks.partial").mkdir()
    PngWriter(tmp_path / "masks", tmp_path / "masks.jsonl", str)
    assert files(tmp_path) == ["masks.jsonl", "masks/00000.png"]


@pytest.mark.parametrize(
    "change",
    [{"frame": "x"}, {"frame": -3}, {"source_frame": None}, {"objects": {"1": {"size": [10**6, 10**6], "counts": "0"}}},
     {"objects": {"1": {"size": [5, 5], "counts": "i0"}}}, {"objects": {"1": {"size": [6, 8], "counts": None}}},
     {"objects": {"1": []}}],
)  # fmt: skip
def test_lines_that_no_run_has_written_are_refused_before_memory_is_asked_for(tmp_path, change):
    path = tmp_path / "masks.jsonl"
    with MaskWriter(path, {"height": 6, "width": 8}) as writer:
        for frame in range(3):
            writer.write(frame, frame, None, {1: np.ones((6, 8), bool)})
    lines = path.read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | change)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="restore it or track again"), MaskReader(path) as masks:
        for frame in masks.frames:
            masks.masks(frame)
