"""davis-long: made of a small DAVIS; what is said of absences."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from eval import cli, davis_long, layouts, one_video, presence, report, runner, score
from eval.datasets import open_dataset
from eval.trackers import TrackerSpec
from sam2long.synthetic import generate


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    root = tmp_path_factory.mktemp("small") / "davis"
    clips = [layouts.Clip.of(generate("easy", seed, 4 + seed, 64, 1)) for seed in range(3)]
    layouts.write("davis16-val", root, clips)
    return root


@pytest.fixture(scope="module")
def long(davis, tmp_path_factory):
    root = tmp_path_factory.mktemp("long") / "davis-long"
    assert cli.main(["generate", "--layout", "davis-long", "--root", str(davis), "--out", str(root)]) == 0
    return root


def test_a_sequence_comes_forward_backward_and_forward_with_absences_between(long, davis):
    segments = json.loads((long / davis_long.SEGMENTS).read_text())
    assert list(segments) == ["easy_0000", "easy_0001", "easy_0002"]
    for name, parts in segments.items():
        assert [p["step"] for p in parts] == [1, 1, -1, 1, 1]
        assert [p["sequence"] == name for p in parts] == [True, False, True, False, True]
        order = [(p["sequence"], p["first"] + p["step"] * k) for p in parts for k in range(p["count"])]
        for number, (sequence, frame) in enumerate(order):
            image = long / f"JPEGImages/480p/{name}/{number:05d}.jpg"
            assert image.read_bytes() == (davis / f"JPEGImages/480p/{sequence}/{frame:05d}.jpg").read_bytes()
            mask = np.asarray(Image.open(long / f"Annotations/480p/{name}/{number:05d}.png"))
            assert mask.any() == (sequence == name)
        assert len(list((long / f"JPEGImages/480p/{name}").iterdir())) == len(order)
    assert not open_dataset("davis-long", long).check()


def test_it_is_the_same_every_time_and_no_longer_than_sixty_frames_a_pass():
    lengths, sizes = {"a": 100, "b": 15, "c": 50, "d": 50}, dict.fromkeys("abcd", (480, 854))
    planned = davis_long.plan(lengths, sizes)
    assert planned == davis_long.plan(dict(reversed(lengths.items())), sizes)
    forward, away, backward, _, again = planned["a"]
    assert forward == again == davis_long.Segment("a", 0, 60, 1) and list(backward.frames()) == list(range(59, -1, -1))
    assert away.count <= 40 and (away.count >= 20 or away.sequence == "b")


def test_what_cannot_be_made_long_is_refused_and_leaves_nothing(davis, tmp_path, capsys):
    lonely = tmp_path / "lonely"
    layouts.write("davis16-val", lonely, [layouts.Clip.of(generate("easy", 1, 4, 64, 1))])
    full = tmp_path / "full"
    full.mkdir()
    (full / "a.txt").touch()
    for options, message in (
        (["--root", str(lonely)], "0 other sequences of its size 64x64"),
        (["--root", str(tmp_path / "nowhere")], "davis-long is made of DAVIS 2016 val"),
        ([], "say where it lies with --root"),
        (["--root", str(davis), "--out", str(full)], "already there"),
    ):
        out = ["--out", str(tmp_path / "out")] if "--out" not in options else []
        assert cli.main(["generate", "--layout", "davis-long", *out, *options]) == 2
        assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "lonely"]
    assert cli.main(["generate", "--layout", "folder", "--root", str(davis), "--out", str(tmp_path / "out")]) == 2


def frames(gt, pred, scores):
    names = [f"{k:05d}" for k in range(len(gt))]
    columns = {"index": range(len(gt)), "frame": names, "gt_area": gt, "pred_area": pred, "score": scores}
    return pd.DataFrame({"video": "v", "object": "1"} | columns)


def test_what_is_said_of_absences_by_hand():
    table = frames([9, 9, 0, 0, 9, 9, 0, 9], [9, 0, 0, 4, 9, 9, 0, 0], [90, 0, 100, 0, 60, 80, 100, 0])
    logits = table[["video", "object", "frame"]].assign(object_logit=[5, 1, 2, 0, 4, 3, 0, 0.5])
    found = presence.figures(table, logits)
    assert found["absent frames"] == 3 and found["said absent %"] == pytest.approx(200 / 3)
    assert found["said visible %"] == pytest.approx(60)
    # of the 15 pairs the logit is the wrong way round in two: the absence with 2 against those seen with 1 and 0.5
    assert found["AUC of the logit"] == pytest.approx(13 / 15)
    assert found["returns"] == 2 and found["after a return"] == pytest.approx((70 + 0) / 2)


def test_equal_logits_say_nothing():
    assert presence.auc(np.ones(6), np.array([True, False] * 3)) == 0.5


def test_no_absence_no_figures():
    assert presence.figures(frames([9, 9], [9, 9], [90, 90])) is None


@pytest.mark.parametrize("method", ["sam2", "sam2long"])
def test_a_run_keeps_the_logits_and_the_report_says_what_they_are_worth(long, tmp_path, method):
    dataset = open_dataset("davis-long", long, videos=["easy_0000"])
    out = tmp_path / method
    assert not runner.run(dataset, TrackerSpec(method=method, device="cpu"), out).failed
    table = presence.read_logits(out, ["easy_0000"])
    assert list(table["frame"]) == list(dataset.video("easy_0000").frame_names) and set(table["object"]) == {"1"}
    gt = dataset.gt()
    scores = score.evaluate("davis2016", gt, one_video.predictions_folder(out), **score.restrict(dataset, gt))
    score.write(scores, out / "scores" / "davis2016")
    assert "said absent %" in score.as_text(scores)
    text = report.write([out], tmp_path / "report").read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| {method} | ") and "| 2 |" in line)
    assert "nan" not in row and row.count("|") == 9
