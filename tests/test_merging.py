"""Two passes over the same frames: which masks stay, and what is said to have changed."""

from __future__ import annotations

import numpy as np
import pytest

from sam2long.known import Row
from sam2long.meeting import agreement
from sam2long.merging import Changes, Known, Merge, together


def square(x):
    mask = np.zeros((12, 30), bool)
    mask[2:8, x : x + 6] = True
    return mask


def same(a, b):
    return bool((a == b).all())


def known(x, iou=0.9, **row):
    return Known(square(x), Row(iou=iou, object_logit=5.0, **row))


def backward(merge, old, new):
    """Take frames 9 to 1, then settle: what is stored at last, by frame."""
    stored = {}
    for frame in range(9, 0, -1):
        if merge.takes(frame, old(frame), new(frame)):
            stored[frame] = new(frame)
    return stored | dict(merge.settled())


def test_a_correction_is_kept_up_to_where_the_earlier_pass_is_better():
    merge = Merge(-1, 10, prompts=[0, 10], stale=(), overlap=agreement)
    stored = backward(
        merge,
        old=lambda t: known(3, 0.9) if t < 5 else known(20, 0.3),
        new=lambda t: known(3, 0.9, backward=True) if t > 2 else known(20, 0.2, backward=True),
    )
    assert [same(stored[t].mask, square(3)) for t in range(1, 10)] == [True] * 9
    assert [stored[t].row.backward for t in range(1, 10)] == [False] * 2 + [False] * 2 + [True] * 5
    assert [stored[t].row.agreement for t in (1, 4, 5, 9)] == [0, 1, 0, 0]
    assert str(merge.changes) == "5 of 5 masks changed, most on frame 9 (IoU 0.00 with before)"


@pytest.mark.parametrize("why", ["no prompt beyond", "out of date", "from the same side", "not asked for"])
def test_masks_that_are_out_of_date_are_replaced(why):
    merge = Merge(
        -1, 10, prompts=[10] if why == "no prompt beyond" else [0, 10],
        stale=range(10) if why == "out of date" else (), overlap=agreement, meets=why != "not asked for",
    )  # fmt: skip
    stored = backward(
        merge,
        old=lambda t: known(3, 0.9, backward=why == "from the same side"),
        new=lambda t: known(4, 0.1, backward=True),
    )
    assert all(same(stored[t].mask, square(4)) for t in range(1, 10))


def test_beyond_the_next_prompt_nothing_fresh_is_replaced():
    merge = Merge(-1, 10, prompts=[5, 10], stale=(), overlap=agreement)
    stored = backward(merge, lambda t: known(3), lambda t: known(20, 1.0, backward=True))
    assert set(stored) == {6, 7, 8, 9}


def test_changes_of_several_objects_are_told_together():
    assert str(together([])) == "" and str(together([Changes(4)])) == "no mask changed"
    both = together([Changes(4, 2, (7, 0.5)), Changes(3, 1, (9, 0.2))])
    assert (both.compared, both.changed, both.most) == (7, 3, (9, 0.2))
