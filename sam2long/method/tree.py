"""The memory tree: expand, rank, keep, settle; `decide` is all of it on one frame. Plain numbers: no torch, no sam2.

The letters are the paper's: P pathways per object, K mask candidates per pathway and frame.
Source: SAM2Long, arXiv 2410.16268, Sec. 3.2; the reference's choices are in the README.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

SCORE_EPSILON = 1e-5  # inside the logarithm: an IoU of zero stays finite
IOU_DECIMALS = 2  # candidates whose signed IoU rounds alike count as the same mask on an uncertain frame


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the P * K ways to go on."""

    parent: int  # the pathway that it continues, by its index in `scores`; in `Decision.kept`, by its row
    mask: int  # which of that pathway's K masks
    score: float  # cumulative: the pathway's score + log(iou + eps)
    signed_iou: float  # the predicted IoU; negative when the pathway believes the object absent


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the decoder makes of a frame for one pathway."""

    ious: tuple[float, ...]  # K predicted IoUs, 0..1
    object_logit: float  # > 0: the object is visible


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one object's pathways on one frame."""

    kept: tuple[Candidate, ...]  # the new pathways, best first; twins have the same parent and mask
    margin: float  # see `margin`
    certain: bool

    def unique(self) -> list[Candidate]:
        """The first of each group of twins, best first."""
        first: dict[tuple[int, int], Candidate] = {}
        for candidate in self.kept:
            first.setdefault((candidate.parent, candidate.mask), candidate)
        return list(first.values())


def decide(
    scores: Sequence[float],
    rows: Sequence[int],
    verdicts: Sequence[Verdict],
    *,
    width: int,
    certain_above: float,
    at_root: bool = False,
    twins: str = "keep",
) -> Decision:
    """Which candidates become an object's new pathways.

    Args:
        scores: cumulative, one per pathway, best first.
        rows: of each pathway, which verdict is its; twins share one.
        verdicts: of the pathways that differ.
        width: P.
        certain_above: delta_conf.
        at_root: the frame before was a prompted one; from it one pathway starts.
        twins: "keep" as the reference does: P copies of the best mask start after a prompt, and copies are ranked like
            any others, so the tree is a line until the first uncertain frame. "merge" is the paper's literal text: P
            different children from the first frame on.
    """
    if at_root and twins == "keep":
        ious = verdicts[0].ious
        best = max(range(len(ious)), key=ious.__getitem__)
        # Scored from the next frame on.
        return Decision((Candidate(parent=0, mask=best, score=0.0, signed_iou=ious[best]),) * width, math.inf, True)
    if twins == "merge":
        rows, scores = zip(*dict(zip(rows, scores, strict=True)).items(), strict=True)
    own = [verdicts[row] for row in rows]
    candidates = expand(scores, own)
    certain = is_certain((verdict.object_logit for verdict in own), certain_above)
    kept = keep(candidates, width, certain)
    by_row = tuple(replace(candidate, parent=rows[candidate.parent]) for candidate in kept)
    return Decision(by_row, margin(candidates, kept, rows), certain)


def expand(scores: Sequence[float], verdicts: Sequence[Verdict]) -> list[Candidate]:
    """All candidates of all pathways, best cumulative score first; equal scores keep the order (p, k).

    Args:
        scores: P cumulative scores, one per pathway.
        verdicts: P verdicts, in the same order.
    """
    candidates = [
        Candidate(
            parent=parent,
            mask=mask,
            # A head without a sigmoid may say less than nothing; the logarithm needs it at zero.
            score=score + math.log(max(iou, 0.0) + SCORE_EPSILON),
            signed_iou=iou if verdict.object_logit > 0 else -iou,
        )
        for parent, (score, verdict) in enumerate(zip(scores, verdicts, strict=True))
        for mask, iou in enumerate(verdict.ious)
    ]
    return sorted(candidates, key=lambda candidate: -candidate.score)  # sorted() is stable


def is_certain(object_logits: Iterable[float], certain_above: float) -> bool:
    """A frame is certain when some pathway is sure of the object's presence or of its absence."""
    return max(abs(logit) for logit in object_logits) > certain_above


def keep(candidates: Sequence[Candidate], width: int, certain: bool) -> list[Candidate]:
    """The candidates that become the new pathways, best first, at most `width`.

    Args:
        candidates: ranked, as `expand` gives them.
        width: P.
        certain: take the best; otherwise take masks that differ from each other.
    """
    return list(candidates[:width]) if certain else keep_distinct(candidates, width)


def keep_distinct(candidates: Sequence[Candidate], width: int) -> list[Candidate]:
    """Candidates whose rounded signed IoUs all differ; too few: the best of each childless pathway as well."""
    kept: list[Candidate] = []
    seen: set[float] = set()
    for candidate in candidates:
        if len(kept) == width:
            return kept
        key = round(candidate.signed_iou, IOU_DECIMALS)
        if key not in seen:
            seen.add(key)
            kept.append(candidate)
    best_of: dict = {}
    for candidate in candidates:
        best_of.setdefault(candidate.parent, candidate)
    with_child = {candidate.parent for candidate in kept}
    childless = (best_of[parent] for parent in sorted(best_of) if parent not in with_child)
    return kept + list(childless)[: width - len(kept)]


def margin(candidates: Sequence[Candidate], kept: Sequence[Candidate], rows: Sequence[int]) -> float:
    """How far the best kept candidate is ahead of the best one that is a different mask (in log IoU).

    Args:
        candidates: ranked.
        kept: what was kept of them; the first is the best pathway.
        rows: P numbers, one per pathway: twins share one.
    Returns:
        Score difference, >= 0; infinity when there is nothing else.
    """
    best = kept[0]
    for candidate in candidates:
        if (rows[candidate.parent], candidate.mask) != (rows[best.parent], best.mask):
            return best.score - candidate.score
    return math.inf


def settled(lineages: Sequence[Sequence[int]], max_lag: int | None = None) -> int:
    """How many of the oldest waiting frames can be handed out.

    Args:
        lineages: P lists of node ids, oldest waiting frame first, best pathway first, all equally long.
        max_lag: at most this many frames stay waiting; None: no bound.
    Returns:
        The number of leading frames on which all pathways have the same node, or more when the bound says so.
    """
    length = len(lineages[0])
    agreed = 0
    while agreed < length and all(lineage[agreed] == lineages[0][agreed] for lineage in lineages):
        agreed += 1
    overdue = 0 if max_lag is None else length - max_lag
    return max(agreed, overdue)
