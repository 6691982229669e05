"""`sam2long demo`: figures of both methods, and those of the held-out set as long as they are this model's."""

import json

import pytest

from sam2long import cli, heldout

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
    file = tmp_path / "synthlong.json"
    file.write_text(json.dumps(MEASURED | {"weights_sha256": sha}))
    return file


def test_the_held_out_mean_of_these_weights(tmp_path, weights):
    first, sam2, ours, difference = heldout.lines(weights, written(tmp_path, heldout.sha256(weights)))
    assert first == "mean over the 40 held-out videos of synthlong (measured 2030-01-02):"
    assert sam2.strip() == "SAM 2: J&F 61.2 [55.0, 67.0], J 60.0, F 62.5"
    assert "63.8 [58.0, 69.0]" in ours
    assert "+2.50 [-0.50, +5.50]" in difference


def test_figures_of_other_weights_are_called_so(tmp_path, weights):
    first, *_ = heldout.lines(weights, written(tmp_path, "0" * 64))
    assert "not the weights" in first and "belong to others" in first


def test_no_figures_yet(tmp_path, weights):
    assert heldout.lines(weights, tmp_path / "none.json") == [
        "the mean over the held-out set synthlong has not been measured for these weights"
    ]


def test_it_leaves_pictures_and_scores_of_both(tmp_path, capsys):
    assert cli.main(["demo", "--frames", "5", "--out", str(tmp_path), "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    for name in ("SAM 2", "SAM2Long"):
        scores = results[name]
        assert scores["J&F"] == pytest.approx((scores["J"] + scores["F"]) / 2, abs=1e-4)
        assert 0.3 < scores["J"] <= 1
    assert {"demo.mp4", "timeline.png", "video.mp4"} <= {p.name for p in tmp_path.iterdir()}
    shown = capsys.readouterr().out
    assert "J&F" in shown and "synthlong" in shown


def test_too_few_frames_are_refused(tmp_path, capsys):
    assert cli.main(["demo", "--frames", "2", "--out", str(tmp_path / "x")]) == 2
    assert "expected 3 or more" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_files_that_no_demo_wrote_are_kept(tmp_path, capsys):
    (tmp_path / "video.mp4").write_text("a wedding")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert "video.mp4 that no demo wrote" in capsys.readouterr().err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("video.mp4", "a wedding")]
