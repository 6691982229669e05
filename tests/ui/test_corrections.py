"""A correction on the page, and that what `eval interact` measures is what the page does."""

from __future__ import annotations

import numpy as np
import pytest

from eval.interact import annotator as simulated
from eval.interact.corrected import Clip, Corrected
from eval.prompting import box_of
from sam2long.export.masks import decode_mask
from tests.ui.conftest import FRAMES
from tests.ui.test_annotator import masks_of, prompted, track


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


def page_corrects(annotator, truth, frame, kind):
    """As `Corrected.correct` says, with what a user does on the page."""
    if kind == "mask":
        annotator.mask(1, frame, truth[frame])
    clicks, mask = 0, decode_mask(annotator.project.store.mask(frame, 1)).astype(bool)
    if kind == "boxes" and simulated.agreement(truth[frame], mask) < simulated.FAR_OFF:
        annotator.box(1, frame, box_of(truth[frame]))
        clicks = simulated.BOX
    while clicks < (0 if kind == "mask" else simulated.MOST_CLICKS):
        mask = decode_mask(annotator.project.store.mask(frame, 1)).astype(bool)
        if clicks and simulated.agreement(truth[frame], mask) >= simulated.GOOD:
            break
        (x, y), label = simulated.on_error(truth[frame], mask)
        annotator.click(1, frame, float(x), float(y), bool(label))
        clicks += 1
    track(annotator, "both", frame)


@pytest.mark.parametrize(("kind", "frames"), [("mask", [8]), ("clicks", [8, 4]), ("boxes", [8])])
def test_what_is_measured_is_what_the_page_does(kind, frames, opened, nano, truth):
    annotator = opened()
    images = np.stack([annotator.project.source.frame(t) for t in range(FRAMES)])
    clip = Clip("clip", images, [ids == 1 for ids in truth])
    measured = Corrected(nano, clip)
    measured.begin("box")
    ys, xs = np.nonzero(clip.truth[0])
    annotator.new_object()
    annotator.box(1, 0, (int(xs.min()), int(ys.min()), int(xs.max() + 1), int(ys.max() + 1)))
    track(annotator, "forward", 0)
    for frame in frames:
        measured.correct(frame, kind)
        page_corrects(annotator, clip.truth, frame, kind)
        store = annotator.project.store
        for t in range(FRAMES):
            assert np.array_equal(decode_mask(store.mask(t, 1)).astype(bool), measured.masks[t]), (frame, t)
            on_page, row = store.row(t, 1), measured.seen[t]
            assert on_page.prompted == row.prompted and on_page.agreement == pytest.approx(row.agreement), (frame, t)
            assert on_page.prompted or on_page.backward == row.backward
    assert any(row.agreement is not None for row in measured.seen), "two passes have met"
