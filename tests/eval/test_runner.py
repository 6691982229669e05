"""Runs: the official PNGs, whole videos or nothing, one bad video does not stop the rest."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval import cli, datasets, one_video, outputs, pngs, runner, trackers
from eval.datasets.base import Prompt, Video
from eval.score import evaluate
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError, DataError
from sam2long.runs import processes
from tests.eval import trees

DRIFT = TrackerSpec(method="tests.eval.fake_tracker:drift", model="none")
BREAKS = TrackerSpec(method="tests.eval.fake_tracker:breaks", model="none")
REPOSITORY = Path(__file__).parents[2]


def files(folder: Path) -> dict[str, str]:
    """Content hash by path of the predictions, and the manifest (not its commit: someone may commit meanwhile)."""
    found = [p for p in (folder / "predictions").rglob("*") if p.is_file()]
    hashes = {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}
    manifest = json.loads((folder / "manifest.json").read_text())
    return hashes | {"manifest.json": json.dumps(manifest | {"commit": ""}, sort_keys=True)}


@pytest.fixture
def davis(tmp_path):
    return datasets.open_dataset("davis17-val", trees.davis17(tmp_path / "data"))


@pytest.mark.parametrize("name", trees.BUILDERS)
def test_every_data_set_runs_to_its_official_layout(name, tmp_path):
    trees.BUILDERS[name](tmp_path / "data")
    dataset = datasets.open_dataset(name, tmp_path / "data")
    result = runner.run(dataset, DRIFT, tmp_path / "run")
    assert (result.done, result.failed) == (["vid_a", "vid_b"], {})
    for video in map(dataset.video, dataset.names()):
        labels = [p.label for p in dataset.prompts(video)] if dataset.per_object else [""]
        for label in labels:
            folder = tmp_path / "run" / "predictions" / video.name / label
            assert pngs.png_stems(folder) == sorted(video.saved_names)
            with Image.open(folder / f"{video.saved_names[0]}.png") as image:
                assert (image.mode, image.size) == ("P", (trees.W, trees.H))
    if (gt := runner.gt_of(dataset, tmp_path / "run")) is not None:
        scores = evaluate(dataset.protocol, gt, tmp_path / "run" / "predictions", processes=1)
        assert len(scores.objects) >= 2


def test_before_its_prompt_an_object_has_empty_masks(tmp_path):
    dataset = datasets.open_dataset("sav-val", trees.sav(tmp_path / "data"))
    runner.run(dataset, DRIFT, tmp_path / "run")
    folder = tmp_path / "run" / "predictions" / "vid_a" / "001"
    shown = [pngs.read_ids(folder / f"{n}.png").any() for n in pngs.png_stems(folder)]
    assert shown == [False] * 3 + [True] * 6


def test_where_objects_meet_the_highest_logit_wins_and_ties_go_to_the_lowest_id():
    prompts = [Prompt(5, "5", 0, np.zeros((1, 4))), Prompt(2, "2", 0, np.zeros((1, 4)))]
    logits = np.array([[[3.0, 1.0, -1.0, 2.0]], [[1.0, 2.0, -3.0, 2.0]]])
    assert outputs.to_ids(logits, prompts).tolist() == [[5, 2, 0, 2]]


def test_one_bad_video_is_reported_and_the_rest_goes_on(davis, tmp_path, capsys):
    result = runner.run(davis, BREAKS, tmp_path / "run")
    assert result.done == ["vid_b"]
    assert "the device is on fire" in result.failed["vid_a"]
    assert "the device is on fire" in json.loads((tmp_path / "run" / "failures.json").read_text())["vid_a"]
    assert pngs.subfolders(tmp_path / "run" / "predictions") == ["vid_b"]
    assert not list((tmp_path / "run" / "predictions").glob(".*"))


def test_exit_code_says_that_a_video_failed(davis, tmp_path):
    arguments = [
        "run",
        "--dataset",
        "davis17-val",
        "--root",
        str(davis.root),
        "--out",
        str(tmp_path / "run"),
        "--model",
        "x",
    ]
    assert cli.main([*arguments, "--tracker", BREAKS.method]) == 1
    assert cli.main([*arguments[:-2], "--out", str(tmp_path / "good"), "--tracker", DRIFT.method, "--score"]) == 0
    assert (tmp_path / "good" / "scores" / "davis" / "frames.csv").exists()


def test_layout_faults_end_the_run_before_any_model_is_loaded(davis, tmp_path):
    (davis.root / "JPEGImages/480p/vid_a/00003.jpg").unlink()
    with pytest.raises(DataError, match="1 frames are missing"):
        runner.run(davis, TrackerSpec(method="no.such.module:tracker"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_run_again(davis, tmp_path):
    runner.run(davis, DRIFT, tmp_path / "run")
    before = files(tmp_path / "run")
    result = runner.run(davis, DRIFT, tmp_path / "run")
    assert (result.done, result.skipped) == ([], ["vid_a", "vid_b"])
    assert files(tmp_path / "run") == before


def test_another_runs_folder_is_refused(davis, tmp_path):
    runner.run(davis, DRIFT, tmp_path / "run")
    with pytest.raises(DataError, match="other settings .*seed"):
        runner.run(davis, TrackerSpec(method=DRIFT.method, model="none", seed=7), tmp_path / "run")


def test_a_run_that_came_to_nothing_is_not_in_the_way(davis, tmp_path):
    wrong = TrackerSpec(method="tests.eval.fake_tracker:dirft", model="none")
    with pytest.raises(ConfigError, match="dirft"):
        runner.run(davis, wrong, tmp_path / "run")
    assert runner.run(davis, DRIFT, tmp_path / "run").done == ["vid_a", "vid_b"]


def test_manifest_says_what_was_run(davis, tmp_path):
    runner.run(davis, DRIFT, tmp_path / "run")
    content = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert content["dataset"]["videos"] == ["vid_a", "vid_b"]
    assert content["dataset"]["videos_sha256"] == hashlib.sha256(b"vid_a\nvid_b").hexdigest()
    assert content["tracker"]["seed"] == 0
    assert {"sam2", "torch", "numpy", "python", "sam2long"} <= set(content["versions"])
    assert {"commit", "checkpoint_sha256"} <= set(content)
    record = json.loads((tmp_path / "run" / "videos" / "vid_a.json").read_text())
    assert (record["frames"], record["objects"], record["peak_memory_bytes"]) == (8, 2, 1)


def command(root, out):
    arguments = ["run", "--dataset", "davis17-val", "--root", str(root), "--out", str(out), "--tracker", DRIFT.method]
    return [sys.executable, "-m", "eval", *arguments, "--model", "none"]


@pytest.mark.slow
def test_killed_ten_times_at_random_moments_the_run_is_the_unbroken_one_byte_for_byte(davis, tmp_path):
    environment = os.environ | {"FAKE_TRACKER_DELAY": "0.03", "OMP_NUM_THREADS": "1"}
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    subprocess.run(command(davis.root, unbroken), cwd=REPOSITORY, check=True, capture_output=True)
    rng, amid = random.Random(0), 0
    for _ in range(10):
        process = subprocess.Popen(
            command(davis.root, broken),
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        marks = broken / "predictions"
        deadline = time.monotonic() + 20
        while not list(marks.glob(".*.part/*")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.6)
        process.send_signal(signal.SIGKILL)
        process.wait()
        amid += any(marks.glob(".*.part"))
        if (broken / "videos" / "vid_b.json").exists():  # it finished: let the next one have something to do
            for record in (broken / "videos").glob("*.json"):
                record.unlink()
    subprocess.run(command(davis.root, broken), cwd=REPOSITORY, check=True, capture_output=True)
    assert amid >= 3  # else the kills came too early or too late to mean anything
    assert files(broken) == files(unbroken)


def test_a_video_killed_between_its_move_and_its_record_is_written_again(davis, tmp_path):
    runner.run(davis, DRIFT, tmp_path / "run")
    before = files(tmp_path / "run")
    (tmp_path / "run" / "videos" / "vid_a.json").unlink()
    assert runner.run(davis, DRIFT, tmp_path / "run").done == ["vid_a"]
    assert files(tmp_path / "run") == before


def test_a_tracker_that_skips_frames_is_a_failed_video(davis, tmp_path):
    class Skips:
        def reset_peak_memory(self): ...
        def track(self, folder, video, prompts):
            yield 1, np.zeros((len(prompts), *video.size), np.float32)

    with pytest.raises(RuntimeError, match="gave frame 1 .*expected 0"):
        one_video.run_video(davis, Skips(), "vid_a", tmp_path)
    assert not (tmp_path / "predictions" / "vid_a").exists()


def test_masks_are_written_as_they_come(tmp_path):
    """A long video does not wait in memory: the frames before the last few are on disk."""
    names = tuple(str(i) for i in range(12))
    video = Video("v", names, (4, 4), tuple(range(12)))
    writer = outputs.VideoWriter(tmp_path, video, [Prompt(1, "1", 0, np.ones((4, 4), bool))], per_object=False)
    for frame in range(10):
        writer.write(frame, np.ones((1, 4, 4)))
    assert {"0.png", "1.png"} <= {path.name for path in (tmp_path / ".v.part").iterdir()}
    assert not (tmp_path / "v").exists()
    writer.close()
    assert set(pngs.png_stems(tmp_path / "v")) == set(names)
    assert not pngs.read_ids(tmp_path / "v" / "11.png").any()


def test_what_goes_wrong_while_masks_are_encoded_is_the_videos_error_and_leaves_nothing(tmp_path, monkeypatch):
    """Encoding has a thread of its own; its error comes up in the one that tracks."""
    video = Video("clip", tuple(f"{i:05d}" for i in range(40)), (6, 8), tuple(range(40)))
    prompts = [Prompt(1, "1", 0, np.ones((6, 8), bool))]
    logits = np.ones((1, 6, 8), np.float32)
    encode = outputs.VideoWriter.encode
    monkeypatch.setattr(
        outputs.VideoWriter, "encode", lambda self, own: encode(self, own) if own[0, 0, 0] > 0 else 1 / 0
    )
    writer = outputs.VideoWriter(tmp_path, video, prompts, per_object=False)
    with pytest.raises(ZeroDivisionError):
        for frame in range(40):
            writer.write(frame, -logits if frame == 5 else logits)
            assert frame < 5 + outputs.MOST_WAITING + 1, "the error waits until the end"
    writer.abandon()
    assert not list(tmp_path.iterdir())
    assert not [t for t in threading.enumerate() if t.name.startswith("eval-masks")]
    writer = outputs.VideoWriter(tmp_path, video, prompts, per_object=False)
    for frame in range(1, 40):
        writer.write(frame, logits)
    writer.close()
    assert len(list((tmp_path / "clip").iterdir())) == 40


@pytest.mark.parametrize(
    ("gpus", "said", "expected"),
    [
        (2, None, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, "cuda:1", ["cuda:1"] * 3),
        (1, None, [None] * 3),
        (2, "cpu", ["cpu"] * 3),
    ],
)
def test_several_workers_share_out_the_gpus(monkeypatch, tmp_path, gpus, said, expected):
    found = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr(trackers, "build", lambda spec: found.append(spec.device))
    job = runner._Job(None, TrackerSpec(device=said), tmp_path)
    for number in range(3):
        monkeypatch.setattr(processes._Worker, "job", job)
        monkeypatch.setattr(processes._Worker, "number", number)
        job.start()
    assert found == expected
    monkeypatch.setattr(processes._Worker, "job", None)  # one process for all: torch chooses
    job.start()
    assert found[-1] == said


@pytest.mark.parametrize("workers", [1, 2])
def test_the_time_left_counts_each_frame_once(davis, tmp_path, monkeypatch, workers):
    made = []

    class Counted(runner.Progress):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(runner, "Progress", Counted)
    runner.run(davis, DRIFT, tmp_path / "run", workers=workers)
    assert made[0].done == made[0].total > 0
