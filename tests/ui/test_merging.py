"""Two passes over the same frames: which masks stay, and what is said to have changed."""

from __future__ import annotations

import numpy as np
import pytest

from sam2long.export.masks import encode_mask
from sam2long.ui.merging import Changes, Known, Merge, overlap, together
from sam2long.ui.store import Row
from tests.ui.test_annotator import masks_of, prompted, track


def square(x):
    mask = np.zeros((12, 30), bool)
    mask[2:8, x : x + 6] = True
    return encode_mask(mask)


def known(x, iou=0.9, **row):
    return Known(square(x), Row(iou=iou, object_logit=5.0, **row))


def backward(merge, old, new):
    """Take frames 9 to 1, then settle: what is stored at last, by frame."""
    stored = {}
    for frame in range(9, 0, -1):
        if merge.takes(frame, old(frame), new(frame)):
            stored[frame] = new(frame)
    return stored | dict(merge.settled())


def test_overlap_is_iou_and_two_empty_masks_are_the_same():
    empty = encode_mask(np.zeros((12, 30), bool))
    assert overlap(square(3), square(3)) == 1 == overlap(empty, empty)
    assert overlap(square(3), square(6)) == pytest.approx(1 / 3) and overlap(square(3), empty) == 0


def test_a_correction_is_kept_up_to_where_the_earlier_pass_is_better():
    merge = Merge(-1, 10, prompts=[0, 10], stale=())
    stored = backward(
        merge,
        old=lambda t: known(3, 0.9) if t < 5 else known(20, 0.3),
        new=lambda t: known(3, 0.9, backward=True) if t > 2 else known(20, 0.2, backward=True),
    )
    assert [stored[t].mask["counts"] == square(3)["counts"] for t in range(1, 10)] == [True] * 9
    assert [stored[t].row.backward for t in range(1, 10)] == [False] * 2 + [False] * 2 + [True] * 5
    assert [stored[t].row.agreement for t in (1, 4, 5, 9)] == [0, 1, 0, 0]
    assert str(merge.changes) == "5 of 5 masks changed, most on frame 9 (IoU 0.00 with before)"


@pytest.mark.parametrize("why", ["no prompt beyond", "out of date", "from the same side", "not asked for"])
def test_masks_that_are_out_of_date_are_replaced(why):
    merge = Merge(
        -1, 10, prompts=[10] if why == "no prompt beyond" else [0, 10],
        stale=range(10) if why == "out of date" else (), meets=why != "not asked for",
    )  # fmt: skip
    stored = backward(
        merge,
        old=lambda t: known(3, 0.9, backward=why == "from the same side"),
        new=lambda t: known(4, 0.1, backward=True),
    )
    assert all(stored[t].mask["counts"] == square(4)["counts"] for t in range(1, 10))


def test_beyond_the_next_prompt_nothing_fresh_is_replaced():
    merge = Merge(-1, 10, prompts=[5, 10], stale=())
    stored = backward(merge, lambda t: known(3), lambda t: known(20, 1.0, backward=True))
    assert set(stored) == {6, 7, 8, 9}


def test_changes_of_several_objects_are_told_together():
    assert str(together([])) == "" and str(together([Changes(4)])) == "no mask changed"
    both = together([Changes(4, 2, (7, 0.5)), Changes(3, 1, (9, 0.2))])
    assert (both.compared, both.changed, both.most) == (7, 3, (9, 0.2))


def test_a_correction_is_tracked_both_ways_and_meets_what_was_there(opened, truth):
    annotator = prompted(opened(), truth)
    track(annotator, "forward", 0)
    before, store = masks_of(annotator), annotator.project.store
    annotator.mask(1, 8, truth[8] == 2)  # the other object, so that all after it change
    track(annotator, "both", 8)
    after = masks_of(annotator)
    assert after[0, 1] == before[0, 1] and store.row(0, 1).prompted, "the first prompt stays"
    assert all(store.row(frame, 1).agreement is not None for frame in range(1, 8))
    kept = [store.row(frame, 1).backward for frame in range(1, 8)]
    assert kept == sorted(kept), "the earlier pass first, then the new one: they meet once"
    for frame in range(1, 8):
        assert (after[frame, 1] == before[frame, 1]) or store.row(frame, 1).backward
    assert "masks changed" in str(annotator.tracker.changes) and not annotator.project.stale[1]
