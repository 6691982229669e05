import math

import numpy as np

from eval.metrics import boxes, clips, statistics


def test_recall_counts_frames_above_one_half_only():
    assert statistics.recall([0.5, 0.51, 1.0, 0.0]) == 0.5


def test_a_frame_without_a_number_is_not_recalled_but_not_averaged():
    s = statistics.statistics([1.0, float("nan"), 0.0, 1.0])
    assert (s.mean, s.recall) == (2 / 3, 0.5)


def test_decay_is_first_quarter_minus_last_with_shared_frames():
    # five frames: bins are [0,1], [1,2], [2,3], [3,4]
    assert statistics.decay([1.0, 0.8, 0.6, 0.4, 0.2]) == (1.0 + 0.8) / 2 - (0.4 + 0.2) / 2


def test_decay_of_a_long_video_does_not_wrap_unless_asked_to():
    values = np.linspace(1, 0, 300)
    assert round(statistics.decay(values), 3) == 0.749
    assert math.isnan(statistics.decay_compat(values))
    assert statistics.decay(values[:255]) == statistics.decay_compat(values[:255])


def test_lvos_v_rounds_the_variance_to_four_decimals():
    # J&F of 0.5 +- 0.01: variance 0.0001
    assert statistics.lvos_v([0.49, 0.51], [0.49, 0.51]) == math.sqrt(0.0001)
    assert statistics.lvos_v([0.496, 0.504], [0.496, 0.504]) == 0.0


def test_no_frame_gives_no_number():
    assert all(math.isnan(v) for v in statistics.statistics([]))


def pattern(text):
    return clips.find_clips([c == "e" for c in text])


def test_an_object_that_is_absent_from_the_start_did_not_disappear_but_appears():
    assert pattern("ee..") == ([], [(2, 4)])


def test_every_return_is_a_clip_of_its_own():
    assert pattern("..ee.e") == ([(2, 4), (5, 6)], [(4, 5)])


def test_always_there_or_never_there_has_no_clip():
    assert pattern("....") == ([], []) == pattern("eeee")
    assert clips.clip_mean([0.1, 0.2], []) is None


def test_clip_mean_weighs_clips_equally():
    assert clips.clip_mean([0.0, 1.0, 1.0, 1.0], [(0, 1), (1, 4)]) == 0.5


def test_mask_to_box_has_no_plus_one():
    m = np.zeros((10, 12), bool)
    m[2:5, 3:8] = True
    assert boxes.mask_to_box(m) == (3, 2, 4, 2)
    assert boxes.mask_to_box(np.zeros((4, 4))) == (0, 0, 0, 0)


def test_perfect_boxes_lose_only_the_threshold_of_one():
    gt = np.array([[0, 0, 10, 10]] * 4, float)
    s = boxes.score(gt, gt)
    assert s.success.tolist() == [1.0] * 20 + [0.0]
    assert (s.precision, s.norm_precision, boxes.overlap_rates(s.tracked)[0]) == (1.0, 1.0, 1.0)


def test_a_box_without_area_takes_the_place_of_the_one_before():
    gt = np.array([[0, 0, 10, 10]] * 3, float)
    pred = gt.copy()
    pred[1] = [50, 50, 0, 8]
    assert boxes.score(gt, pred).iou.tolist() == [1.0, 1.0, 1.0]


def test_lost_boxes_are_filled_before_the_first_becomes_the_given_one():
    gt = np.array([[0, 0, 10, 10]] * 4, float)
    pred = np.array([[200, 200, 20, 20], [0, 0, 0, 0], [0, 0, 10, 10], [0, 0, 10, 0]], float)
    assert boxes.score(gt, pred).iou.tolist() == [1.0, 0.0, 1.0, 1.0]
    pred[0] = 0
    assert boxes.score(gt, pred).iou.tolist() == [1.0, 0.0, 1.0, 1.0]


def test_normalised_precision_divides_before_it_subtracts():
    gt, pred = np.array([[4, 5, 10, 10]] * 2, float), np.array([[4, 5, 10, 10], [6, 5, 10, 10]], float)
    assert boxes.score(gt, pred).norm_precision == 0.5  # 0.2000...07 in the tools, although 2 of 10 pixels are 0.2


def test_in_normalised_precision_ground_truth_without_area_is_a_hit_unless_it_is_called_hidden():
    gt = np.array([[0, 0, 20, 20], [0, 0, 0, 0], [0, 0, 20, 20]], float)
    s = boxes.score(gt, gt)
    assert (s.norm_precision, s.precision) == (1.0, 2 / 3)
    assert boxes.score(gt, gt, visible=np.array([True, False, True])).norm_precision == 2 / 3


def test_frames_without_a_target_count_as_missed():
    gt = np.array([[0, 0, 10, 10], [0, 0, 0, 0], [0, 0, 10, 10], [0, 0, 10, 10]], float)
    s = boxes.score(gt, np.array([[0, 0, 10, 10]] * 4, float), visible=np.array([True, True, False, True]))
    assert s.iou.tolist() == [1.0, -1.0, -1.0, 1.0]
    assert s.success[0] == 0.5
    assert s.precision == 0.5


def test_shifted_box_by_hand():
    gt = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], float)
    pred = np.array([[0, 0, 10, 10], [5, 0, 10, 10]], float)
    s = boxes.score(gt, pred)
    assert s.iou[1] == 50 / 150
    assert s.norm_precision == 0.5  # off by half its width
    assert s.precision == 1.0  # but by 5 pixels only
