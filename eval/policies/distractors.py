"""Distractor memory: frames on which something else looked like the object are remembered longer, per pathway.

Source: Videnovic et al., "A Distractor-Aware Memory for Visual Object Tracking with SAM2" (CVPR 2025, arXiv
2411.17576): an anchor frame is one on which an alternative mask lies elsewhere, while the mask that was taken is
reliable and steady; anchors are read like prompted frames, and they and the recent frames share the bank. Ours: each
pathway of the tree has anchors of its own, and an alternative must be plausible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.policies.geometry import area, box_of, largest_part
from sam2long.method.memory import PROMPTED_LOGIT, FrameMemory, Reading, SpatialRead


@dataclass(frozen=True)
class Rules:
    ring: int = 3  # anchors kept
    recent: int = 3  # recent memories read when the ring is full
    iou: float = 0.8  # predicted, of the mask that was taken
    gap: float = 1.0  # an alternative's predicted IoU may be this much lower; 1: any, as published
    ratio: float = 0.7  # box of the mask by box of the union with the alternative: below, it lies elsewhere
    steady: float = 0.2  # how far the mask's area may be from the median of the last ones
    median_of: int = 10
    every: int = 5  # frames between two anchors
    across: bool = False  # what other pathways propose is an alternative, too


@dataclass(frozen=True)
class Seen:
    """What a pathway knows of distractors."""

    anchors: tuple[FrameMemory, ...] = ()
    areas: tuple[int, ...] = ()


def lies_elsewhere(taken: np.ndarray, other: np.ndarray, ratio: float) -> bool:
    """Whether the largest part of `other`, bool [H, W], makes the box around `taken` much larger."""
    box = box_of(taken)
    union = box_of(taken | largest_part(other))
    return box is not None and area(box) < ratio * area(union)


def is_anchor(
    frame: int, taken: np.ndarray, others: Sequence[tuple[np.ndarray, float]], iou: float, seen: Seen, rules: Rules
) -> bool:
    """Whether a frame shows a distractor beside an object that is tracked well.

    Args:
        taken: bool [H, W]. others: masks not taken, and their predicted IoUs. iou: that of `taken`.
    """
    size = int(taken.sum())
    if size == 0 or iou < rules.iou:
        return False
    if seen.areas and abs(size - np.median(seen.areas)) > rules.steady * np.median(seen.areas):
        return False
    if seen.anchors and abs(frame - seen.anchors[-1].frame) < rules.every:
        return False
    return any(o > iou - rules.gap and lies_elsewhere(taken, mask, rules.ratio) for mask, o in others)


def with_anchors(reading: Reading, anchors: Sequence[FrameMemory], slot: int, rules: Rules) -> Reading:
    """A reading that sees anchors like prompted frames; recent memories make room for them."""
    prompted = [read for read in reading.spatial if read.prompted]
    recent = [read for read in reading.spatial if not read.prompted]
    known = {read.memory.frame for read in prompted}
    anchors = [memory for memory in anchors if memory.frame not in known]
    room = max(rules.recent, slot - len(anchors))
    chosen = {memory.frame for memory in anchors}
    recent = [read for read in recent[-room:] if read.memory.frame not in chosen or read is recent[-1]]
    seen = [SpatialRead(replace(memory, object_logit=PROMPTED_LOGIT), slot, prompted=True) for memory in anchors]
    return replace(reading, spatial=(*prompted, *seen, *recent))


class DistractorAware:
    """A `Track` whose pathways remember distractors."""

    Rules = Rules
    distractors_rules: Rules

    def __init__(self, **fields):
        super().__init__(**fields)
        self._seen: dict[int, Seen] = {}  # by leaf

    def restart(self, frame):
        super().restart(frame)
        self._seen = {}

    def readings(self, frame):
        rules, slot = self.distractors_rules, self.rules.num_spatial
        pairs = zip(self.leaves(), super().readings(frame), strict=True)
        return [
            with_anchors(reading, self._seen[leaf.node].anchors, slot, rules) if leaf.node in self._seen else reading
            for leaf, reading in pairs
        ]

    def decide(self, verdicts, look=None):
        self._looked = look
        return super().decide(verdicts, look)

    def grow(self, frame, decision, readings, verdicts, *rest):
        super().grow(frame, decision, readings, verdicts, *rest)
        unique, grown, rules = decision.unique(), {}, self.distractors_rules
        masks = [
            [(self._looked(row, k) > 0).cpu().numpy() for k in range(len(said.ious))] if said.object_logit > 0 else []
            for row, said in enumerate(verdicts)
        ]
        for leaf in self.leaves():
            row, taken = unique[leaf.slot]
            seen, verdict = self._seen.get(leaf.parent, Seen()), verdicts[row]
            if verdict.object_logit > 0:
                own = masks[row][taken]
                others = [
                    (mask, verdicts[other].ious[k])
                    for other in (range(len(masks)) if rules.across else (row,))
                    for k, mask in enumerate(masks[other])
                    if (other, k) != (row, taken)
                ]
                anchors = seen.anchors
                if is_anchor(frame, own, others, verdict.ious[taken], seen, rules):
                    anchors = (*anchors, leaf.memories[-1])[-rules.ring :]
                seen = Seen(anchors, (*seen.areas, int(own.sum()))[-rules.median_of :])
            grown[leaf.node] = seen
        self._seen = grown
