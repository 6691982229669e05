"""`sam2long track` from the outside: files, stopping, going on, and what is refused. A fake does the tracking."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sam2long.cli import commands, main
from sam2long.config import Sam2LongConfig
from sam2long.errors import DataError, ModelError, PromptError, StateError
from sam2long.export import MaskReader, davis_palette
from sam2long.runs import ObjectPrompt, RunSettings, begin_run, opening, prompting, resume_run, states
from sam2long.runs import run as cli_run
from sam2long.video import open_source
from tests.fake_tracker import FakePredictor
from tests.video_files import numbered_image, write_video

ROOT = Path(__file__).parents[1]
BOX = ("--box", "4,6,12,14")


@pytest.fixture
def built(monkeypatch):
    """The settings with which predictors were built; every one is a fake."""
    settings = []

    def build(given):
        settings.append(given)
        return FakePredictor()

    monkeypatch.setattr(opening, "build_predictor", build)
    return settings


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", 20, audio="aac")


def track(*arguments):
    return main(["track", "--quiet", *map(str, arguments)])


def places(out):
    """frame -> {object: x of its left edge}."""
    with MaskReader(out / "masks.jsonl") as masks:
        return {
            frame: {obj_id: int(np.nonzero(mask)[1].min()) for obj_id, mask in masks.masks(frame).items()}
            for frame in masks.frames
        }


def interrupting(monkeypatch, at, number=signal.SIGINT):
    """Predictors that send this process a signal when they work on frame `at`."""

    def on_step(frame):
        if frame == at:
            signal.raise_signal(number)

    monkeypatch.setattr(opening, "build_predictor", lambda settings: FakePredictor(on_step))


# ---- what a run leaves behind ----------------------------------------------------------------------------------------


def test_a_run_writes_every_file_and_nothing_else(built, clip, tmp_path):
    out = tmp_path / "runs" / "dog"
    assert track(clip, *BOX, "--label", "dog", "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "masks", "masks.jsonl", "overlay.mp4", "report.csv", "report.html", "run.json", "timeline.png",
    ]  # fmt: skip
    assert places(out) == {frame: {1: 4 + frame} for frame in range(20)}
    assert sorted(path.name for path in (out / "masks").iterdir()) == [f"{frame:05d}.png" for frame in range(20)]
    with Image.open(out / "masks" / "00003.png") as image:
        expected = np.zeros((48, 64), np.uint8)
        expected[6:14, 7:15] = 1
        np.testing.assert_array_equal(np.array(image), expected)
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "complete" and info["frames_tracked"] == 20 and info["device"] == "cpu"
    assert info["settings"]["sam2long"] == Sam2LongConfig().to_dict()
    assert info["prompts"] == [{"frame": 0, "object": 1, "label": "dog", "box": [4, 6, 12, 14]}]
    assert {"open video", "load model", "prompt", "track", "write masks", "report", "overlay"} == set(info["seconds"])
    assert info["versions"]["torch"] and info["peak_memory_mib"]["process"] > 10
    report = pd.read_csv(out / "report.csv")
    assert list(report["frame"]) == list(range(20)) and set(report["label"]) == {"dog"}
    assert report["memory_frames"][5] == "0 5"
    with Image.open(out / "timeline.png") as image:
        assert image.width > 800


def test_the_overlay_shows_the_video_with_the_mask_on_it_and_keeps_the_sound(built, clip, tmp_path):
    import av

    track(clip, *BOX, "--out", tmp_path / "run")
    overlay, plain = open_source(tmp_path / "run" / "overlay.mp4"), open_source(clip)
    assert overlay.num_frames == 20 and overlay.fps == 25
    for frame in (0, 11):
        changed = np.abs(overlay.frame(frame).astype(int) - plain.frame(frame)).sum(axis=2) > 60
        rows, columns = np.nonzero(changed)
        assert abs(columns.min() - (4 + frame)) <= 2 and abs(columns.max() - (11 + frame)) <= 2
        assert abs(rows.min() - 6) <= 2 and abs(rows.max() - 13) <= 2
    with av.open(str(tmp_path / "run" / "overlay.mp4")) as container:
        assert container.streams.audio


def test_folders_of_images_name_their_masks_after_the_images(built, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(4):
        Image.fromarray(numbered_image(number)).save(tmp_path / "frames" / f"img_{number}.jpg")
    assert track(tmp_path / "frames", *BOX, "--out", tmp_path / "run") == 0
    assert sorted(path.name for path in (tmp_path / "run" / "masks").iterdir()) == [f"img_{n}.png" for n in range(4)]
    assert open_source(tmp_path / "run" / "overlay.mp4").fps == 24


def test_stride_start_and_max_frames_count_in_frames_of_the_video(built, clip, tmp_path):
    out = tmp_path / "run"
    assert track(clip, *BOX, "--start", 2, "--stride", 3, "--max-frames", 4, "--frame", 5, "--out", out) == 0
    with MaskReader(out / "masks.jsonl") as masks:
        assert [(frame, masks.source_frame(frame)) for frame in masks.frames] == [(1, 5), (2, 8), (3, 11)]
    assert (out / "masks" / "00011.png").exists()
    assert open_source(out / "overlay.mp4").num_frames == 3


# ---- prompts ---------------------------------------------------------------------------------------------------------


def test_points_masks_and_files_reach_the_predictor(built, clip, tmp_path, monkeypatch):
    given = []
    for name in ("add_new_points_or_box", "add_new_mask"):
        original = getattr(FakePredictor, name)

        def spy(self, state, frame, obj_id, *args, original=original, **said):
            given.append((frame, obj_id, args, said))
            return original(self, state, frame, obj_id, *args, **said)

        monkeypatch.setattr(FakePredictor, name, spy)
    out = tmp_path / "run"
    assert track(clip, "--point", "5,6", "--point", "7.5,8", "--neg", "30,31", "--frame", 2, "--out", out) == 0
    assert given == [(2, 1, (), {"points": [(5, 6), (7.5, 8), (30, 31)], "labels": [1, 1, 0], "box": None})]
    given.clear()

    labels = np.zeros((48, 64), np.uint8)
    labels[2:5, 3:6], labels[20:25, 30:35] = 1, 7
    image = Image.fromarray(labels)
    image.putpalette(davis_palette())
    image.save(tmp_path / "first.png")
    assert track(clip, "--mask", tmp_path / "first.png", "--out", out, "--overwrite") == 0
    assert [(frame, obj_id) for frame, obj_id, _, _ in given] == [(0, 1), (0, 7)]
    np.testing.assert_array_equal(given[1][2][0], labels == 7)
    given.clear()

    Image.fromarray((labels == 1).astype(np.uint8) * 255).save(tmp_path / "dog.png")
    prompts = [
        {"frame": 0, "object": 3, "label": "cat", "box": [1, 2, 9, 9], "points": [[4, 4]], "labels": [1]},
        {"frame": 4, "object": 5, "mask": "dog.png"},
    ]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    assert track(clip, "--prompts", tmp_path / "prompts.json", "--out", out, "--overwrite") == 0
    assert given[0] == (0, 3, (), {"points": [(4, 4)], "labels": [1], "box": (1, 2, 9, 9)})
    assert given[1][:2] == (4, 5)
    np.testing.assert_array_equal(given[1][2][0], labels == 1)
    assert places(out)[3] == {3: 4} and list(places(out)[4]) == [3, 5]  # nothing of object 5 before its prompt


def write_prompts(path, *entries):
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"object": 1}, "says nothing about the object"),
        ({"object": 0, "box": [1, 2, 3, 4]}, "object is 0"),
        ({"box": [1, 2, 3, 4]}, "object is None"),
        ({"object": 1, "box": [1, 2, 3]}, "box is"),
        ({"object": 1, "points": [[1, 2]], "labels": [1, 0]}, "labels is"),
        ({"object": 1, "points": [[1, 2]], "labels": [2]}, "labels is"),
        ({"object": 1, "point": [[1, 2]]}, "unknown keys point"),
        ({"object": 1, "mask": "none.png"}, "none.png cannot be read"),
        ({"object": 1, "mask": "none.png", "box": [1, 2, 3, 4]}, "give the mask or the others"),
        ({"object": 1, "box": [1, 2, 3, 4], "frame": 99}, "frame 99 is not among the frames tracked, 0 to 19"),
        ("box", "expected an object"),
    ],
)
def test_a_wrong_prompt_file_is_refused_in_one_sentence(built, clip, tmp_path, capsys, entry, says):
    path = write_prompts(tmp_path / "prompts.json", {"object": 9, "box": [1, 2, 3, 4]}, entry)
    assert track(clip, "--prompts", path, "--out", tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert says in message and message.startswith("sam2long: ") and message.count("\n") == 1
    assert not (tmp_path / "run").exists()


# ---- directions ------------------------------------------------------------------------------------------------------


def test_both_directions_take_each_frame_of_each_object_from_the_right_pass(built, clip, tmp_path):
    path = write_prompts(
        tmp_path / "prompts.json",
        {"frame": 0, "object": 1, "box": [4, 6, 12, 14]},
        {"frame": 12, "object": 2, "box": [20, 30, 28, 38]},
    )
    out = tmp_path / "run"
    assert track(clip, "--prompts", path, "--direction", "both", "--out", out) == 0
    found = places(out)
    assert sorted(found) == list(range(20))
    assert [found[frame][1] for frame in range(20)] == [4 + frame for frame in range(20)]
    # Backward, object 2 begins on its prompt's frame and takes a step for each frame before it.
    assert [found[frame][2] for frame in range(12)] == [20 + 12 - frame for frame in range(12)]
    report = pd.read_csv(out / "report.csv")
    assert len(report) == 40 and not report.duplicated(["frame", "obj_id"]).any()
    overlay = open_source(out / "overlay.mp4")
    assert overlay.num_frames == 20
    with Image.open(out / "masks" / "00005.png") as image:
        assert set(np.unique(np.array(image))) == {0, 1, 2}


def test_backward_goes_down_to_the_first_frame(built, clip, tmp_path):
    assert track(clip, *BOX, "--frame", 6, "--direction", "backward", "--out", tmp_path / "run") == 0
    assert places(tmp_path / "run") == {frame: {1: 4 + 6 - frame} for frame in range(7)}
    assert track(clip, *BOX, "--direction", "backward", "--out", tmp_path / "other") == 2


# ---- stopping and going on -------------------------------------------------------------------------------------------


def tree(out):
    """Everything in a run that must not depend on how often it was stopped."""
    files = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.png") if p.name != "timeline.png"}
    lines = (out / "masks.jsonl").read_text().splitlines()
    pictures = [frame.image.tobytes() for frame in open_source(out / "overlay.mp4")]
    return files, lines, (out / "report.csv").read_text(), pictures


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_finished_for_its_frames_and_resumes_to_the_same_masks(
    built, clip, tmp_path, monkeypatch, capsys, direction, number
):
    flags = (clip, *BOX, "--frame", 10, "--direction", direction)
    assert track(*flags, "--out", tmp_path / "whole") == 0
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        interrupting(patch, at=5 if direction == "backward" else 16, number=number)
        out = tmp_path / "stopped"
        assert track(*flags, "--out", out) == 130
    assert f"sam2long track --resume --out {out}" in capsys.readouterr().err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    done = places(out)
    assert 0 < len(done) < len(places(tmp_path / "whole"))
    assert open_source(out / "overlay.mp4").num_frames == len(done)
    assert len(pd.read_csv(out / "report.csv")) == len(done)
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    assert track("--resume", "--out", out) == 0
    assert tree(out) == tree(tmp_path / "whole")
    assert not (out / ".resume").exists()
    assert track("--resume", "--out", out) == 0  # complete: nothing to do


def test_a_run_can_be_stopped_many_times_and_in_every_pass(built, clip, tmp_path, monkeypatch):
    path = write_prompts(
        tmp_path / "prompts.json",
        {"frame": 2, "object": 1, "box": [4, 6, 12, 14]},
        {"frame": 12, "object": 2, "box": [8, 8, 16, 16]},  # overlaps: one folder per object
    )
    flags = (clip, "--prompts", path, "--direction", "both")
    assert track(*flags, "--out", tmp_path / "whole") == 0
    assert (tmp_path / "whole" / "masks" / "2").is_dir()
    steps = []

    def on_step(frame):
        steps.append(frame)
        if len(steps) % 4 == 0:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(opening, "build_predictor", lambda settings: FakePredictor(on_step))
        codes = [track(*flags, "--out", out)]
        while codes[-1] == 130 and len(codes) < 20:
            codes.append(track("--resume", "--out", out))
    assert codes[-1] == 0 and codes.count(130) >= 5
    assert tree(out) == tree(tmp_path / "whole")


def test_a_killed_run_goes_back_to_the_last_save(built, clip, tmp_path, monkeypatch):
    assert track(clip, *BOX, "--out", tmp_path / "whole") == 0
    monkeypatch.setattr(states, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(states, "SAVE_SHARE", float("inf"))  # save before every frame

    class Killed(BaseException):
        pass

    def die(frame):
        if frame == 13:
            raise Killed

    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(opening, "build_predictor", lambda settings: FakePredictor(die))
        with pytest.raises(Killed):
            track(clip, *BOX, "--out", out)
    assert len(list((out / ".resume").glob("state-*"))) == 1
    with (out / "masks.jsonl").open("a") as torn:
        torn.write('{"frame": 10, "source_fr')
    assert track("--resume", "--out", out) == 0
    assert tree(out) == tree(tmp_path / "whole")


def test_leaving_while_the_overlay_is_made_loses_no_tracking(built, clip, tmp_path, monkeypatch, capsys):
    assert track(clip, *BOX, "--out", tmp_path / "whole") == 0

    def impatient(*args):
        raise KeyboardInterrupt

    out = tmp_path / "left"
    with monkeypatch.context() as patch:
        patch.setattr(cli_run, "write_overlay", impatient)
        assert track(clip, *BOX, "--out", out) == 130
    assert "--resume" in capsys.readouterr().err and not (out / "overlay.mp4").exists()
    steps = []
    monkeypatch.setattr(opening, "build_predictor", lambda settings: FakePredictor(steps.append))
    assert track("--resume", "--out", out) == 0
    assert tree(out) == tree(tmp_path / "whole") and steps == []


def test_resume_refuses_other_settings_and_what_it_cannot_continue(built, clip, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupting(patch, at=9)
        track(clip, *BOX, "--set", "num_pathways=2", "--out", out)
    for flags, says in [
        (("--set", "num_pathways=3"), "--set num_pathways is 3 but the run in"),
        (("--set", "modulation=1,1"), "--set modulation is 1,1 but the run in"),
        (("--online",), "--set emit is online"),
        (("--stride", 2), "--stride is 2"),
        (("--direction", "both"), "--direction is both"),
        (("--compile",), "--compile is true"),
        (("--overwrite",), "exclude each other"),
        (("--min-score", "0.5"), "prompts already"),
        ((tmp_path / "other.mp4",), "not of"),
    ]:
        capsys.readouterr()
        assert track(*flags, "--resume", "--out", out) == 2
        assert says in capsys.readouterr().err
    (tmp_path / "s.yaml").write_text("{}")  # no setting of its own: the defaults
    assert track("--config", tmp_path / "s.yaml", "--resume", "--out", out) == 2
    assert "--set num_pathways is 3" in capsys.readouterr().err
    same = ("--set", "num_pathways=2", "--set", "modulation=0.95,1.05", "--stride", 1, "--direction", "forward")
    assert track(clip, *same, "--resume", "--out", out) == 0
    assert built[-1].sam2long["num_pathways"] == 2
    assert track("--resume", "--out", tmp_path / "nothing") == 2


def test_a_flag_with_the_value_of_a_default_is_compared_too(built, clip, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupting(patch, at=1)
        begun = ("--stride", 5, "--start", 5, "--frame", 5, "--direction", "both", "--set", "num_pathways=1")
        assert track(clip, *BOX, *begun, "--out", out) == 130
    for flags, says in [
        (("--stride", 1), "--stride is 1 but the run in"),
        (("--start", 0), "--start is 0"),
        (("--direction", "forward"), "--direction is forward"),
        (("--model", "sam2.1-tiny"), "--model is sam2.1-tiny"),
        (("--set", "num_pathways=3"), "--set num_pathways is 3"),
    ]:
        capsys.readouterr()
        assert track("--resume", *flags, "--out", out) == 2
        assert says in capsys.readouterr().err
    assert track("--resume", "--out", out) == 0


def test_a_run_of_an_earlier_version_goes_on(built, clip, tmp_path, monkeypatch, capsys):
    """It names settings that are no more; where they were in use, that is said."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupting(patch, at=9)
        assert track(clip, *BOX, "--out", out) == 130
    info = json.loads((out / "run.json").read_text())
    info["settings"]["reseed"] = info["settings"]["sam2long"]["merge_agreeing"] = None
    used = {**info, "settings": {**info["settings"], "reseed": {"every": 5}}}
    (out / "run.json").write_text(json.dumps(used))
    capsys.readouterr()
    assert track("--resume", "--out", out) == 2
    assert "made with reseed, which this version does not have" in capsys.readouterr().err
    (out / "run.json").write_text(json.dumps(info))
    assert track("--resume", "--out", out) == 0
    assert sorted(places(out)) == list(range(20))


def test_the_settings_of_a_damaged_run_are_one_sentence(built, clip, tmp_path, capsys):
    out = tmp_path / "run"
    assert track(clip, *BOX, "--out", out) == 0
    info = json.loads((out / "run.json").read_text())
    for settings in ({}, [], 5, {**info["settings"], "sam2long": 7}, {**info["settings"], "stride": "x"}):
        (out / "run.json").write_text(json.dumps(info | {"settings": settings}))
        capsys.readouterr()
        assert track("--resume", "--out", out) == 2
        message = capsys.readouterr().err
        assert "run.json is damaged" in message and message.count("\n") == 1


# ---- the same from Python --------------------------------------------------------------------------------------------


def test_runs_are_begun_and_gone_on_with_from_python(built, clip, tmp_path, monkeypatch, capsys):
    whole, out = tmp_path / "whole", tmp_path / "python"
    assert track(clip, *BOX, "--label", "dog", "--out", whole) == 0
    settings = RunSettings(video=str(clip))
    prompt = ObjectPrompt(frame=0, obj_id=1, label="dog", box=(4, 6, 12, 14))
    with monkeypatch.context() as patch:
        interrupting(patch, at=9)
        with begin_run(out, settings, [prompt], quiet=True) as run:
            with pytest.raises(StateError, match="has .* open"):
                resume_run(out)
            assert not run.track()
            run.finish()
    with resume_run(out, quiet=True) as run:
        assert run.track()
        assert run.finish() == []
    assert tree(out) == tree(whole)
    assert json.loads((out / "run.json").read_text())["status"] == "complete"
    assert capsys.readouterr().out == ""
    with pytest.raises(StateError, match="is complete"):
        resume_run(out)
    with pytest.raises(DataError, match="holds a run already"):
        begin_run(out, settings, [prompt])
    with pytest.raises(PromptError, match="at least one prompt"):
        begin_run(tmp_path / "none", settings, [])
    assert not (tmp_path / "none").exists() and not (out / ".lock").exists()


def test_a_folder_with_a_run_is_not_overwritten_by_mistake(built, clip, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert track(clip, *BOX, "--out", out) == 0
    before = tree(out)
    assert track(clip, *BOX, "--out", out) == 2
    assert "--resume" in capsys.readouterr().err
    assert track(clip, "--box", "4,6,900,14", "--out", out, "--overwrite") == 2  # refused before anything is lost
    assert tree(out) == before
    assert track(clip, "--box", "20,6,28,14", "--max-frames", 5, "--out", out, "--overwrite") == 0
    assert sorted(places(out)) == [0, 1, 2, 3, 4] and len(list((out / "masks").iterdir())) == 5
    assert (out / "notes.txt").read_text() == "mine"


# ---- settings --------------------------------------------------------------------------------------------------------


def test_track_has_thirty_flags_and_its_examples_are_in_its_help():
    shown = subprocess.run([sys.executable, "-m", "sam2long.cli", "track", "--help"], capture_output=True, text=True)
    flags = [line[2:].split()[0] for line in shown.stdout.splitlines() if line.startswith("│ --")]
    assert len(flags) == len(set(flags)) == 30, flags
    assert "sam2long track dog.mp4 --box" in shown.stdout and "--set NAME=VALUE" in shown.stdout


def test_the_list_of_commands_fits_a_screen(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert caught.value.code == 0 and len(lines) <= 24 and max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line.startswith("  ")][:-1] == list(commands.COMMANDS)
    assert main([]) == 2 and "no command given" in capsys.readouterr().err
    assert main(["trakc"]) == 2 and "did you mean track?" in capsys.readouterr().err


def test_every_setting_can_be_set(built, clip, tmp_path):
    given = {"num_pathways": 2, "iou_threshold": 0.25, "certainty_threshold": 1, "modulation": "0.9,1.1",
             "object_aware_memory": "false", "twins": "merge", "emit": "online", "max_lag": "none",
             "max_prompted_frames": 4, "memory_tokens": "sparse", "stills": "false", "redraw": "false",
             "close_up": "true"}  # fmt: skip
    assert set(given) == {field.name for field in dataclasses.fields(Sam2LongConfig)}
    flags = [text for name, value in given.items() for text in ("--set", f"{name}={value}")]
    assert track(clip, *BOX, *flags, "--out", tmp_path / "run") == 0
    assert built[0].config() == Sam2LongConfig(
        num_pathways=2, iou_threshold=0.25, certainty_threshold=1, modulation=(0.9, 1.1), object_aware_memory=False,
        twins="merge", emit="online", max_lag=None, max_prompted_frames=4, memory_tokens="sparse",
        stills=False, redraw=False, close_up=True,
    )  # fmt: skip


def test_flags_win_over_the_yaml_which_wins_over_the_defaults(built, clip, tmp_path):
    (tmp_path / "s.yaml").write_text("model: sam2.1-tiny\nsam2long: {num_pathways: 2, twins: merge}\nmax_lag: 7\n")
    flags = ("--config", tmp_path / "s.yaml", "--set", "num-pathways=4", "--set", "modulation=0.9,1.1", "--online")
    assert track(clip, *BOX, *flags, "--out", tmp_path / "run") == 0
    settings = built[0]
    assert settings.model == "sam2.1-tiny"
    assert settings.config() == Sam2LongConfig(
        num_pathways=4, twins="merge", max_lag=7, modulation=(0.9, 1.1), emit="online"
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "nothing to track"),
        (("--box", "1,2,3"), "--box is '1,2,3'"),
        (("--point", "a,b"), "--point is 'a,b'"),
        (("--neg", "1,2"), "--neg only says"),
        ((*BOX, "--auto"), "exclude each other"),
        ((*BOX, "--text", "dog"), "--text and --box, --point or --mask exclude each other"),
        (("--auto", "--text", "dog"), "--auto and --text exclude each other"),
        (("--text", "dog", "--import", "none"), "--text does not go with --import"),
        (("--text", " . "), "--text is ' . '; expected words"),
        (("--text", "dog", "--min-score", "2"), "--min-score is 2"),
        ((*BOX, "--frame", "99"), "frame 99 is not among"),
        ((*BOX, "--set", "num_pathways=0"), "num_pathways is 0"),
        ((*BOX, "--set", "num_pathways"), "--set is 'num_pathways'; expected NAME=VALUE"),
        ((*BOX, "--set", "num_pathway=1"), "did you mean num_pathways?"),
        ((*BOX, "--set", "colour=1"), "the settings are num_pathways, iou_threshold"),
        ((*BOX, "--set", "twins=keep", "--set", "twins=merge"), "--set twins is given twice"),
        ((*BOX, "--set", "modulation=low"), "modulation is 'low'; expected two numbers"),
        ((*BOX, "--num-pathways", "1"), "write --set num_pathways=1"),
        ((*BOX, "--modulation", "0.9", "1.1"), "write --set modulation=0.9,1.1"),
        ((*BOX, "--max-lag=none"), "write --set max_lag=none"),
        ((*BOX, "--min-score", "0.5"), "--min-score goes with --text only"),
        ((*BOX, "--max-objects", "5"), "--max-objects goes with --auto or --text only"),
        (("--auto", "--label", "dog"), "--label names the object of --box"),
        ((*BOX, "--max-frames", "0"), "max_frames is 0"),
        ((*BOX, "--stride", "0"), "stride is 0"),
        ((*BOX, "--config", "none.yaml"), "none.yaml"),
        (("--mask", "none.png"), "none.png cannot be read"),
        ((*BOX, "--online", "--set", "emit=settled"), "contradict"),
    ],
)
def test_wrong_flags_are_refused_in_one_sentence(built, clip, tmp_path, capsys, flags, says):
    assert track(clip, *flags, "--out", tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert says in message and message.count("\n") == 1 and "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_unknown_flags_and_missing_videos_are_refused(built, clip, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        track(clip, "--boxx", "1,2,3,4", "--out", tmp_path / "run")
    assert caught.value.code == 2
    assert track(tmp_path / "none.mp4", *BOX, "--out", tmp_path / "run") == 2
    assert "none.mp4 does not exist" in capsys.readouterr().err
    assert track(*BOX, "--out", tmp_path / "run") == 2
    assert "no video given" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert track(clip, *BOX, "--out", tmp_path / "file" / "run") == 2
    assert "file" in capsys.readouterr().err


def test_missing_weights_and_devices_are_refused_with_what_to_do(clip, tmp_path, capsys, monkeypatch):
    assert track(clip, *BOX, "--model", "configs/sam2.1/sam2.1_hiera_l.yaml", "--out", tmp_path / "run") == 2
    assert "add --checkpoint" in capsys.readouterr().err
    assert track(clip, *BOX, "--model", "nano", "--device", "cuda:77", "--out", tmp_path / "run") == 2
    assert "--device cuda:77 cannot be used" in capsys.readouterr().err


def test_a_damaged_video_is_tracked_up_to_the_damage_and_the_run_says_so(built, tmp_path, capsys):
    import av

    whole = write_video(tmp_path / "whole.mp4", 40, b_frames=0, options={"movflags": "+faststart"})
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: positions[25] + 2])
    assert track(tmp_path / "cut.mp4", *BOX, "--out", tmp_path / "run") == 0
    assert sorted(places(tmp_path / "run")) == list(range(25))
    assert "video ends at frame 25 of 40" in capsys.readouterr().err
    assert "frame 25 of 40" in json.loads((tmp_path / "run" / "run.json").read_text())["notes"][0]


# ---- the other commands ----------------------------------------------------------------------------------------------


def test_importing_the_command_line_loads_nothing_heavy():
    code = "import sam2long.cli, sys; print([m for m in ('torch', 'av', 'pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_models_lists_all_checkpoints_and_where_they_are(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2LONG_CHECKPOINTS", str(tmp_path))
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"")
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("nano", "sam2")) for line in lines) == 9
    assert any(line.startswith("sam2.1-tiny") and str(tmp_path) in line for line in lines)
    assert any(line.startswith("sam2-large") for line in lines)


def test_doctor_finds_this_installation_healthy_and_a_fork_ill(capsys, monkeypatch):
    assert main(["doctor"]) == 0
    assert "unmodified" in capsys.readouterr().out
    monkeypatch.setattr("sam2long.network.install.sam2_problems", lambda: ["the sam2 in here is a fork; uninstall it"])
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM  the sam2 in here is a fork" in shown and "must be mended" in shown


def test_doctor_names_packages_that_are_too_old_or_missing(capsys, monkeypatch):
    from sam2long.cli import doctor

    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: {"av": "0.1", "tyro": None}.get(name, version(name)))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM  av 0.1 is too old: needed is av>=" in shown
    assert "PROBLEM  tyro is not installed: needed is tyro" in shown
    assert "pip install --upgrade" in shown and "'av>=" in shown
    listed = next(line for line in shown.splitlines() if line.startswith("packages     ok"))
    assert "numpy" in listed and " av " not in listed


def test_doctor_names_packages_of_extras_that_are_too_old_and_installed(capsys, monkeypatch):
    from sam2long.cli import doctor

    version, odd = doctor._version, {"fastapi": "0.1", "ruff": "99.0", "supervision": None}
    monkeypatch.setattr(doctor, "_version", lambda name: odd[name] if name in odd else version(name))
    assert main(["doctor"]) == 0, "tracking works without them"
    shown = capsys.readouterr().out
    assert "note     fastapi 0.1 is too old for [ui, dev]: needed is fastapi>=" in shown
    assert "note     ruff 99.0 is too new for [dev]: needed is ruff<" in shown
    assert "pip install --upgrade 'fastapi>=" in shown and "extra ==" not in shown and "supervision" not in shown


def test_every_direct_dependency_has_a_floor():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    del extras["readers"]  # other programs, as they come
    asked = [*project["dependencies"], *itertools.chain(*extras.values())]
    assert [text for text in asked if ">=" not in text] == []


def test_doctor_and_version_need_no_library(tmp_path):
    """tyro may be the one that is missing."""
    (tmp_path / "tyro.py").write_text("raise ImportError('too old')\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for command, shown in (("doctor", "Ready to track"), ("--version", "sam2long ")):
        done = subprocess.run([sys.executable, "-m", "sam2long.cli", command], env=env, capture_output=True, text=True)
        assert done.returncode == 0 and shown in done.stdout, done.stderr


def test_version_and_errors_of_the_model(capsys, monkeypatch, clip, tmp_path):
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("sam2long ")

    def no_weights(settings):
        raise ModelError("no weights for sam2.1-large;\nuse the model nano")

    monkeypatch.setattr(opening, "build_predictor", no_weights)
    assert track(clip, *BOX, "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err == "sam2long: no weights for sam2.1-large; use the model nano\n"


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        ({"size": [96, 128], "counts": "zzzz!!"}, "run lengths"),
        ({"size": [0.5, 1], "counts": "0"}, "size"),
        ({"size": [-5, 128], "counts": "0"}, "size"),
    ],
)
def test_a_broken_run_length_mask_is_one_sentence(tmp_path, mask, complaint):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{"object": 1, "mask": mask}]))
    with pytest.raises(DataError, match=complaint):
        prompting.from_file(path)


def test_label_images_of_16_bits_hold_object_ids(tmp_path):
    ids = np.zeros((8, 8), np.uint16)
    ids[:2], ids[4:] = 1, 300
    Image.fromarray(ids).save(tmp_path / "ids.png")
    found = prompting.masks_from_image(tmp_path / "ids.png", frame=0)
    assert [(prompt.obj_id, int(prompt.mask.sum())) for prompt in found] == [(1, 16), (300, 32)]


def test_grey_images_that_could_mean_anything_are_refused(tmp_path):
    grey = np.zeros((8, 8), np.uint8)
    grey[:2], grey[4:] = 5, 200
    Image.fromarray(grey).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match="5, 200"):
        prompting.masks_from_image(tmp_path / "grey.png", frame=0)
