"""Which frames a user is sent to."""

import math
from typing import NamedTuple

import pytest

from sam2long import doubt as module
from sam2long.doubt import APART, CLOSE, POOR, UNSURE, doubt, looks, reasons, where_to_look, why, worth

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
    assert doubt("absent", 0.05, 1, math.inf) == doubt("absent", 0.95, 1, math.inf)


def test_every_reason_has_its_words():
    assert reasons("uncertain", 0.9, 1, math.inf) == [UNSURE]
    assert reasons(**SURE, agreement=0.3) == [APART]
    assert reasons(**SURE, agreement=0.9) == []


@pytest.mark.parametrize(
    ("change", "than"),
    [
        ({"iou": 0.3}, {"iou": 0.6}),
        ({"pathways": 2}, {}),
        ({"pathways": 2, "margin": 0.1}, {"pathways": 2, "margin": 2}),
    ],
)
def test_doubt_grows_with_each_sign(change, than):
    assert 0 < doubt(**SURE | than) < doubt(**SURE | change) < 1


def test_a_look_is_worth_what_is_doubtful_around_it_and_not_only_there():
    doubts = dict.fromkeys(range(100), 0.1) | dict.fromkeys(range(60, 75), 0.5) | {10: 1.0}
    values = worth(doubts)
    assert 60 <= max(values, key=values.__getitem__) < 75
    assert values[10] > values[30], "one bad frame counts, too"
    assert all(0 < value < 1 for value in values.values())


def test_worth_is_the_fading_sum_of_the_doubts_up_to_the_prompts():
    doubts = {3: 0.2, 4: 0.4, 6: 0.8, 9: 0.5}
    values = worth(doubts, prompted=[0, 8])
    fade, everything = math.exp(-1 / module.REACH), sum(math.exp(-abs(k) / module.REACH) for k in range(-1000, 1001))
    assert values[4] == pytest.approx((0.4 + 0.2 * fade + 0.8 * fade**2) / everything)
    assert values[9] == pytest.approx(0.5 / everything), "nothing reaches beyond a prompt"
    assert values[0] == values[8] == 0


def test_frames_to_look_at_are_spread_over_what_is_in_doubt():
    doubts = dict.fromkeys(range(200), 0.2) | dict.fromkeys(range(100, 140), 0.6)
    found = where_to_look(doubts, prompted=[0], most=4)
    frames, values = zip(*found, strict=True)
    assert 110 < frames[0] < 130 and list(values) == sorted(values, reverse=True)
    assert min(abs(a - b) for a in frames for b in frames if a != b) > 5 and 0 not in frames
    again = where_to_look(doubts, prompted=[0, frames[0]], most=3)
    assert [frame for frame, _ in again] == list(frames[1:]), "as if the first one had been corrected"


def test_looks_end_where_little_is_left_to_mend():
    doubts = dict.fromkeys(range(1000), 0.05) | dict.fromkeys(range(500, 520), 0.9)
    assert all(490 < frame < 530 for frame, _ in where_to_look(doubts))
    assert len(where_to_look(dict.fromkeys(range(60), 0.2))) < 15, "not nearly every frame of a short video"


def test_where_everything_is_sure_there_is_nothing_to_look_at():
    assert where_to_look(dict.fromkeys(range(50), 0.001)) == [] == where_to_look({})


def test_why_says_what_speaks_against_the_frames_around():
    said = {frame: [] for frame in range(40)} | {12: [POOR], 13: [UNSURE, POOR], 39: [POOR]}
    count = sum(0 < frame < 30 and abs(frame - 12) <= module.REACH for frame in range(40))
    assert why(12, said, prompted=[0, 30]) == [
        f"{UNSURE} on 1 of {count} frames around",
        f"{POOR} on 2 of {count} frames around",
        "29 frames that nobody has looked at",
    ]
    assert why(35, said, prompted=[0, 30])[-1] == "9 frames that nobody has looked at"


class Row(NamedTuple):
    status: str = "visible"
    iou: float = 0.9
    pathways: int = 1
    margin: float = math.inf
    prompted: bool = False
    agreement: float | None = None


def test_looks_are_made_of_what_the_tracker_says():
    rows = {frame: Row() for frame in range(60)} | {frame: Row(iou=0.2, agreement=0.1) for frame in range(40, 50)}
    rows[0] = Row(iou=math.nan, prompted=True)
    first, *others = looks(rows, most=3)
    assert 40 <= first.frame < 50 and len(others) == 2 and first.worth > others[0].worth
    assert first.why[0].startswith(APART) and first.why[1].startswith(POOR)
    assert looks(rows | {first.frame: Row(prompted=True)}, most=1)[0].frame != first.frame
