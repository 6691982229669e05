"""Which frames a user is sent to."""

import math

import pytest

from sam2long.doubt import CLOSE, POOR, UNSURE, doubt, next_stretch, ranked, reasons

SURE = {"status": "visible", "iou": 0.9, "pathways": 1, "margin": 0.01}


def test_a_prompted_frame_is_beyond_doubt():
    assert doubt("visible", math.nan, 1, math.inf, prompted=True) == 0
    assert reasons("uncertain", 0.1, 3, 0.0, prompted=True) == []


def test_one_hypothesis_alive_has_no_rival_however_small_the_margin():
    assert reasons(**SURE) == []
    assert reasons(**SURE | {"pathways": 3}) == [CLOSE]
    assert reasons(**SURE | {"pathways": 3, "margin": 0.5}) == []


def test_the_predicted_iou_of_an_empty_mask_says_nothing():
    assert reasons("absent", 0.05, 1, math.inf) == []
    assert reasons("visible", 0.05, 1, math.inf) == [POOR]
    assert doubt("absent", 0.05, 1, math.inf) == 0


def test_an_uncertain_frame_is_more_doubtful_than_any_certain_one():
    worst_certain = doubt("visible", 0.0, 3, 0.0)
    mildest_uncertain = doubt("uncertain", 1.0, 1, math.inf)
    assert mildest_uncertain >= worst_certain == pytest.approx(0.5)
    assert doubt("uncertain", 0.0, 3, 0.0) == pytest.approx(1.0)
    assert reasons("uncertain", 0.9, 1, math.inf) == [UNSURE]


@pytest.mark.parametrize(
    ("change", "than"),
    [
        ({"iou": 0.3}, {"iou": 0.6}),
        ({"pathways": 2}, {}),
        ({"pathways": 2, "margin": 0.1}, {"pathways": 2, "margin": 2}),
    ],
)
def test_doubt_grows_with_each_sign(change, than):
    assert doubt(**SURE | change) > doubt(**SURE | than)


def test_next_goes_to_where_a_stretch_begins_not_to_the_next_frame_of_this_one():
    doubtful = [4, 5, 6, 20, 21, 40]
    assert [next_stretch(doubtful, at) for at in (0, 4, 5, 19, 21, 40)] == [4, 20, 20, 20, 40, None]
    assert [next_stretch(doubtful, at, backward=True) for at in (50, 40, 21, 5, 4)] == [40, 20, 20, 4, None]


def test_ranking_takes_the_highest_doubt_of_a_frame_and_the_earlier_frame_of_equals():
    assert ranked([(3, 0.2), (9, 0.7), (3, 0.8), (1, 0.7)]) == [3, 1, 9]
