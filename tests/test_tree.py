import math

import pytest

from sam2long.method.tree import (
    Candidate,
    Decision,
    Verdict,
    decide,
    expand,
    is_certain,
    keep,
    keep_distinct,
    margin,
    settled,
)


def candidate(parent, mask, score, signed_iou):
    return Candidate(parent=parent, mask=mask, score=score, signed_iou=signed_iou)


def names(candidates):
    return [(c.parent, c.mask) for c in candidates]


def test_candidates_are_ranked_by_cumulative_log_iou():
    ranked = expand([0.0, -0.5], [Verdict((0.5, 0.9), 5.0), Verdict((0.99, 0.1), 5.0)])
    assert names(ranked) == [(0, 1), (1, 0), (0, 0), (1, 1)]
    assert ranked[0].score == pytest.approx(math.log(0.9 + 1e-5))
    assert ranked[1].score == pytest.approx(-0.5 + math.log(0.99 + 1e-5))


def test_equal_scores_keep_the_order_of_pathway_and_mask():
    assert names(expand([0.0, 0.0], [Verdict((0.5, 0.5), 1.0)] * 2)) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_an_iou_of_zero_or_less_has_a_finite_score():
    low, lower = expand([0.0], [Verdict((0.0, -0.2), 1.0)])
    assert low.score == lower.score == pytest.approx(math.log(1e-5))


def test_absence_makes_the_iou_negative_at_and_below_zero():
    assert [c.signed_iou for c in expand([0.0], [Verdict((0.8,), 0.0)])] == [-0.8]
    assert [c.signed_iou for c in expand([0.0], [Verdict((0.8,), 0.1)])] == [0.8]


@pytest.mark.parametrize(("logits", "certain"), [([2.0, -2.0], False), ([0.1, 2.1], True), ([0.1, -2.1], True)])
def test_one_sure_pathway_makes_a_frame_certain(logits, certain):
    assert is_certain(logits, 2.0) is certain


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_certain_frame_keeps_the_best_twins_or_not(width):
    ranked = [
        candidate(0, 0, -0.1, 0.9),
        candidate(1, 0, -0.1, 0.9),
        candidate(2, 0, -0.1, 0.9),
        candidate(0, 1, -1, 0.4),
    ]
    assert keep(ranked, width, certain=True) == ranked[:width]


def test_twin_masks_do_not_fill_every_pathway():
    twins = [candidate(0, 0, -0.1, 0.901), candidate(1, 0, -0.2, 0.904)]
    other = candidate(0, 2, -0.9, 0.400)
    assert keep_distinct([*twins, other], width=2) == [twins[0], other]


def test_present_and_absent_with_the_same_iou_are_different():
    here, gone = candidate(0, 0, -0.1, 0.9), candidate(1, 0, -0.2, -0.9)
    assert keep_distinct([here, gone], width=2) == [here, gone]


def test_iou_of_zero_is_the_same_present_or_absent():
    here, gone, other = candidate(0, 0, -1, 0.001), candidate(0, 1, -2, -0.001), candidate(0, 2, -3, 0.3)
    assert keep_distinct([here, gone, other], width=2) == [here, other]


def test_childless_pathways_fill_up_with_their_best_candidate():
    # All nine round to one value: one is distinct, the other pathways each give their best.
    ranked = [candidate(parent, mask, -parent - mask / 10, 0.5) for parent in (1, 0, 2) for mask in range(3)]
    ranked.sort(key=lambda c: -c.score)
    assert names(keep_distinct(ranked, width=3)) == [(0, 0), (1, 0), (2, 0)]


def test_filling_up_goes_in_the_order_of_the_pathways_not_of_the_scores():
    ranked = [candidate(1, 0, -0.1, 0.5), candidate(2, 0, -0.2, 0.5), candidate(0, 0, -0.3, 0.5)]
    assert names(keep_distinct(ranked, width=2)) == [(1, 0), (0, 0)]


def test_filling_up_may_leave_fewer_than_asked_for():
    ranked = [candidate(0, 0, -0.1, 0.5), candidate(0, 1, -0.2, 0.5)]
    assert names(keep_distinct(ranked, width=3)) == [(0, 0)]


def test_distinct_masks_come_in_the_order_of_their_scores():
    ranked = [
        candidate(0, 0, -0.1, 0.9),
        candidate(0, 1, -0.2, 0.8),
        candidate(1, 0, -0.3, 0.7),
        candidate(1, 1, -0.4, 0.6),
    ]
    assert keep_distinct(ranked, width=3) == ranked[:3]


def test_the_margin_ignores_twins():
    ranked = [candidate(0, 0, -0.1, 0.9), candidate(1, 0, -0.1, 0.9), candidate(0, 1, -0.7, 0.5)]
    assert margin(ranked, ranked[:2], rows=[5, 5]) == pytest.approx(0.6)
    assert margin(ranked, ranked[:2], rows=[5, 6]) == 0.0
    assert margin(ranked[:1], ranked[:1], rows=[5]) == math.inf


def test_frames_settle_as_far_as_all_pathways_agree():
    assert settled([(1, 2, 3), (1, 2, 4)]) == 2
    assert settled([(1, 2, 3), (5, 2, 3)]) == 0
    assert settled([(1, 2)]) == 2
    assert settled([(), ()]) == 0


def test_the_lag_bounds_the_wait():
    parted = [(1, 2, 3, 4), (5, 6, 7, 8)]
    assert settled(parted, max_lag=2) == 2
    assert settled(parted, max_lag=0) == 4
    assert settled(parted, max_lag=9) == 0
    assert settled(parted, max_lag=None) == 0
    assert settled([(1, 2, 3), (1, 2, 4)], max_lag=2) == 2


RULES = {"width": 3, "certain_above": 2.0}
SURE = Verdict((0.5, 0.9, 0.7), 8.0)


def test_the_reference_starts_as_copies_of_the_best_mask_scored_from_the_next_frame_on():
    decision = decide([0.0], [0], [SURE], at_root=True, **RULES)
    assert decision.kept == (Candidate(parent=0, mask=1, score=0.0, signed_iou=0.9),) * 3
    assert decision.unique() == [decision.kept[0]] and decision.certain and decision.margin == math.inf


def test_copies_are_ranked_like_any_others_while_the_frame_is_certain():
    decision = decide([-1.0, -1.0, -1.0], [0, 0, 0], [SURE], **RULES)
    assert [(kept.parent, kept.mask) for kept in decision.kept] == [(0, 1)] * 3
    assert decision.margin == pytest.approx(math.log(0.9 / 0.7), abs=1e-4)


@pytest.mark.parametrize("at_root", [True, False])
def test_merged_twins_are_one_pathway(at_root):
    scores, rows = ([0.0], [0]) if at_root else ([-1.0, -1.0, -2.0], [0, 0, 1])
    decision = decide(scores, rows, [SURE, SURE], at_root=at_root, twins="merge", **RULES)
    assert [(kept.parent, kept.mask) for kept in decision.kept] == [(0, 1), (0, 2), (0, 0)]


def test_what_is_kept_names_its_row():
    unsure = [Verdict((0.9, 0.3), 0.1), Verdict((0.8, 0.2), -0.1)]
    decision = decide([-1.0, -1.0, -1.5], [0, 0, 1], unsure, **RULES)
    assert [(kept.parent, kept.mask) for kept in decision.kept] == [(0, 0), (1, 0), (0, 1)] and not decision.certain


def test_twins_count_once_in_the_order_of_the_best():
    a, b = candidate(0, 0, -0.1, 0.9), candidate(1, 0, -0.2, 0.8)
    assert Decision((a, b, a), 0.0, True).unique() == [a, b]
