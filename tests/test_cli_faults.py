"""`sam2long track`: what is wrong with its folder or frames is said at once, and a run killed early is no obstacle."""

import errno
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from sam2long.cli import main
from sam2long.errors import StateError
from sam2long.export import MaskReader
from sam2long.runs import opening
from sam2long.runs import run as cli_run
from sam2long.runs.run_folder import RunFolder
from sam2long.video import open_source
from tests.fake_tracker import FakePredictor
from tests.video_files import write_video


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", 6)


@pytest.fixture
def built(monkeypatch):
    made = []
    monkeypatch.setattr(opening, "build_predictor", lambda settings: made.append(settings) or FakePredictor())
    return made


def track(*arguments):
    return main(["track", "--quiet", *map(str, arguments), "--box", "4,6,12,14"])


@pytest.mark.parametrize("more", [(), ("--max-frames", "3")])
@pytest.mark.parametrize("stride", ["0", "-1"])
def test_a_stride_below_one_is_named(built, clip, tmp_path, capsys, stride, more):
    assert track(clip, "--out", tmp_path / "out", "--stride", stride, *more) == 2
    assert f"stride is {stride}; expected 1 or more" in capsys.readouterr().err


def test_a_negative_start_is_named(built, clip, tmp_path, capsys):
    assert track(clip, "--out", tmp_path / "out", "--start", "-2", "--max-frames", "2") == 2
    assert "start is -2" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["", "runs/first"])
def test_a_file_where_the_folder_should_be_is_noticed_before_any_model(built, clip, tmp_path, capsys, below):
    (tmp_path / "out").write_text("mine")
    assert track(clip, "--out", tmp_path / "out" / below) == 2
    assert "out is a file; expected a folder" in capsys.readouterr().err
    assert not built
    assert (tmp_path / "out").read_text() == "mine"


def test_a_run_killed_before_its_first_frame_can_be_started_anew(built, clip, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(self, *_):
        raise Killed

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(cli_run.Run, "_write_info", die)
        with pytest.raises(Killed):
            track(clip, "--out", out)
    assert (out / "masks.jsonl").exists() and not (out / "run.json").exists()
    assert track(clip, "--out", out) == 0
    with MaskReader(out / "masks.jsonl") as masks:
        assert len(masks.frames) == 6


def test_masks_without_a_run_are_not_overwritten(built, clip, tmp_path, capsys):
    out = tmp_path / "out"
    assert track(clip, "--out", out) == 0
    (out / "run.json").unlink()
    before = (out / "masks.jsonl").read_bytes()
    assert track(clip, "--out", out) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (out / "masks.jsonl").read_bytes() == before


def test_masks_of_somebody_else_are_not_taken_for_those_of_a_run(built, clip, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / "drawn.png").write_text("a day's work")
    for more in ((), ("--overwrite",)):
        assert track(clip, "--out", out, *more) == 2
        assert "masks that no run wrote" in capsys.readouterr().err
    assert not built and [path.name for path in out.rglob("*.png")] == ["drawn.png"]


def test_one_program_writes_to_a_run_at_a_time(built, clip, tmp_path, capsys):
    out = tmp_path / "out"
    assert track(clip, "--out", out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with RunFolder(out):
        for command in ("track", "live"):
            assert main([command, str(clip), "--box", "4,6,12,14", "--out", str(out), "--overwrite"]) == 2
            assert "has " + str(out) + " open" in capsys.readouterr().err
        with pytest.raises(StateError, match="another sam2long command"), RunFolder(out):
            pass
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert track(clip, "--out", out, "--overwrite") == 0


def test_a_stopped_run_is_not_gone_on_with_while_another_program_has_it(built, clip, tmp_path, capsys):
    out = tmp_path / "out"
    assert track(clip, "--out", out) == 0
    (out / "run.json").write_text((out / "run.json").read_text().replace('"complete"', '"stopped"'))
    with RunFolder(out):
        assert main(["track", "--resume", "--out", str(out)]) == 2
    assert "another sam2long command" in capsys.readouterr().err


def test_a_prompt_that_is_refused_leaves_no_folder(built, clip, tmp_path):
    assert main(["track", str(clip), "--box", "4,6,999,14", "--out", str(tmp_path / "runs" / "first")]) == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [('"box": [1%s, 1, 5, 5]' % ("0" * 400), "box is"), ('"box": [NaN, 1, 5, 5]', "box is [nan"),
     ('"points": "%s"' % ("x" * 9999), "points is"),
     ('"object": 1%s, "box": [4, 6, 12, 14]' % ("0" * 300), "to 2147483647")],
)  # fmt: skip
def test_prompts_beyond_all_bounds_are_one_short_sentence(built, clip, tmp_path, capsys, prompt, message):
    (tmp_path / "p.json").write_text("[{" + prompt + ("}]" if "object" in prompt else ', "object": 1}]'))
    assert main(["track", str(clip), "--prompts", str(tmp_path / "p.json"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and len(said) < 300
    assert not (tmp_path / "out").exists()


def test_notes_are_a_line_each_whatever_a_label_has(built, clip, tmp_path, capsys):
    assert track(clip, "--label", "\ue000\nb", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("change", [{"pass": "x"}, {"masks_bytes": -5}, {"masks_bytes": 10}, {"state": 5}])
def test_a_damaged_place_of_a_stopped_run_costs_no_mask(built, clip, tmp_path, capsys, monkeypatch, change):
    out = tmp_path / "out"

    class Killed(BaseException):
        pass

    def kill(frame):
        if frame == 5:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(opening, "build_predictor", lambda settings: FakePredictor(kill))
        track(clip, "--out", out)
    progress = out / ".resume" / "progress.json"
    progress.write_text(json.dumps(json.loads(progress.read_text()) | change))
    before = (out / "masks.jsonl").read_bytes()
    assert main(["track", "--resume", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "--overwrite" in said and said.count("\n") == 1
    assert (out / "masks.jsonl").read_bytes() == before


def test_output_that_nobody_reads_to_its_end_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "sam2long.cli", "models"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def wide_images(folder):
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (16400, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_a_picture_that_no_overlay_can_hold_ends_complete_without_one(built, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["track", "--quiet", str(wide_images(tmp_path / "wide")), "--box", "1,1,9,7", "--out", str(out)]) == 0
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "complete"
    (note,) = info["notes"]
    assert note.startswith("without overlay.mp4: overlay.mp4 cannot hold pictures of 16400 x 8") and "16384" in note
    assert "note: without overlay.mp4" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == [
        "masks", "masks.jsonl", "report.csv", "report.html", "run.json", "timeline.png"
    ]  # fmt: skip


def test_an_overlay_that_fails_half_way_is_left_out_and_the_run_is_complete(built, clip, tmp_path, monkeypatch):
    def full(self, image, time=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sam2long.video.VideoWriter.write", full)
    out = tmp_path / "out"
    assert track(clip, "--out", out) == 0
    info = json.loads((out / "run.json").read_text())
    assert (info["status"], info["notes"]) == ("complete", ["without overlay.mp4: No space left on device"])
    assert not [path for path in out.rglob("*") if "partial" in path.name or path.name == "overlay.mp4"]


@pytest.mark.parametrize(
    ("height", "width", "box"), [(1, 1, "0,0,1,1"), (32, 8000, "1,1,60,30"), (8000, 32, "1,1,30,60"), (2, 3, "0,0,2,2")]
)
@pytest.mark.parametrize("frames", [1, 2])
def test_very_small_and_very_long_pictures_and_videos(built, tmp_path, height, width, box, frames):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(frames):
        Image.new("RGB", (width, height), (9, 99, 200)).save(folder / f"{number}.png")
    out = tmp_path / "out"
    assert main(["track", "--quiet", str(folder), "--box", box, "--out", str(out)]) == 0
    assert open_source(out / "overlay.mp4").num_frames == frames
    assert (out / "report.html").exists()
    assert main(["export", "--quiet", str(out), "--to", "matte"]) == 0


def test_the_prompts_of_an_annotated_project_can_be_tracked_from(built, clip, tmp_path):
    prompts = [{"frame": 0, "object": 1, "label": "", "box": [4, 6, 12, 14]}]
    content = {"format": "sam2long-project", "version": 1, "objects": [], "prompts": prompts}
    (tmp_path / "p.json").write_text(json.dumps(content))
    assert main(["track", str(clip), "--prompts", str(tmp_path / "p.json"), "--out", str(tmp_path / "out")]) == 0
