"""`sam2long track`: what is wrong with its folder or frames is said at once, and a run killed early is no obstacle."""

import os
import subprocess
import sys

import pytest

from sam2long.cli import main
from sam2long.cli import track as cli_track
from sam2long.errors import StateError
from sam2long.export import MaskReader
from sam2long.runs import run as cli_run
from sam2long.runs.run_folder import RunFolder
from tests.fake_tracker import FakePredictor
from tests.video_files import write_video


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", 6)


@pytest.fixture
def built(monkeypatch):
    made = []
    monkeypatch.setattr(cli_track, "build_predictor", lambda settings: made.append(settings) or FakePredictor())
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


def test_output_that_nobody_reads_to_its_end_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "sam2long.cli", "models"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
