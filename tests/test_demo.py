"""`sam2long demo`: figures of both methods, and those of the held-out set as long as they are this model's."""

import json

import av
import numpy as np
import pytest

from sam2long import cli
from sam2long.cli import demo
from sam2long.models import figures
from sam2long.video import VideoWriter

MEASURED = {
    "date": "2030-01-02",
    "videos": 40,
    "methods": {
        "SAM 2": {"J&F": 61.25, "J": 60.0, "F": 62.5, "interval": [55.0, 67.0]},
        "SAM2Long": {"J&F": 63.75, "J": 62.5, "F": 65.0, "interval": [58.0, 69.0]},
    },
    "difference": {"mean": 2.5, "interval": [-0.5, 5.5]},
}


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "nano.safetensors"
    path.write_bytes(b"weights")
    return path


def written(tmp_path, sha):
    (tmp_path / "synthlong.json").write_text(json.dumps(MEASURED | {"weights_sha256": sha}))


def test_the_mean_that_these_weights_reached(tmp_path, weights):
    written(tmp_path, figures.sha256(weights))
    (line,) = figures.lines(weights, ["synthlong"], tmp_path)
    assert line.startswith("mean over the 40 videos of synthlong: SAM 2 61.2, SAM2Long 63.8, difference +2.50 [-0.50,")


def test_figures_of_other_weights_are_called_so(tmp_path, weights):
    written(tmp_path, "0" * 64)
    (line,) = figures.lines(weights, ["synthlong"], tmp_path)
    assert "OTHER WEIGHTS" in line


def test_no_figures_yet(tmp_path, weights):
    assert figures.lines(weights, ["davis-long"], tmp_path) == [
        "the mean over davis-long has not been measured for these weights"
    ]


def test_it_tracks_a_real_clip_and_scores_a_generated_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "AWAY", range(4, 6))
    monkeypatch.setattr(demo, "STILLS", (0, 5))
    with av.open(str(demo.CLIP)) as clip:  # its first frames, so that the test is short
        pictures = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(8), clip.decode(video=0), strict=False)]
    with VideoWriter(tmp_path / "short.mp4", 30, 640, 360) as short:
        for picture in pictures:
            short.write(picture)
    monkeypatch.setattr(demo, "CLIP", tmp_path / "short.mp4")
    out = tmp_path / "demo"
    assert cli.main(["demo", "--frames", "5", "--out", str(out), "--device", "cpu"]) == 0
    results = json.loads((out / "results.json").read_text())
    for name in ("SAM 2", "SAM2Long"):
        real, scores = results["dog"][name], results["generated"][name]
        assert (real["there"], real["away"]) == (6, 2) and real["said_there"] >= 4
        assert 0.3 < scores["J"] <= 1
    assert results["small"]["frames"] == results["small"]["marked"] == 8
    assert 50 < results["small"]["median_pixels"] < 400  # the box has 255
    made = {"demo.mp4", "strip.png", "timeline.png", "video.mp4", "small.mp4", "generated.mp4", "results.json"}
    assert {p.name for p in out.iterdir()} == made
    shown = capsys.readouterr().out
    assert "of the 6 frames with the dog" in shown and "davis16-val" in shown and "synthlong" in shown


def test_the_shipped_clip_is_small_and_as_long_as_the_demo_says():
    assert demo.CLIP.stat().st_size <= 1.5e6
    with av.open(str(demo.CLIP)) as clip:
        frames = sum(1 for _ in clip.decode(video=0))
    assert 5 <= frames / 29.97 <= 8 and max(*demo.STILLS, *demo.AWAY) < frames
    assert (demo.CLIP.parent / "README.md").read_text().count("Apache-2.0") == 1


def test_too_few_frames_are_refused(tmp_path, capsys):
    assert cli.main(["demo", "--frames", "2", "--out", str(tmp_path / "x")]) == 2
    assert "expected 3 or more" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_files_that_no_demo_wrote_are_kept(tmp_path, capsys):
    (tmp_path / "video.mp4").write_text("a wedding")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert "video.mp4 that no demo wrote" in capsys.readouterr().err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("video.mp4", "a wedding")]


def test_the_mean_iou_is_over_objects_and_frames_without_the_first_and_the_last():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[1:, 0], truth[1, 3] = 1, 2
    masks = np.stack([truth == 1, truth == 2], axis=1)
    assert demo.mean_iou(masks, truth) == 1
    masks[1, 0, 0, 2:] = False  # half of object 1 on frame 1
    masks[2, 1, 3, 3] = True  # object 2 where it is not
    masks[0] = masks[3] = True
    assert demo.mean_iou(masks, truth) == pytest.approx((0.5 + 1 + 1 + 0) / 4)
