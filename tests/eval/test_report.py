"""Reports: from scored runs to markdown and figures."""

import numpy as np
import pandas as pd
import pytest

from eval import bootstrap, cli, datasets, report, report_figures, runner, settings
from eval.trackers import TrackerSpec
from sam2long.errors import ConfigError, DataError
from tests.eval import trees

DRIFT = "tests.eval.fake_tracker:drift"


@pytest.fixture
def runs(tmp_path):
    """Two scored runs on a MOSE tree: one tracks, one loses vid_a half-way."""
    root = trees.mose(tmp_path / "data")
    dataset = datasets.open_dataset("mose-v1", root)
    folders = [tmp_path / "good", tmp_path / "bad"]
    for folder in folders:
        runner.run(dataset, TrackerSpec(method=DRIFT, model="none"), folder)
    for t in range(4, trees.FRAMES):
        trees.save_ids(folders[1] / f"predictions/vid_a/{t:05d}.png", np.zeros((trees.H, trees.W), np.uint8))
    for folder in folders:
        scored = ["score", "--protocol", "davis", "--gt", str(root / "valid"), "--pred", str(folder / "predictions")]
        assert cli.main([*scored, "--out", str(folder / "scores" / "davis"), "--processes", "1"]) == 0
    return folders


def test_report_holds_scores_published_numbers_differences_and_figures(runs, tmp_path):
    path = report.write([runs[1], runs[0]], tmp_path / "report")
    text = path.read_text()
    assert "| good |" in text
    assert "Published (not run here)" in text
    assert "| SAM2Long | sam2.1-large | 75.2 |" in text
    assert "good - bad" in text
    assert "too few videos" in text
    assert "objects: several" in text
    assert {p.name for p in path.parent.iterdir()} == {"report.md", "scatter.png", "time.png"}


def test_unscored_runs_are_refused(runs, tmp_path):
    import shutil

    shutil.rmtree(runs[0] / "scores")
    with pytest.raises(DataError, match="good has not been scored"):
        report.write(runs, tmp_path / "report")
    with pytest.raises(DataError, match="holds no manifest.json"):
        report.write([tmp_path], tmp_path / "report")


def test_attributes_of_the_users_own(runs, tmp_path):
    (tmp_path / "a.csv").write_text("video,attribute\nvid_a,night\n")
    assert "| night | 2 |" in report.write(runs, tmp_path / "report", attributes=tmp_path / "a.csv").read_text()


def test_bootstrap_pairs_videos_and_weighs_objects():
    a = {("x", "1"): 50.0, ("x", "2"): 50.0, ("y", "1"): 50.0}
    b = {("x", "1"): 53.0, ("x", "2"): 53.0, ("y", "1"): 50.0}
    d = bootstrap.paired(a, b)
    assert (d.mean, d.low, d.high, d.videos, d.objects) == (2.0, 0.0, 3.0, 2, 3)


def test_bootstrap_sees_a_steady_gain_and_not_a_noisy_one():
    rng = np.random.default_rng(0)
    a = {(str(v), "1"): float(rng.uniform(0, 100)) for v in range(40)}
    steady = bootstrap.paired(a, {k: s + 1 for k, s in a.items()})
    assert steady.low > 0.9
    assert steady.p < 0.001
    noisy = bootstrap.paired(a, {k: s + float(rng.normal(0, 10)) for k, s in a.items()})
    assert noisy.low < 0 < noisy.high


def test_a_return_is_scored_by_its_first_frames_and_a_first_appearance_is_none():
    area = [0, 0, 5, 5, 0, 0, 0, 5, 5]
    frames = pd.DataFrame(
        {"video": "v", "object": "1", "index": range(9), "gt_area": area, "score": [0, 0, 9, 9, 0, 0, 0, 40, 60]}
    )
    assert report_figures.returns(frames).to_numpy().tolist() == [
        [3, 50.0, 50.0]
    ]  # frames away, first frames back, all frames back


def test_settings_file_values_and_command_line_win_in_that_order(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: sam2.1-tiny\nnum_pathways: 2\nsam2long:\n  iou_threshold: 0.5\noverrides: ['++model.a=1']\n"
    )
    spec = settings.tracker_spec(config=path, model="sam2.1-large")
    assert (spec.model, spec.overrides) == ("sam2.1-large", ("++model.a=1",))
    assert spec.sam2long == {"num_pathways": 2, "iou_threshold": 0.5}
    assert settings.tracker_spec(config=path, model=None).model == "sam2.1-tiny"
    assert settings.tracker_spec(model=None).model == "nano"
    assert settings.baseline_of(spec).sam2long == {}
    path.write_text("pathways: 2\n")
    with pytest.raises(ConfigError, match="unknown settings pathways"):
        settings.tracker_spec(config=path)
