"""The documented edge cases of each protocol, on masks written out by hand."""

import json
import math
import shutil

import numpy as np
import pytest

from eval.score import evaluate
from sam2long.errors import DataError
from tests.eval import trees

SHAPE = (12, 16)


def rect(y0, y1, x0, x1, obj=1):
    ids = np.zeros(SHAPE, np.uint8)
    ids[y0:y1, x0:x1] = obj
    return ids


A, B = rect(2, 6, 2, 8), rect(7, 11, 2, 8, obj=2)
NOTHING = np.zeros(SHAPE, np.uint8)


@pytest.fixture
def score(tmp_path):
    """Score one video of id maps; `score(protocol, gt, pred, **options)`."""

    def run(protocol, gt, pred, **options):
        for name, maps in (("gt", gt), ("pred", pred)):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            trees.write_sequence(tmp_path / name / "clip", maps)
        return evaluate(protocol, tmp_path / "gt", tmp_path / "pred", processes=1, **options)

    return run


def values(scores):
    return {o.obj: o.values for o in scores.objects}


def frames(scores, obj="1", measure="J"):
    return next(o for o in scores.objects if o.obj == obj).per_frame[measure]


# an object that is only in the first frame


def test_davis_gives_100_to_an_object_seen_only_in_the_first_frame_if_nothing_is_predicted(score):
    gt = [A + B] + [A] * 4
    v = values(score("davis", gt, gt))
    assert (v["2"]["J-Mean"], v["2"]["F-Mean"]) == (1.0, 1.0)


def test_davis_gives_0_to_an_object_seen_only_in_the_first_frame_if_anything_is_predicted(score):
    gt, pred = [A + B] + [A] * 4, [A + B] * 5
    v = values(score("davis", gt, pred))
    assert (v["2"]["J-Mean"], v["2"]["F-Mean"]) == (0.0, 0.0)


@pytest.mark.parametrize("protocol", ["sav", "vos-benchmark"])
def test_sav_drops_an_object_seen_only_in_the_first_frame(score, protocol):
    gt = [A + B] + [A] * 4
    assert set(values(score(protocol, gt, [A + B] * 5))) == {"1"}


def test_sav_with_per_object_pngs_refuses_an_object_never_seen_in_scored_frames(tmp_path):
    for root in ("gt", "pred"):
        trees.write_sequence(tmp_path / root / "clip" / "000", [A] * 5)
        trees.write_sequence(tmp_path / root / "clip" / "001", [A] + [NOTHING] * 4)
    with pytest.raises(DataError, match="clip/001"):
        evaluate("sav", tmp_path / "gt", tmp_path / "pred", processes=1)
    assert set(values(evaluate("sav", tmp_path / "gt", tmp_path / "pred", strict=False, processes=1))) == {"000"}
    assert set(values(evaluate("sav", tmp_path / "gt", tmp_path / "pred", skip_first_and_last=False, processes=1))) == {
        "000",
        "001",
    }


# late objects


def test_davis_stops_at_a_predicted_id_above_those_of_the_first_frame(score):
    gt = [A, A, A + B, A + B, A + B, A + B]
    with pytest.raises(DataError, match="00002.png holds id 2, above the highest id 1"):
        score("davis", gt, gt)


def test_davis_ignores_a_late_object_that_is_not_predicted(score):
    gt = [A, A, A + B, A + B, A + B, A + B]
    v = values(score("davis", gt, [A] * 6))
    assert set(v) == {"1"}
    assert v["1"]["J-Mean"] == 1.0


def test_sav_scores_a_late_object_from_its_first_frame_on_prompt_frame_included(score):
    gt = [A, A, A, A + B, A + B, A + B, A + B]
    pred = [A, A, A, A, A + B, A + B, A + B]
    scores = score("sav", gt, pred)
    assert frames(scores, "2") == [0.0, 1.0, 1.0]
    assert frames(scores, "1") == [1.0] * 5


def test_sav_starts_an_object_earlier_where_it_is_predicted_too_early(score):
    gt = [A, A, A, A + B, A + B, A + B, A + B]
    pred = [A, A + B, A, A + B, A + B, A + B, A + B]
    assert frames(score("sav", gt, pred), "2") == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_hidden_object_scores_every_frame_in_davis_and_from_its_return_in_sav(score):
    gt = [A + B, A, A, A, A + B, A + B]
    late = [A + B, A, A, A, A, A + B]  # misses the return by a frame
    assert frames(score("davis", gt, late), "2") == [1.0, 1.0, 1.0, 0.0]
    assert frames(score("sav", gt, late), "2") == [0.0]


# ids


def test_davis_fills_gaps_between_ids_with_phantoms_that_score_100(score):
    gt = [np.where(A + B == 2, 5, A + B).astype(np.uint8)] * 5
    v = values(score("davis", gt, gt))
    assert list(v) == ["1", "2", "3", "4", "5"]
    scores = score("davis", gt, [NOTHING] * 5)
    assert [o.values["J-Mean"] for o in scores.objects] == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_sav_takes_ids_as_they_are(score):
    gt = [np.where(A + B == 2, 5, A + B).astype(np.uint8)] * 5
    assert set(values(score("sav", gt, gt))) == {"1", "5"}


def test_sav_ignores_extra_predicted_ids_but_for_the_pixels_they_take(score):
    pred = A.copy()
    pred[2:6, 2:5] = 9
    scores = score("sav", [A] * 5, [pred] * 5)
    assert set(values(scores)) == {"1"}
    assert values(scores)["1"]["J"] == 50.0


def test_vost_cuts_extra_predicted_ids_off_and_says_so(score):
    gt = [A] * 6
    scores = score("vost", gt, [A] + [np.maximum(A, rect(8, 10, 2, 4, 255))] * 5)
    assert values(scores)["1"]["J-Mean"] == 1.0
    assert "255" in scores.notes[0]


# 255


def void_frames():
    gt = np.maximum(A, rect(8, 12, 0, 16, 255))
    pred = A.copy()
    pred[8:12] = 1  # 64 pixels on void
    return [gt] * 5, [pred] * 5


@pytest.mark.parametrize("protocol", ["davis", "vost"])
def test_davis_and_vost_count_255_as_background(score, protocol):
    gt, pred = void_frames()
    scores = score(protocol, gt, pred)
    assert set(values(scores)) == {"1"}
    assert frames(scores) == [24 / 88] * 3


def test_sav_counts_255_as_an_object_unless_told_otherwise(score):
    gt, pred = void_frames()
    assert values(score("sav", gt, pred))["255"]["J&F"] == 0.0
    assert set(values(score("sav", gt, pred, gt255_to_0=True))) == {"1"}


def test_davis_stops_at_a_predicted_255(score):
    gt, _ = void_frames()
    with pytest.raises(DataError, match="id 255"):
        score("davis", gt, gt)


# full frames and empty frames


@pytest.mark.parametrize("protocol", ["davis", "sav", "vos-benchmark"])
def test_full_frame_prediction_of_an_absent_object_has_f_1_and_j_0(score, protocol):
    gt = [A + B, A + B, NOTHING, A + B, A + B]
    pred = [A + B, A + B, np.full(SHAPE, 2, np.uint8), A + B, A + B]
    scores = score(protocol, gt, pred)
    assert frames(scores, "2", "J") == [1.0, 0.0, 1.0]
    assert frames(scores, "2", "F") == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("protocol", ["davis", "sav", "vos-benchmark"])
def test_absent_and_not_predicted_is_right(score, protocol):
    gt = [A, A, NOTHING, A, A]
    assert frames(score(protocol, gt, gt)) == [1.0, 1.0, 1.0]


def test_davis_first_frame_without_objects_contributes_nothing_and_any_prediction_stops(tmp_path):
    for root in ("gt", "pred"):
        trees.write_sequence(tmp_path / root / "full", [A] * 4)
        trees.write_sequence(tmp_path / root / "none", [NOTHING] * 4)
    assert len(evaluate("davis", tmp_path / "gt", tmp_path / "pred", processes=1).objects) == 1
    trees.save_ids(tmp_path / "pred" / "none" / "00001.png", A)
    with pytest.raises(DataError, match="above the highest id 0"):
        evaluate("davis", tmp_path / "gt", tmp_path / "pred", processes=1)


# which frames


def test_davis_and_sav_never_read_the_first_and_last_prediction(score, tmp_path):
    gt = [A] * 5
    for protocol in ("davis", "sav", "vos-benchmark"):
        score(protocol, gt, gt)
        for name in ("00000.png", "00004.png"):
            (tmp_path / "pred" / "clip" / name).unlink()
        assert len(frames(evaluate(protocol, tmp_path / "gt", tmp_path / "pred", processes=1))) == 3


def test_all_frames_scores_the_first_and_last_too(score):
    gt = [A] * 5
    pred = [NOTHING] + [A] * 4
    assert frames(score("sav", gt, pred, skip_first_and_last=False)) == [0.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("protocol", ["davis", "sav", "vost"])
def test_bilevel_pngs_hold_ids_0_and_1(tmp_path, protocol):
    trees.write_sequence(tmp_path / "gt" / "clip", [A] * 5)
    trees.write_sequence(tmp_path / "pred" / "clip", [A] * 5, mode="1")
    scores = evaluate(protocol, tmp_path / "gt", tmp_path / "pred", processes=1)
    assert scores.summary["J" if protocol == "sav" else "J-Mean"] in (1.0, 100.0) and not scores.notes


def test_vost_scores_masks_without_an_image_too(tmp_path):
    trees.vost(tmp_path)
    shutil.copytree(tmp_path / "Annotations", tmp_path / "pred")
    (tmp_path / "JPEGImages" / "vid_b" / "frame00042.jpg").unlink()
    trees.save_ids(tmp_path / "pred" / "vid_b" / "frame00042.png", np.zeros((trees.H, trees.W), np.uint8))
    scores = evaluate("vost", tmp_path, tmp_path / "pred", processes=1)
    assert values(scores)["1"]["J-Mean"] == pytest.approx(5 / 6)
    (tmp_path / "JPEGImages" / "vid_b" / "frame99999.jpg").touch()  # without a mask: not one of its frames
    assert evaluate("vost", tmp_path, tmp_path / "pred", processes=1).summary == scores.summary


def test_davis_names_images_whose_ground_truth_is_gone(tmp_path):
    trees.davis17(tmp_path)
    shutil.copytree(tmp_path / "Annotations" / "480p", tmp_path / "pred")
    (tmp_path / "Annotations" / "480p" / "vid_a" / "00005.png").unlink()
    with pytest.raises(DataError, match=r"vid_a have an image and no ground truth .*00005\.png"):
        evaluate("davis", tmp_path, tmp_path / "pred")


def test_vost_j_last_is_the_last_quarter(score):
    gt = [A] * 10  # 8 scored: the last quarter is frames 6 and 7 of them
    pred = [A] * 7 + [NOTHING] * 3
    assert values(score("vost", gt, pred))["1"]["J_last-Mean"] == 0.0
    pred[7] = A
    assert values(score("vost", gt, pred))["1"]["J_last-Mean"] == 0.5


def test_sav_frames_are_of_each_objects_own_folder(tmp_path):
    trees.write_sequence(tmp_path / "gt" / "clip" / "000", [A] * 6)
    trees.write_sequence(tmp_path / "pred" / "clip" / "000", [A] * 6)
    for t in range(3, 6):  # 001's own first and last annotated frame are skipped
        trees.save_ids(tmp_path / "gt" / "clip" / "001" / f"{t:05d}.png", A)
    trees.save_ids(tmp_path / "pred" / "clip" / "001" / "00004.png", A)
    scores = evaluate("sav", tmp_path / "gt", tmp_path / "pred", processes=1)
    assert [len(o.per_frame["J"]) for o in scores.objects] == [4, 1]


def test_davis2016_takes_any_value_above_0_for_the_object(tmp_path):
    trees.write_sequence(tmp_path / "gt" / "clip", [A * 255] * 4, mode="L")
    trees.write_sequence(tmp_path / "pred" / "clip", [A] * 4)
    assert evaluate("davis2016", tmp_path / "gt", tmp_path / "pred").summary["J&F-Mean"] == 1.0


def test_objects_of_long_and_short_videos_weigh_the_same(tmp_path):
    for video, count, good in (("long", 20, True), ("short", 4, False)):
        trees.write_sequence(tmp_path / "gt" / video, [A] * count)
        trees.write_sequence(tmp_path / "pred" / video, [A if good else NOTHING] * count)
    assert evaluate("davis", tmp_path / "gt", tmp_path / "pred", processes=1).summary["J-Mean"] == 0.5
    assert evaluate("sav", tmp_path / "gt", tmp_path / "pred", processes=1).summary["J"] == 50.0


# LVOS


@pytest.fixture
def lvos(tmp_path):
    trees.lvos(tmp_path)
    gt = tmp_path / "val"
    shutil.copytree(gt / "Annotations", tmp_path / "pred")
    return gt, tmp_path / "pred", json.loads((gt / "valid_meta.json").read_text())


def test_lvos_skips_the_first_and_last_frame_of_each_objects_range(lvos):
    gt, pred, _ = lvos
    lengths = {o.key: len(o.per_frame["J"]) for o in evaluate("lvos", gt, pred, processes=1).objects}
    assert lengths == {"vid_a_1": 6, "vid_a_2": 3, "vid_b_1": 6}
    lengths = {o.key: len(o.per_frame["J"]) for o in evaluate("lvos-2023", gt, pred, processes=1).objects}
    assert lengths == {"vid_a_1": 8, "vid_a_2": 5, "vid_b_1": 8}


def test_lvos_averages_seen_and_unseen_apart(lvos):
    gt, pred, _ = lvos
    for png in (pred / "vid_b").iterdir():
        trees.save_ids(png, np.zeros((trees.H, trees.W), np.uint8))
    s = evaluate("lvos", gt, pred, processes=1).summary
    assert (s["J-seen-Mean"], s["J-unseen-Mean"], s["J-Mean"], s["J&F-Mean"]) == (1.0, 0.0, 0.5, 0.5)


def test_lvos_keeps_zeros_where_frame_nums_exceeds_the_range(lvos):
    gt, pred, meta = lvos
    meta["videos"]["vid_b"]["objects"]["2"]["frame_range"]["frame_nums"] = trees.FRAMES + 2
    (gt / "valid_meta.json").write_text(json.dumps(meta))
    scores = evaluate("lvos", gt, pred, processes=1)
    assert frames(next_video(scores, "vid_b"), "2") == [1.0] * 7 + [0.0]
    assert "zeros" in scores.notes[0]


def next_video(scores, video):
    return type("Some", (), {"objects": [o for o in scores.objects if o.video == video]})


def test_lvos_range_longer_than_frame_nums_is_an_error(lvos):
    gt, pred, meta = lvos
    meta["videos"]["vid_b"]["objects"]["2"]["frame_range"]["frame_nums"] = "3"
    (gt / "valid_meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="frame_nums is 3"):
        evaluate("lvos", gt, pred)


def test_lvos_inclusive_and_exclusive_end_score_the_same_frames(lvos):
    gt, pred, meta = lvos
    exclusive = evaluate("lvos", gt, pred, processes=1).exact()
    r = meta["videos"]["vid_a"]["objects"]["1"]["frame_range"]
    r["end"] = int(r["end"]) - 5 + 0  # the last frame's number instead of one step beyond
    (gt / "valid_meta.json").write_text(json.dumps(meta))
    assert evaluate("lvos", gt, pred, processes=1).exact() == exclusive


def test_lvos_without_unseen_videos_has_no_overall_mean_and_says_so(lvos, tmp_path):
    gt, pred, _ = lvos
    (gt / "unseen_videos.txt").unlink()
    scores = evaluate("lvos", gt, pred, processes=1)  # the official list names neither video
    assert math.isnan(scores.summary["J&F-Mean"])
    assert scores.summary["J-seen-Mean"] == 1.0
    assert "no unseen video" in scores.notes[0]


# MOSEv2


@pytest.fixture
def mose(tmp_path):
    trees.mose2(tmp_path)
    gt = tmp_path / "valid"
    shutil.copytree(gt / "Annotations", tmp_path / "pred")
    return gt, tmp_path / "pred"


def test_mosev2_perfect_predictions(mose):
    assert evaluate("mosev2", *mose, processes=1).summary["J"] == 100.0


def test_mosev2_missing_frame_is_named_and_does_not_move_the_window(mose):
    gt, pred = mose
    (pred / "vid_a" / "00003.png").unlink()
    with pytest.raises(DataError, match=r"vid_a.*00003\.png"):
        evaluate("mosev2", gt, pred)


def test_mosev2_missing_last_frame_changes_nothing(mose):
    gt, pred = mose
    (pred / "vid_a" / "00007.png").unlink()
    assert evaluate("mosev2", gt, pred, processes=1).summary["J"] == 100.0


def test_mosev2_extra_frame_in_between_is_named(mose):
    gt, pred = mose
    trees.save_ids(pred / "vid_a" / "3.png", A)
    with pytest.raises(DataError, match="vid_a.*3.png"):
        evaluate("mosev2", gt, pred)


def test_mosev2_missing_video_is_an_error_or_scores_0(mose):
    gt, pred = mose
    shutil.rmtree(pred / "vid_b")
    with pytest.raises(DataError, match="vid_b"):
        evaluate("mosev2", gt, pred)
    scores = evaluate("mosev2", gt, pred, strict=False, processes=1)
    assert scores.summary["J"] == pytest.approx(200 / 3)
    assert scores.notes[0].startswith("NOT STRICT")


def test_mosev2_one_video_in_one_folder_is_not_taken_for_a_wrapping_folder(mose):
    gt, pred = mose
    meta = json.loads((gt / "meta.json").read_text())
    del meta["videos"]["vid_a"]
    (gt / "meta.json").write_text(json.dumps(meta))
    shutil.rmtree(pred / "vid_a")
    with pytest.raises(DataError, match="does not list: vid_a"):
        evaluate("mosev2", gt, pred)
    shutil.rmtree(gt / "Annotations" / "vid_a")
    assert evaluate("mosev2", gt, pred, processes=1).summary["J"] == 100.0


@pytest.mark.parametrize(
    ("entry", "says"),
    [({"objects": [0]}, "names no objects of video vid_a"), ({"length": "five"}, "vid_a.*says length five")],
)
def test_mosev2_meta_that_makes_no_sense_is_named(mose, entry, says):
    gt, pred = mose
    meta = json.loads((gt / "meta.json").read_text())
    meta["videos"]["vid_a"] |= entry
    (gt / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=says):
        evaluate("mosev2", gt, pred)


def test_a_folder_around_the_videos_is_fine(mose, tmp_path):
    gt, pred = mose
    (tmp_path / "out").mkdir()
    shutil.move(pred, tmp_path / "out" / "anything")
    assert evaluate("mosev2", gt, tmp_path / "out", processes=1).summary["J"] == 100.0


def test_mosev2_without_any_disappearance_has_no_clip_score(mose):
    s = evaluate("mosev2", *mose, processes=1).summary
    assert math.isnan(s["disappear_J&F_new"])


def test_mosev2_length_of_the_meta_file_must_be_that_of_the_ground_truth(mose):
    gt, pred = mose
    meta = json.loads((gt / "meta.json").read_text())
    meta["videos"]["vid_a"]["length"] = 7
    (gt / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="length 7"):
        evaluate("mosev2", gt, pred)


# boxes


def test_box_protocol_on_files_and_on_masks(tmp_path):
    (tmp_path / "gt" / "car").mkdir(parents=True)
    (tmp_path / "gt" / "car" / "groundtruth.txt").write_text("2,2,5,3\n2,2,5,3\n2,2,5,3\n")
    (tmp_path / "pred").mkdir()
    (tmp_path / "pred" / "car.txt").write_text("2\t2\t5\t3\n2 2 5 3\n2,2,5,3\n")
    by_file = evaluate("box", tmp_path / "gt", tmp_path / "pred")
    assert (by_file.summary["P"], by_file.summary["AO"]) == (100.0, 100.0)
    assert round(by_file.summary["AUC"], 3) == round(100 * 20 / 21, 3)
    trees.write_sequence(tmp_path / "masks" / "car", [A] * 3)  # the same box: columns 2..7, rows 2..5
    assert evaluate("box", tmp_path / "gt", tmp_path / "masks").summary == by_file.summary


def test_box_frames_must_match(tmp_path):
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "car.txt").write_text("2,2,5,3\n2,2,5,3\n")
    (tmp_path / "pred").mkdir()
    (tmp_path / "pred" / "car.txt").write_text("2,2,5,3\n")
    with pytest.raises(DataError, match="1 predicted boxes, its ground truth 2"):
        evaluate("box", tmp_path / "gt", tmp_path / "pred")


def write_boxes(folder, **videos):
    for name, rows in videos.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "groundtruth.txt").write_text("\n".join(",".join(map(str, row)) for row in rows))


def test_overlap_rates_of_boxes_pool_the_frames_of_all_videos(tmp_path):
    here, away = [0, 0, 10, 10], [50, 50, 10, 10]
    write_boxes(tmp_path / "gt", a=[here] * 3, b=[here] * 11)
    write_boxes(tmp_path / "pred", a=[here] * 3, b=[here] + [away] * 10)
    scores = evaluate("box", tmp_path / "gt", tmp_path / "pred")
    assert scores.summary["AO"] == pytest.approx(100 * 2 / 12) and scores.summary["SR50"] == scores.summary["AO"]
    assert [o.values["AO"] for o in scores.objects] == [100.0, 0.0]


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda d: write_boxes(d / "pred", a=[[0, 0, 10, 10], [0, 0, -1, 5]]), "negative sizes"),
        (lambda d: write_boxes(d / "pred", a=[[0, 0, 10, 10], ["nan"] * 4]), "no numbers"),
        (lambda d: (d / "gt" / "b").mkdir(), "without groundtruth.txt: b"),
        (lambda d: (d / "gt" / "a" / "full_occlusion.txt").write_text("0,x"), "expected 0 or 1"),
        (lambda d: (d / "pred" / "a" / "groundtruth.txt").write_bytes(b"\xff\xfe\xff"), "no text file"),
    ],
)
def test_boxes_that_cannot_be_scored_are_named(tmp_path, break_it, says):
    for folder in ("gt", "pred"):
        write_boxes(tmp_path / folder, a=[[0, 0, 10, 10]] * 2)
    break_it(tmp_path)
    with pytest.raises(DataError, match=says):
        evaluate("box", tmp_path / "gt", tmp_path / "pred")


def test_lvos_object_ids_are_numbers(lvos):
    gt, pred, meta = lvos
    meta["videos"]["vid_a"]["objects"]["x"] = meta["videos"]["vid_a"]["objects"]["1"]
    (gt / "valid_meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="vid_a, has an object 'x'"):
        evaluate("lvos", gt, pred)
