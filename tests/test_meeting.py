"""Where two passes meet."""

import numpy as np

from sam2long.meeting import agreement, meeting


def test_agreement_is_iou_and_two_empty_masks_agree():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert agreement(a, b) == 1
    a[0], b[0, :2] = True, True
    assert agreement(a, b) == 0.5


def test_passes_meet_where_they_agree_best():
    assert meeting([0.1, 0.1, 0.1, 0.1, 0.2, 0.8, 0.9, 0.8, 0.2]) in range(5, 9)
    assert meeting([0.0] * 3 + [0.9] * 3 + [0.0] * 10) in range(3, 7), "one of those frames is the last or the first"


def test_of_equal_places_the_middle_one_is_taken():
    assert meeting([1.0] * 10) == 5 and meeting([0.0] * 9) == 4
    assert meeting([]) == 0 and meeting([0.3]) in (0, 1)


def test_one_frame_that_agrees_by_chance_does_not_count():
    agreements = [0.1] * 20
    agreements[2] = 0.95
    agreements[13:18] = [0.8] * 5
    assert 14 <= meeting(agreements) <= 17
