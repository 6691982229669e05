"""Frame k of an exported video is frame k of the source; timecodes and seconds go along."""

from __future__ import annotations

import csv
import json
from fractions import Fraction

import av
import numpy as np
import pytest

from sam2long.cli import main
from sam2long.errors import ConfigError
from sam2long.export import MaskReader, MaskWriter
from sam2long.export.convert import FORMATS, export_run
from sam2long.video import VideoWriter, open_source
from sam2long.video.timecode import later
from tests.export_run import FRAMES, START, make_run
from tests.video_files import numbered_image, read_number, write_video

NTSC = Fraction(30000, 1001)
VIDEOS = {"matte": "matte.mp4", "alpha-mov": "alpha.mov", "alpha-webm": "alpha.webm", "green-screen": "green.mp4"}


def timecode(path):
    with av.open(str(path)) as file:
        tags = {**file.metadata, **file.streams.video[0].metadata}
    return {key.lower(): value for key, value in tags.items()}.get("timecode")


def with_timecode(path, begin, rate=25, frames=12, width=64):
    with VideoWriter(path, rate, width, 48, timecode=begin) as out:
        for number in range(frames):
            out.write(numbered_image(number, 48, width))
    return path


def a_run(folder, clip, frames, *, start=0, stride=1, width=64):
    folder.mkdir()
    with (
        open_source(str(clip)) as source,
        MaskWriter(
            folder / "masks.jsonl",
            {"video": str(clip), "height": 48, "width": width, "fps": 25.0, "start": start, "stride": stride},
        ) as out,
    ):
        for frame in frames:
            at = start + frame * stride
            mask = np.zeros((48, width), bool)
            mask[10:30, 5 + at : 30 + at] = True
            out.write(frame, at, source.time(at), {1: mask})
    return folder


def shown(path):
    """Which frames of a matte have something white."""
    with av.open(str(path)) as file:
        return [bool((frame.to_ndarray(format="gray") > 128).any()) for frame in file.decode(video=0)]


def test_the_formats_tried_here_are_all_videos():
    assert set(VIDEOS) == {name for name, entry in FORMATS.items() if entry.is_video}


@pytest.mark.parametrize("name", VIDEOS)
def test_frame_k_is_frame_k_of_the_source_or_the_export_says_where_it_begins(tmp_path, name):
    run = make_run(tmp_path / "run")
    whole = export_run(run, name)
    with open_source(str(whole.folder / VIDEOS[name])) as video:
        assert video.num_frames == START + FRAMES + 2
    said = json.loads((whole.folder / "export.json").read_text())["begins_with"]
    assert said == {"frame": 0, "time": 0.0, "timecode": None, "stride": 1}
    part = export_run(run, name, run / "part", tracked_only=True)
    with open_source(str(part.folder / VIDEOS[name])) as video:
        assert video.num_frames == FRAMES
    said = json.loads((part.folder / "export.json").read_text())["begins_with"]
    assert said == {"frame": START, "time": START / 25, "timecode": "00:00:00:02", "stride": 1}
    assert timecode(part.folder / VIDEOS[name]) == "00:00:00:02"
    assert any("begins" in line and str(START) in line for line in part.lost)


def test_before_and_after_the_tracked_frames_the_object_is_absent(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 12)
    matte = export_run(a_run(tmp_path / "run", clip, range(4, 9)), "matte").folder / "matte.mp4"
    assert shown(matte) == [4 <= frame < 9 for frame in range(12)]


def test_with_a_start_and_a_stride_every_frame_is_in_its_place(tmp_path):
    clip = with_timecode(tmp_path / "clip.mp4", "01:00:00:00")
    report = export_run(a_run(tmp_path / "run", clip, range(1, 3), start=5, stride=3), "green-screen")
    with open_source(str(report.folder / "green.mp4")) as video:
        assert video.num_frames == 4  # 2, 5, 8, 11
    said = json.loads((report.folder / "export.json").read_text())["begins_with"]
    assert said["frame"] == 2 and said["stride"] == 3 and said["timecode"] is None
    assert any("01:00:00:00" in line for line in report.lost), "a timecode that is lost is said"


@pytest.mark.parametrize(
    ("begin", "rate", "after"),
    [("01:00:00:00", 25, "01:00:00:04"), ("00:59:59;28", NTSC, "01:00:00;02"), ("10:00:59;58", 2 * NTSC, "10:01:00;06"),
     ("23:59:59:23", Fraction(24000, 1001), "00:00:00:03"), ("00:00:59;28", NTSC, "00:01:00;04")],
)  # fmt: skip
@pytest.mark.parametrize("name", VIDEOS)
def test_timecodes_are_carried_also_drop_frame_ones(tmp_path, name, begin, rate, after):
    clip = with_timecode(tmp_path / "clip.mov.mp4", begin, rate)
    assert timecode(clip) == begin
    run = a_run(tmp_path / "run", clip, range(4, 9))
    assert timecode(export_run(run, name).folder / VIDEOS[name]) == begin
    part = export_run(run, name, tmp_path / "part", tracked_only=True)
    assert timecode(part.folder / VIDEOS[name]) == after
    assert json.loads((part.folder / "export.json").read_text())["begins_with"]["timecode"] == after


def test_drop_frame_leaves_out_two_numbers_a_minute_but_every_tenth():
    assert later("00:00:59;29", 1, NTSC) == "00:01:00;02"
    assert later("00:09:59;29", 1, NTSC) == "00:10:00;00"
    assert later("00:01:00;02", -1, NTSC) == "00:00:59;29"
    assert later("00:00:00;00", 17982, NTSC) == "00:10:00;00", "ten minutes of 29.97 are 17982 frames"
    assert later("01:00:00;00", 107892, NTSC) == "02:00:00;00"
    assert later("00:00:00;00", 3600, 2 * NTSC) == "00:01:00;04"
    assert later("00:00:59:29", 1, NTSC) == "00:01:00:00", "with colons all numbers count"
    assert later(None, 30, 25) == "00:00:01:05" and later("00:00:00:60", 1, 25) is None


def test_the_overlay_has_the_timecode_of_its_first_frame(tmp_path):
    from sam2long.export import write_overlay

    clip = with_timecode(tmp_path / "clip.mp4", "01:00:00:00")
    run = a_run(tmp_path / "run", clip, range(4, 9))
    with open_source(str(clip), start=4, stop=9) as source, MaskReader(run / "masks.jsonl") as masks:
        write_overlay(source, masks, tmp_path / "overlay.mp4", {1: ""})
    assert timecode(tmp_path / "overlay.mp4") == "01:00:00:04"


def test_odd_sides_that_grow_by_a_pixel_are_said(tmp_path):
    clip = write_video(tmp_path / "clip.mkv", 4, codec="ffv1", width=63)
    run = a_run(tmp_path / "run", clip, range(2), width=63)
    for name in VIDEOS:
        widened = name in ("matte", "green-screen")
        said = [line for line in export_run(run, name).lost if "64 x 48 instead of 63 x 48" in line]
        assert len(said) == widened


def test_only_videos_can_hold_the_tracked_frames_only(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="matte, green-screen"):
        export_run(run, "coco", tracked_only=True)
    assert main(["export", str(run), "--to", "matte", "--tracked-only"]) == 0
    assert "begins" in capsys.readouterr().out


def test_seqinfo_says_how_long_the_video_is(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", 10)
    run = a_run(tmp_path / "run", clip, range(2, 8))
    for name in ("mot", "mots"):
        assert "seqLength=10" in (export_run(run, name).folder / "clip" / "seqinfo.ini").read_text()


def test_seconds_stand_beside_frames_of_a_variable_rate(tmp_path):
    milliseconds = [0, 40, 100, 140, 260, 300, 340, 400]
    clip = write_video(tmp_path / "clip.mkv", 8, codec="ffv1", times=milliseconds)
    run = a_run(tmp_path / "run", clip, range(2, 7))
    seconds = [at / 1000 for at in milliseconds[2:7]]
    coco = json.loads((export_run(run, "coco").folder / "annotations.json").read_text())
    np.testing.assert_allclose([image["time"] for image in coco["images"]], seconds, atol=1e-6)
    vis = json.loads((export_run(run, "youtube-vis").folder / "instances.json").read_text())
    np.testing.assert_allclose(vis["videos"][0]["times"], seconds, atol=1e-6)
    for name in ("mot", "mots"):
        with open(export_run(run, name).folder / "clip" / "times.csv") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["frame"]) for row in rows] == list(range(3, 8))
        np.testing.assert_allclose([float(row["time"]) for row in rows], seconds, atol=1e-6)
    pytest.importorskip("cv2", reason='opencv is not installed: pip install ".[export]"')
    drawing = json.loads((export_run(run, "labelme").folder / "00004.json").read_text())
    assert drawing["time"] == pytest.approx(0.26)


def test_the_report_has_seconds(tmp_path):
    clip = write_video(tmp_path / "clip.mkv", 5, codec="ffv1", times=[0, 40, 100, 140, 1_260])
    command = ["track", str(clip), "--box", "10,10,30,30", "--start", "1", "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*command, "--device", "cpu"]) == 0
    with open(tmp_path / "run" / "report.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time"]) for row in rows] == pytest.approx([0.04, 0.1, 0.14, 1.26])
    assert [int(row["source_frame"]) for row in rows] == [1, 2, 3, 4]


def test_a_numbered_clip_is_read_back(tmp_path):
    with open_source(str(with_timecode(tmp_path / "clip.mp4", "01:00:00:00"))) as source:
        assert [read_number(frame.image) for frame in source] == list(range(12))
        assert source.timecode == source.native_timecode == "01:00:00:00"
