"""Where two passes meet."""

import math

import numpy as np
import pytest

from sam2long.meeting import agreement, meeting, trust


def test_agreement_is_iou_and_two_empty_masks_agree():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert agreement(a, b) == 1
    a[0], b[0, :2] = True, True
    assert agreement(a, b) == 0.5


def test_each_pass_keeps_the_frames_that_it_trusts_more():
    same = [0.9] * 6
    assert meeting([0.9, 0.9, 0.8, 0.3, 0.2, 0.2], [0.1, 0.2, 0.2, 0.7, 0.8, 0.9], same) == 3
    assert meeting([0.9] * 6, [0.5] * 6, same) == 6, "the second one has lost the object from the start"
    assert meeting([0.5] * 6, [0.9] * 6, same) == 0


def test_a_pass_that_has_found_the_object_again_does_not_count_before_that():
    lost_between = [0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.9]
    assert meeting(lost_between, [0.8] * 7, [0.9, 0.9, 0.0, 0.0, 0.0, 0.0, 0.9]) == 2


def test_a_pass_that_would_have_missed_the_other_ones_prompt_is_trusted_less():
    sure = [0.9] * 9
    assert meeting(sure, sure, [0.0, *[0.9] * 8]) == 9, "the correction says that the second one was wrong"
    assert meeting(sure, sure, [*[0.9] * 8, 0.0]) == 0


@pytest.mark.parametrize(("count", "middle"), [(0, 0), (1, 0), (8, 4), (9, 4)])
def test_of_equal_places_the_middle_one_is_taken(count, middle):
    assert meeting([0.7] * count, [0.7] * count, [1.0] * count) == middle


def test_an_empty_mask_is_trusted_whatever_its_predicted_iou():
    assert trust(0.02, -3.0) == trust(0.9, -3.0) > trust(0.9, 3.0) == 0.9
    assert trust(math.nan, 3.0) == 0.5
