"""Which frames a user is sent to, and what is said of them."""

import math
from typing import NamedTuple

from sam2long.doubt import APART, CLOSE, POOR, UNSURE, looks, reasons

SURE = {"status": "visible", "iou": 0.9, "pathways": 1, "margin": 0.01}


class Row(NamedTuple):
    status: str = "visible"
    iou: float = 0.9
    pathways: int = 1
    margin: float = math.inf
    prompted: bool = False
    agreement: float | None = None


PROMPTED = Row(iou=math.nan, prompted=True)


def test_nothing_speaks_against_a_prompted_frame():
    assert reasons("uncertain", 0.1, 3, 0.0, prompted=True, agreement=0.1) == []


def test_one_hypothesis_alive_has_no_rival_however_small_the_margin():
    assert reasons(**SURE) == []
    assert reasons(**SURE | {"pathways": 3}) == [CLOSE]
    assert reasons(**SURE | {"pathways": 3, "margin": 0.5}) == []


def test_the_predicted_iou_of_an_empty_mask_says_nothing():
    assert reasons("absent", 0.05, 1, math.inf) == []
    assert reasons("visible", 0.05, 1, math.inf) == [POOR]


def test_every_reason_has_its_words():
    assert reasons("uncertain", 0.9, 1, math.inf) == [UNSURE]
    assert reasons(**SURE, agreement=0.3) == [APART]
    assert reasons(**SURE, agreement=0.9) == []


def test_looks_halve_the_longest_stretch_that_nobody_has_looked_at():
    rows = {frame: Row() for frame in range(101)} | {0: PROMPTED, 20: PROMPTED}
    found = looks(rows, most=4)
    assert [(look.frame, look.stretch) for look in found] == [(61, 80), (41, 40), (81, 39), (31, 20)]
    rows[61] = PROMPTED
    assert [look.frame for look in looks(rows, most=3)] == [41, 81, 31], "as if the first one had been looked at"


def test_a_look_says_what_speaks_against_the_mask_and_how_long_nobody_has_looked():
    rows = {0: PROMPTED} | {frame: Row(iou=0.2, agreement=0.1) for frame in range(1, 12)}
    assert looks(rows)[0].why == [APART, POOR, "the middle of 11 frames that nobody has looked at"]


def test_a_frame_with_the_object_is_preferred_to_one_without():
    rows = {0: PROMPTED} | {frame: Row(status="absent" if 4 < frame < 18 else "visible") for frame in range(1, 20)}
    assert looks(rows, most=1)[0].frame in (4, 18)
    rows = {0: PROMPTED} | {frame: Row(status="absent") for frame in range(1, 20)}
    assert looks(rows, most=1)[0].frame == 10


def test_where_every_few_frames_have_been_looked_at_there_is_no_more_to_look_at():
    assert looks({frame: PROMPTED if frame % 5 == 0 else Row() for frame in range(50)}) == [] == looks({})
