"""The scorer's strictness, its files and its command."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from eval import cli, score
from eval.score import evaluate
from sam2long.errors import ConfigError, DataError
from tests.eval import trees


@pytest.fixture
def davis(tmp_path):
    root = trees.davis17(tmp_path / "davis")
    shutil.copytree(root / "Annotations" / "480p", tmp_path / "pred")
    return root, tmp_path / "pred"


PROTOCOLS = ["davis", "sav", "vos-benchmark", "vost"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_missing_video_is_named(davis, protocol):
    root, pred = davis
    shutil.rmtree(pred / "vid_b")
    with pytest.raises(DataError, match="1 of 2 videos have no prediction.*vid_b"):
        evaluate(protocol, root, pred)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_missing_frames_are_named(davis, protocol):
    root, pred = davis
    (pred / "vid_a" / "00002.png").unlink()
    (pred / "vid_a" / "00005.png").unlink()
    with pytest.raises(DataError, match=r"2 of 6 frames of video vid_a.*00002\.png, 00005\.png"):
        evaluate(protocol, root, pred)


def test_missing_lvos_frame_is_named(tmp_path):
    trees.lvos(tmp_path)
    shutil.copytree(tmp_path / "val" / "Annotations", tmp_path / "pred")
    (tmp_path / "pred" / "vid_a" / "00000011.png").unlink()
    with pytest.raises(DataError, match=r"vid_a.*00000011\.png"):
        evaluate("lvos", tmp_path, tmp_path / "pred")


def test_missing_object_folder_is_named(tmp_path):
    trees.sav(tmp_path)
    shutil.copytree(tmp_path / "sav_val" / "Annotations_6fps", tmp_path / "pred")
    shutil.rmtree(tmp_path / "pred" / "vid_a" / "001")
    with pytest.raises(DataError, match="vid_a have no prediction.*001"):
        evaluate("sav", tmp_path, tmp_path / "pred")


def test_extra_predicted_video_is_an_error_for_sav_and_left_out_without_strict(davis):
    root, pred = davis
    shutil.copytree(pred / "vid_a", pred / "other")
    with pytest.raises(DataError, match="other"):
        evaluate("sav", root, pred)
    assert len(evaluate("sav", root, pred, strict=False, processes=1).objects) == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_wrong_size_is_named(davis, protocol):
    root, pred = davis
    trees.save_ids(pred / "vid_a" / "00003.png", np.zeros((10, 10), np.uint8))
    with pytest.raises(DataError, match=r"00003\.png is 10x10 pixels, its ground truth .* 48x36"):
        evaluate(protocol, root, pred, processes=1)


def test_rgb_prediction_is_named(davis):
    root, pred = davis
    trees.save_ids(pred / "vid_a" / "00003.png", np.zeros((36, 48), np.uint8), mode="RGB")
    with pytest.raises(DataError, match=r"00003\.png has PNG mode RGB"):
        evaluate("davis", root, pred, processes=1)


def test_corrupt_prediction_is_named(davis):
    root, pred = davis
    path = pred / "vid_a" / "00003.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"00003\.png cannot be read"):
        evaluate("davis", root, pred, processes=1)


def test_three_values_in_an_objects_png_are_named(tmp_path):
    trees.sav(tmp_path)
    shutil.copytree(tmp_path / "sav_val" / "Annotations_6fps", tmp_path / "pred")
    ids = np.zeros((36, 48), np.uint8)
    ids[:2], ids[3:5] = 1, 2
    trees.save_ids(tmp_path / "pred" / "vid_a" / "000" / "00008.png", ids)
    with pytest.raises(DataError, match=r"00008\.png holds 3 values"):
        evaluate("sav", tmp_path, tmp_path / "pred", processes=1)


def test_options_that_a_protocol_does_not_have_are_refused(davis):
    with pytest.raises(DataError, match="protocol davis has no option --non-strict"):
        evaluate("davis", *davis, strict=False)
    with pytest.raises(ConfigError, match="no protocol is called"):
        evaluate("miou", *davis)


def test_nothing_stale_is_read_back(davis):
    root, pred = davis
    assert evaluate("davis", root, pred, processes=1).summary["J-Mean"] == 1.0
    for png in (pred / "vid_b").iterdir():
        trees.save_ids(png, np.zeros((36, 48), np.uint8))
    assert evaluate("davis", root, pred, processes=1).summary["J-Mean"] == 2 / 3


def test_any_number_of_processes_gives_the_same(davis):
    one, two = (evaluate("davis", *davis, processes=n).exact() for n in (1, 2))
    assert one == two


def test_listed_videos_only(davis, tmp_path):
    (tmp_path / "some.txt").write_text("vid_b\n")
    assert [o.video for o in evaluate("davis", *davis, videos=tmp_path / "some.txt", processes=1).objects] == ["vid_b"]
    (tmp_path / "some.txt").write_text("vid_b\nvid_b\n")  # a video counts once
    assert [o.video for o in evaluate("davis", *davis, videos=tmp_path / "some.txt", processes=1).objects] == ["vid_b"]
    with pytest.raises(DataError, match="is no text file"):
        evaluate("davis", *davis, videos=tmp_path)


def test_results_that_cannot_be_written_are_one_sentence(davis, tmp_path, capsys):
    root, pred = davis
    (tmp_path / "out").write_text("mine")
    arguments = ["score", "--protocol", "davis", "--gt", str(root), "--pred", str(pred), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and (tmp_path / "out").read_text() == "mine"


def test_hidden_files_are_no_frames(davis):
    root, pred = davis
    (root / "Annotations" / "480p" / "vid_a" / "._00000.png").write_bytes(b"of some file system")
    assert evaluate("davis", root, pred, processes=1).summary["J-Mean"] == 1.0


def test_files_hold_the_reported_and_exact_figures(davis, tmp_path):
    scores = evaluate("davis", *davis, processes=1)
    score.write(scores, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert content["reported"]["global"]["J&F-Mean"] == 1.0
    assert content["reported"]["per_object"]["vid_a_2"] == {"J-Mean": 1.0, "F-Mean": 1.0}
    assert len(content["exact"]["per_frame"]["vid_a_1"]["J"]) == trees.FRAMES - 2
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert objects[["video", "object"]].to_numpy().tolist() == [["vid_a", 1], ["vid_a", 2], ["vid_b", 1]]
    assert pd.read_csv(tmp_path / "out" / "videos.csv")["objects"].tolist() == [2, 1]
    assert len(pd.read_csv(tmp_path / "out" / "frames.csv")) == 3 * (trees.FRAMES - 2)


def test_command_prints_the_table(davis, capsys):
    root, pred = davis
    assert cli.main(["score", "--protocol", "sav", "--gt", str(root), "--pred", str(pred), "--processes", "1"]) == 0
    out = capsys.readouterr().out
    assert "vid_a 2" in out
    assert "J&F  100.0" in out


def test_command_ends_with_2_and_one_sentence(davis, capsys):
    root, pred = davis
    shutil.rmtree(pred / "vid_b")
    assert cli.main(["score", "--protocol", "sav", "--gt", str(root), "--pred", str(pred)]) == 2
    error = capsys.readouterr().err.strip()
    assert "vid_b" in error
    assert "\n" not in error


@pytest.mark.parametrize("listed", [False, True])
def test_videos_are_named_as_for_a_run(davis, tmp_path, capsys, listed):
    """A,B, or a file with one name per line."""
    root, pred = davis
    (tmp_path / "list.txt").write_text("vid_b\n\n")
    wanted = str(tmp_path / "list.txt") if listed else "vid_b"
    command = ["score", "--protocol", "davis", "--gt", str(root), "--pred", str(pred), "--format", "json"]
    assert cli.main([*command, "--processes", "1", "--videos", wanted]) == 0
    part = json.loads(capsys.readouterr().out)
    assert cli.main([*command, "--processes", "1"]) == 0
    assert part["exact"] != json.loads(capsys.readouterr().out)["exact"]
    scored = evaluate("davis", root, pred, videos=("vid_b",), processes=1)
    assert {entry.video for entry in scored.objects} == {"vid_b"}


@pytest.mark.parametrize(
    ("videos", "says"), [("vid_b,vid_z", "no ground truth in .*vid_z"), ("none.txt", "none.txt does not exist")]
)
def test_videos_that_are_not_there_are_named(davis, capsys, videos, says):
    root, pred = davis
    command = ["score", "--protocol", "davis", "--gt", str(root), "--pred", str(pred), "--videos", videos]
    assert cli.main(command) == 2
    assert re.search(says, capsys.readouterr().err)
