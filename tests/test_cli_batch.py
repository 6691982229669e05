"""`sam2long track` with several videos: a run for each, a table; what is wrong with one costs the others nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from sam2long.cli import main
from sam2long.export import MaskReader
from sam2long.runs import opening
from sam2long.runs.run_folder import RunFolder
from tests.fake_tracker import FakePredictor
from tests.fakes import jpeg_folder, noise_clip, tiny_flags
from tests.test_cli_track import places
from tests.video_files import numbered_image, write_video

BOX = ("--box", "4,6,12,14")


@pytest.fixture
def built(monkeypatch):
    """The settings with which predictors were built; every one is a fake."""
    settings = []
    monkeypatch.setattr(opening, "build_predictor", lambda given: settings.append(given) or FakePredictor())
    return settings


@pytest.fixture
def clips(tmp_path):
    """Two files and a folder of images, each of another length."""
    a, b = write_video(tmp_path / "a.mp4", 12), write_video(tmp_path / "b.mp4", 9)
    return a, b, jpeg_folder(tmp_path / "c", [numbered_image(n) for n in range(7)])


def track(*arguments):
    return main(["track", "--quiet", *map(str, arguments)])


def table(out):
    return pd.read_csv(out / "batch.csv", keep_default_na=False).set_index("clip")


def statuses(out):
    return table(out)["status"].to_dict()


def per_clip(tmp_path, **said):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(said))
    return path


def box(x, frame=0):
    return {"frame": frame, "object": 1, "label": "dog", "box": [x, 6, x + 8, 14]}


def test_each_clip_gets_the_run_that_it_would_get_alone_with_its_prompts_from_one_model(built, clips, tmp_path):
    prompts = per_clip(
        tmp_path, **{"a.mp4": [box(4)], "b": [box(10), {**box(20), "object": 2}], "c": [box(7, frame=2)]}
    )
    out = tmp_path / "batch"
    assert track(*clips, "--prompts", prompts, "--out", out) == 0
    assert len(built) == 1
    for video, flags in zip(clips, (("--box", "4,6,12,14", "--label", "dog"), None, None), strict=True):
        name = video.stem
        alone = tmp_path / "alone" / name
        assert track(video, *(flags or ("--prompts", prompts)), "--out", alone) == 0
        assert places(out / name) == places(alone)
        assert sorted(p.name for p in (out / name).iterdir()) == sorted(p.name for p in alone.iterdir())
    found = table(out)
    assert list(found.index) == ["a", "b", "c"] and set(found["status"]) == {"complete"}
    assert found["frames"].tolist() == [12, 9, 5] and found["objects"].tolist() == [1, 2, 1]
    assert found["visible"].tolist() == [12, 18, 5]


def test_a_bad_clip_is_reported_and_the_rest_goes_on(built, clips, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    prompts = per_clip(tmp_path, a=[box(4)], broken=[box(4)], c=[{**box(4), "box": [4, 6, 999, 14]}], d=[box(4)])
    out = tmp_path / "batch"
    assert track(clips[0], broken, clips[1], clips[2], "--prompts", prompts, "--out", out) == 1
    assert statuses(out) == {"a": "complete", "broken": "failed", "b": "failed", "c": "failed"}
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in said if line.startswith("sam2long:")] == ["broken", "b", "c"]
    assert "has no prompts for b.mp4" in table(out).loc["b", "error"] and "outside" in table(out).loc["c", "error"]
    assert any("prompts for d, not among the clips" in line for line in said)
    assert not (out / "b").exists() and not (out / "broken").exists(), "nothing half-written stays behind"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_batch_goes_on_to_the_masks_of_an_unbroken_one(clips, tmp_path, monkeypatch, capsys, number):
    whole, out, seen = tmp_path / "whole", tmp_path / "stopped", []

    def on_step(frame):
        seen.append(frame)
        if len(seen) == 18:  # in the second clip
            signal.raise_signal(number)

    monkeypatch.setattr(opening, "build_predictor", lambda given: FakePredictor())
    assert track(*clips, *BOX, "--out", whole) == 0
    with monkeypatch.context() as patch:
        patch.setattr(opening, "build_predictor", lambda given: FakePredictor(on_step))
        assert track(*clips, *BOX, "--out", out) == 130
    assert statuses(out) == {"a": "complete", "b": "stopped", "c": "waiting"}
    assert f"sam2long track --resume --out {out}" in capsys.readouterr().err
    assert 0 < len(places(out / "b")) < 9
    made = (out / "a" / "masks.jsonl").stat().st_mtime_ns
    assert track("--resume", "--out", out) == 0
    assert statuses(out) == {"a": "complete", "b": "complete", "c": "complete"}
    assert (out / "a" / "masks.jsonl").stat().st_mtime_ns == made, "what was complete is left alone"
    for name in "abc":
        assert places(out / name) == places(whole / name)
    assert table(out).drop(columns="frames_per_second").equals(table(whole).drop(columns="frames_per_second"))


def test_a_clip_that_failed_is_tried_again(built, clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    assert track(clips[0], broken, *BOX, "--out", tmp_path / "batch") == 1
    write_video(broken, 5)
    assert track("--resume", "--out", tmp_path / "batch") == 0
    assert statuses(tmp_path / "batch") == {"a": "complete", "broken": "complete"}


def test_going_on_takes_the_same_flags_and_no_others(built, clips, tmp_path, capsys):
    out = tmp_path / "batch"
    assert track(*clips, *BOX, "--set", "num_pathways=2", "--out", out) == 0
    assert track(*clips, *BOX, "--set", "num_pathways=2", "--out", out, "--resume") == 0
    for changed in (("--set", "num_pathways=3"), ("--stride", 2), ("--box", "5,6,12,14"), (clips[0], clips[1])):
        assert track("--resume", "--out", out, *changed) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_batch_of_an_earlier_version_goes_on_with_its_flags(built, clips, tmp_path, capsys):
    """Every setting was a flag of its own in batch.json."""
    out = tmp_path / "batch"
    assert track(*clips, *BOX, "--out", out) == 0
    shutil.rmtree(out / "b")
    content = json.loads((out / "batch.json").read_text())
    flags = {"box": "9,6,17,14", "num_pathways": 2, "online": True, "max_lag": "none", "stride": 2, "label": "cat",
             "reseed_every": None}  # fmt: skip
    old = {"clips": content["clips"], "replaces": {}, "flags": flags}
    (out / "batch.json").write_text(json.dumps(old))
    assert track("--resume", "--stride", 1, "--out", out) == 2
    assert "--stride is 1 but the batch in" in capsys.readouterr().err
    assert track("--resume", "--stride", 2, "--box", "9,6,17,14", "--out", out) == 0
    settings = json.loads((out / "b" / "run.json").read_text())["settings"]
    assert places(out / "b")[0] == {1: 9} and (settings["stride"], settings["model"]) == (2, "nano")
    assert (settings["sam2long"]["num_pathways"], settings["sam2long"]["max_lag"]) == (2, None)
    assert settings["sam2long"]["emit"] == "online"
    (out / "batch.json").write_text(json.dumps(old | {"flags": flags | {"reseed_every": 5}}))
    assert track("--resume", "--out", out) == 2
    assert "--reseed-every, which this version does not have" in capsys.readouterr().err


def test_nothing_that_is_there_is_lost_unasked(built, clips, tmp_path, capsys):
    out = tmp_path / "batch"
    assert track(*clips[:2], *BOX, "--out", out) == 0
    assert track(*clips[:2], *BOX, "--out", out) == 2 and "--overwrite" in capsys.readouterr().err
    assert track(clips[0], *BOX, "--out", out) == 2 and "several videos" in capsys.readouterr().err
    assert track(*clips[:2], "--box", "9,6,17,14", "--out", out, "--overwrite") == 0
    assert places(out / "a")[0] == {1: 9}
    alone = tmp_path / "alone"
    assert track(clips[0], *BOX, "--out", alone) == 0
    assert track(*clips[:2], *BOX, "--out", alone, "--overwrite") == 2 and "one video" in capsys.readouterr().err
    assert track(clips[1], clips[0], *BOX, "--out", tmp_path / "runs") == 0
    (tmp_path / "other").mkdir()
    same = write_video(tmp_path / "other" / "a.mkv", 4)
    assert track(clips[0], same, *BOX, "--out", tmp_path / "twice") == 2
    assert "would both be a" in capsys.readouterr().err and not (tmp_path / "twice").exists()


def test_a_run_that_overwrite_gave_up_is_not_taken_for_the_new_one(built, clips, tmp_path, monkeypatch):
    out = tmp_path / "batch"
    assert track(*clips, *BOX, "--out", out) == 0

    def stop(frame):
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "build_predictor", lambda given: FakePredictor(stop))
        assert track(*clips, "--box", "9,6,17,14", "--overwrite", "--out", out) == 130
    assert places(out / "b")[0] == {1: 4}, "until it is its turn, the earlier run is there"
    assert track("--resume", "--out", out) == 0
    assert [places(out / name)[0] for name in "abc"] == [{1: 9}] * 3


@pytest.mark.parametrize("lost", ["run.json", ".resume"])
def test_masks_that_the_batch_cannot_place_are_not_replaced_by_going_on(built, clips, tmp_path, lost):
    out = tmp_path / "batch"
    assert track(*clips, *BOX, "--out", out) == 0
    info = out / "a" / "run.json"
    info.write_text(info.read_text().replace('"complete"', '"running"'))  # as `annotate` leaves it when it is killed
    if lost == "run.json":
        info.unlink()
    before = (out / "a" / "masks.jsonl").read_bytes()
    assert track("--resume", "--out", out) == 1
    assert "holds a run already" in table(out).loc["a", "error"]
    assert (out / "a" / "masks.jsonl").read_bytes() == before


def test_a_clip_killed_before_its_run_json_is_done_anew(built, clips, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(self, *_):
        raise Killed

    out = tmp_path / "batch"
    with monkeypatch.context() as patch:
        patch.setattr("sam2long.runs.run.Run._write_info", die)
        with pytest.raises(Killed):
            track(*clips, *BOX, "--out", out)
    assert (out / "a" / ".resume" / "progress.json").exists()
    assert track("--resume", "--out", out) == 0


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"status": "complete", "settings": {}, "objects": null}',
                '{"status": "complete", "settings": {}, "summary": [1]}']
)  # fmt: skip
def test_a_damaged_run_costs_the_others_nothing(built, clips, tmp_path, content):
    out = tmp_path / "batch"
    assert track(*clips[:2], *BOX, "--out", out) == 0
    (out / "a" / "run.json").write_text(content)
    shutil.rmtree(out / "b")
    assert track("--resume", "--out", out) == 1
    assert statuses(out) == {"a": "failed", "b": "complete"}
    assert "run.json" in table(out).loc["a", "error"]


@pytest.mark.parametrize(
    "change", [{"clips": {}}, {"clips": []}, {"clips": {"../../else": "a.mp4"}}, {"clips": {"a": None}},
               {"clips": {"": "a.mp4"}}, {"settings": {"stride": "x"}}, {"settings": []}, {"prompting": 5}]
)  # fmt: skip
def test_a_damaged_batch_is_one_sentence(built, clips, tmp_path, capsys, change):
    out = tmp_path / "batch"
    assert track(*clips[:2], *BOX, "--out", out) == 0
    (out / "batch.json").write_text(json.dumps(json.loads((out / "batch.json").read_text()) | change))
    before = sorted(tmp_path.iterdir())
    assert track("--resume", "--out", out) == 2
    said = capsys.readouterr().err
    assert "batch.json is damaged" in said and said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_one_program_writes_to_a_batch_at_a_time(built, clips, tmp_path, capsys):
    out = tmp_path / "batch"
    assert track(*clips[:2], *BOX, "--out", out) == 0
    shutil.rmtree(out / "b")
    with RunFolder(out):
        assert track("--resume", "--out", out) == 2
        assert track(*clips[:2], *BOX, "--out", out, "--overwrite") == 2
    assert capsys.readouterr().err.count("another sam2long command") == 2
    assert track("--resume", "--out", out) == 0


@pytest.mark.parametrize("name", ["batch.csv.mp4", "batch.json.mp4", "..mp4", ".lock.mp4"])
def test_clips_whose_folder_would_be_in_the_way_are_refused(built, clips, tmp_path, capsys, name):
    video = shutil.copy(clips[0], tmp_path / name)
    assert track(clips[1], video, *BOX, "--out", tmp_path / "batch") == 2
    assert "rename it" in capsys.readouterr().err and not (tmp_path / "batch").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names that are text")
def test_names_that_are_no_text_are_tracked_too(built, clips, tmp_path):
    video = shutil.copy(clips[0], tmp_path / os.fsdecode(b"\xff.mp4"))
    assert track(clips[1], video, *BOX, "--out", tmp_path / "batch") == 0
    assert set(table(tmp_path / "batch")["status"]) == {"complete"}
    command = [sys.executable, "-m", "sam2long.cli", "track", video, "--max-frames", "1", *BOX, "--out", f"{video}.run"]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(
    ("prompts", "message"),
    [("5", "has no prompts"), ("{}", "has no prompts"), ('[{"object": 1}]', "says nothing"),
     ('{"prompts": [], "a.mp4": []}', "beside each other"), ('{"a": [], "a": []}', "says 'a' twice")],
)  # fmt: skip
def test_a_prompts_file_that_no_clip_can_use_is_said_once(built, clips, tmp_path, capsys, prompts, message):
    (tmp_path / "prompts.json").write_text(prompts)
    assert track(*clips, "--prompts", tmp_path / "prompts.json", "--out", tmp_path / "batch") == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not (tmp_path / "batch").exists()


def test_notes_on_prompts_stay_short(built, clips, tmp_path, capsys):
    listed = {"a": [box(4)], "b": [box(4)], "c": [box(4)], "": [], "new\nline": []} | {str(n): [] for n in range(999)}
    assert track(*clips, "--prompts", per_clip(tmp_path, **listed), "--out", tmp_path / "batch") == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) < 500 and '""' in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [((), "nothing to track"), (("--workers", 0, *BOX), "--workers"), (("--config", "no.yaml", *BOX), "no.yaml")],
)
def test_what_is_wrong_with_all_of_them_is_one_sentence(built, clips, tmp_path, capsys, flags, message):
    assert track(*clips, *flags, "--out", tmp_path / "batch") == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "batch").exists()
    assert track(clips[0], *BOX, "--workers", 2, "--out", tmp_path / "one") == 2


def real(*arguments, wait=True):
    """The program itself, with workers."""
    command = [sys.executable, "-m", "sam2long.cli", "track", *map(str, arguments)]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return (*program.communicate(timeout=300), program.returncode) if wait else program


def masks(out):
    with MaskReader(out / "masks.jsonl") as found:
        return [found.masks(frame) for frame in found.frames]


@pytest.mark.slow
def test_two_workers_give_the_files_of_one_and_stop_and_go_on(tmp_path):
    videos = [noise_clip(tmp_path / f"{name}.mp4", 40, fps=20) for name in "abcd"]
    flags = (*tiny_flags(tmp_path), "--box", "20,10,50,40")
    one, two = tmp_path / "one", tmp_path / "two"
    assert track(*videos, *flags, "--out", one) == 0
    program = real(*videos, *flags, "--workers", 2, "--out", two, wait=False)
    while not any((two / name / "masks.jsonl").exists() for name in "abcd") and program.poll() is None:
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=300)
    if program.returncode != 0:  # it may have been quicker than the signal
        assert program.returncode == 130, said
        assert "Traceback" not in said and "--resume" in said
        assert "stopped" in set(table(two)["status"]) or "waiting" in set(table(two)["status"])
        _, said, code = real("--resume", "--workers", 2, "--out", two)
        assert code == 0, said
    assert statuses(two) == dict.fromkeys("abcd", "complete")
    for name in "abcd":
        alone, together = masks(one / name), masks(two / name)
        assert len(alone) == len(together) == 40
        assert all((a[1] == b[1]).all() for a, b in zip(alone, together, strict=True))
