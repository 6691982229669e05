"""One object in one direction of time: its pathways, the masks that wait, the masks that are ready; and `step`.

Inside, time counts upwards whichever way the video is gone through: a frame's time is its index, or minus its index in
a pass backwards. Callers turn frames into times at the door in, and times into frames at the door out.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from sam2long.config import Sam2LongConfig
from sam2long.method import memory, tree
from sam2long.method.memory import BankRules, FrameMemory, Reading
from sam2long.network.batched import Batched
from sam2long.network.devices import Outgoing, moved_once
from sam2long.network.protocol import Box, FrameFeatures, Proposals, Remembered
from sam2long.tracking.close_up import CloseUp, in_one_place
from sam2long.tracking.report import FrameReport, TrackLog
from sam2long.tracking.window import Window


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pathway:
    """One hypothesis about the video so far. A step builds new ones; twins are the same object."""

    node: int  # the leaf; unique within a track
    parent: int | None  # the node it grew from
    rank: int  # of the leaf among the different nodes of its frame; 0 is the best
    score: float  # sum of log(iou + eps) since the last prompt; higher is better
    memories: tuple[FrameMemory, ...] = ()  # oldest first
    lineage: tuple[int, ...] = ()  # nodes of the frames that wait, oldest first, the leaf last


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """One node's mask while it waits for the pathways to agree, and later on its way out."""

    mask: Tensor | None  # [1, 1, 4h, 4w] float32 logits; None: absent, every logit is NO_OBJ_SCORE
    report: FrameReport | None  # None: the object has not been prompted yet
    view: Window | None = None  # what of the picture the mask is of; None: all

    def leaving(self, outgoing: Outgoing) -> Hypothesis:
        """The same with the mask on the host, once it has arrived there."""
        if self.mask is None or self.mask.device.type == "cpu":
            return self
        there = outgoing.on_host(self.mask)
        return self if there is None else replace(self, mask=there.clone())


EMPTY = Hypothesis(None, None)


@dataclass(frozen=True, slots=True, eq=False)
class Prompted:
    """A prompted frame as the tracker sees it."""

    mask: Tensor  # [1, 1, 4h, 4w] float32 logits, of `view`
    object_logit: float  # what the decoder thought; its memory counts as clearly visible all the same
    memory: FrameMemory
    seen_from_before: bool  # frames before it may attend to it
    starts_afresh: bool = False  # a correction that contradicts what was tracked: nothing older is read after it
    view: Window | None = None
    scattered: bool = False  # its mask has pieces far from each other


@dataclass(frozen=True, slots=True, eq=False)
class WaitingFrame:
    """A frame on which the pathways do not agree yet."""

    time: int
    hypotheses: Mapping[int, Hypothesis]  # by node


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where a track stands after a frame: all that later frames depend on, and the one thing that it can go back to."""

    time: int | None = None  # of that frame; None: no frame yet
    pathways: tuple[Pathway, ...] = ()  # P of them (one while `at_root`), best first; empty: not prompted yet
    at_root: bool = False  # that frame was a prompted one
    last_rank: int = 0  # of the mask handed out last
    waiting: tuple[WaitingFrame, ...] = ()  # oldest first
    view: Window | None = None  # where the next frame is looked at; None: in the whole picture

    def leaves(self) -> list[Pathway]:
        """The pathways that differ: one network row each."""
        return list({pathway.node: pathway for pathway in self.pathways}.values())

    def leading(self) -> Pathway | None:
        """The pathway whose mask was handed out last, or the best one while masks wait."""
        if not self.pathways:
            return None
        if self.waiting:
            return self.pathways[0]
        return next((pathway for pathway in self.pathways if pathway.rank == self.last_rank), self.pathways[0])

    def handed_out(self, count: int) -> Standing:
        """The same once the oldest `count` waiting frames are out, along any pathway; dead hypotheses go."""
        cut = {leaf.node: replace(leaf, lineage=leaf.lineage[count:]) for leaf in self.leaves()}
        alive = {node for leaf in cut.values() for node in leaf.lineage}
        waiting = tuple(
            WaitingFrame(frame.time, {node: one for node, one in frame.hypotheses.items() if node in alive})
            for frame in self.waiting[count:]
        )
        return replace(self, pathways=tuple(cut[pathway.node] for pathway in self.pathways), waiting=waiting)

    def bare(self) -> Standing:
        """The same without the masks that wait: the best pathway is the one that leads."""
        rank = self.pathways[0].rank if self.waiting else self.last_rank
        return replace(self.handed_out(len(self.waiting)), last_rank=rank)


NOWHERE = Standing()


def with_settings(rules: BankRules, config: Sam2LongConfig) -> BankRules:
    """How a bank is kept and read: a model's own rules with SAM2Long's switches."""
    return replace(
        rules,
        iou_threshold=config.iou_threshold,
        object_aware=config.object_aware_memory,
        max_prompted=min(rules.max_prompted, config.most_prompted),
        modulation=config.modulation,
        sparse_share=config.sparse_share,
    )


@dataclass(eq=False)
class Track:
    """One object in one direction of time. `direction`, 1 or -1, is for the doors: see `time` and `frame`."""

    rules: BankRules
    config: Sam2LongConfig
    direction: int = 1
    prompts: Mapping[int, Prompted] = field(default_factory=dict)  # by time
    now: Standing = NOWHERE
    before: Standing | None = None  # one step ago, for a stream that is corrected on its latest frame
    ready: deque[tuple[int, Hypothesis]] = field(default_factory=deque)  # settled, by time, in order
    log: TrackLog = field(default_factory=TrackLog)
    next_node: int = 0
    storage: torch.device | None = None  # where spatial memories are kept; None: where they were computed
    close_up: CloseUp | None = None  # how the object is looked at; None: always in the whole picture
    latest: Hypothesis | None = None  # the best pathway's on the last frame; None: not known any more
    stale_after: int | None = None  # what is later than this was tracked from other prompts; None: nothing is

    def time(self, frame: int) -> int:
        """The door in."""
        return frame * self.direction

    def frame(self, time: int) -> int:
        """The door out."""
        return time * self.direction

    # ---- before the network --------------------------------------------------------------------------------

    def readings(self, time: int) -> list[Reading]:
        """What each of the leaves attends to on a frame."""
        prompted = self.visible_prompts(time)
        return [memory.read(time, leaf.memories, prompted, self.rules) for leaf in self.now.leaves()]

    def visible_prompts(self, time: int) -> dict[int, FrameMemory]:
        """Prompted frames that a frame may attend to, by time."""
        afresh = max((at for at, prompt in self.prompts.items() if prompt.starts_afresh and at < time), default=None)
        return {
            at: prompt.memory
            for at, prompt in self.prompts.items()
            if (prompt.seen_from_before or at <= time) and (afresh is None or at >= afresh)
        }

    # ---- after the network -----------------------------------------------------------------------------------

    def decide(self, verdicts: Sequence[tree.Verdict]) -> tree.Decision:
        """Which candidates become the new pathways. verdicts: one for each of the leaves."""
        row_of = {leaf.node: row for row, leaf in enumerate(self.now.leaves())}
        return tree.decide(
            [pathway.score for pathway in self.now.pathways],
            [row_of[pathway.node] for pathway in self.now.pathways],
            verdicts,
            width=self.config.num_pathways,
            certain_above=self.config.certainty_threshold,
            at_root=self.now.at_root,
            twins=self.config.twins,
        )

    def grow(
        self,
        time: int,
        decision: tree.Decision,
        readings: Sequence[Reading],
        verdicts: Sequence[tree.Verdict],
        remembered: Mapping[tuple[int, int], Remembered],
        kept_tokens: Sequence[Tensor | None],
        boxes: Sequence[tuple[Box, ...]],
    ) -> None:
        """Replace the pathways by their kept children, and hand out what has settled.

        Args:
            time: of the frame.
            decision: what was kept.
            readings, verdicts, kept_tokens, boxes: one for each of the leaves.
            remembered: of each kept (leaf, mask).
        """
        parents, unique = self.now.leaves(), decision.unique()
        fresh = [remembered[kept.parent, kept.mask].mask_features for kept in unique]
        stored = moved_once(fresh, self.storage or fresh[0].device)
        children: dict[tuple[int, int], Pathway] = {}
        hypotheses: dict[int, Hypothesis] = {}
        for rank, kept in enumerate(unique):
            parent, verdict, new = parents[kept.parent], verdicts[kept.parent], remembered[kept.parent, kept.mask]
            entry = FrameMemory(
                time=time,
                mask_features=stored[rank],
                object_ptr=new.object_ptr,
                iou=verdict.ious[kept.mask],
                object_logit=verdict.object_logit,
            )
            bank = memory.keep_tokens(parent.memories, kept_tokens[kept.parent])
            node = self.next_node
            self.next_node += 1
            children[kept.parent, kept.mask] = Pathway(
                node=node,
                parent=parent.node,
                rank=rank,
                score=kept.score,
                memories=memory.remember(bank, entry, self.rules),
                lineage=(*parent.lineage, node),
            )
            report = FrameReport(
                time=time,
                rank=rank,
                iou=verdict.ious[kept.mask],
                object_logit=verdict.object_logit,
                certain=decision.certain,
                pathways=len(unique),
                margin=decision.margin,
                memory_times=readings[kept.parent].times,
            )
            mask = new.mask if verdict.object_logit > 0 else None
            hypotheses[node] = Hypothesis(mask, report, self.now.view)
        best = decision.kept[0]
        view = None
        if self.close_up is not None and self.now.view is not None:
            there = verdicts[best.parent].object_logit > 0
            side = remembered[best.parent, best.mask].mask.shape[-1]
            view = self.close_up.after(boxes[best.parent][best.mask] if there else None, side, self.now.view)
        self.before = self.now
        self.now = Standing(
            time=time,
            pathways=tuple(children[kept.parent, kept.mask] for kept in decision.kept),
            last_rank=self.now.last_rank,
            waiting=(*self.now.waiting, WaitingFrame(time, hypotheses)),
            view=view,
        )
        self._hand_out_settled(time, hypotheses)

    def restart(self, time: int) -> None:
        """Root a new tree on a prompted frame; the pathway that led here keeps its earlier memories usable."""
        prompt = self.prompts[time]
        self.flush()
        if self.log.rank_at(time) is None:
            self.log.truncate(time)
        leading = self.now.leading()
        parent, memories = (leading.node, leading.memories) if leading else (None, ())
        memories = () if prompt.starts_afresh else memories
        root = Pathway(node=self.next_node, parent=parent, rank=0, score=0.0, memories=memories)
        self.next_node += 1
        self.before = self.now if leading else None
        self.now = Standing(time, (root,), at_root=True, view=prompt.view)
        report = FrameReport(
            time=time,
            rank=0,
            iou=float("nan"),
            object_logit=prompt.object_logit,
            certain=True,
            pathways=1,
            margin=float("inf"),
            memory_times=(),
            prompted=True,
        )
        self.latest = Hypothesis(prompt.mask, report, prompt.view)
        self._hand_out(time, self.latest)

    def skip(self, time: int) -> None:
        """A frame before the object's first prompt: nothing is there yet."""
        self.now = replace(self.now, time=time)
        self.ready.append((time, EMPTY))

    # ---- going back ------------------------------------------------------------------------------------------

    def stand(self, standing: Standing) -> None:
        """Go back (or on) to where the track stood once. What is ready is the caller's to drop."""
        self.now = standing
        self.latest = self.before = None
        self.next_node = max(self.next_node, *(1 + pathway.node for pathway in standing.pathways), 0)

    def undo(self) -> None:
        """Go back by one step, along the best pathway; the masks that waited before it and are not out still wait."""
        best, before, time = self.now.pathways[0], self.before, self.now.time
        assert time is not None  # there is a step to go back by
        if self.ready and self.ready[-1][0] == time:
            self.ready.pop()
        self.log.truncate(time - 1)
        if before is None:
            self.stand(NOWHERE)
            return
        parent = next(pathway for pathway in before.pathways if pathway.node == best.parent)
        out = self.log.last()
        count = sum(out is not None and frame.time <= out for frame in before.waiting)
        self.stand(replace(before, pathways=(parent,), last_rank=parent.rank).handed_out(count))

    def forget_stale(self) -> None:
        """End where the track no longer follows from the object's prompts."""
        if self.stale_after is None:
            return
        if self.now.time is not None and self.now.time > self.stale_after:
            self.stand(NOWHERE)
            self.ready.clear()
        self.log.truncate(self.stale_after)
        self.stale_after = None

    def copy(self) -> Track:
        """An independent track with the same standing; tensors are shared, they never change."""
        return replace(self, ready=deque(self.ready), log=copy.deepcopy(self.log))

    # ---- out -------------------------------------------------------------------------------------------------

    def reports(self) -> Iterator[FrameReport]:
        """Of the frames handed out, as far as they follow from the object's prompts."""
        return (report for report in self.log if self.stale_after is None or report.time <= self.stale_after)

    def waits(self, time: int) -> bool:
        """Whether a frame waits for the pathways to agree."""
        return any(frame.time == time for frame in self.now.waiting)

    def best(self, time: int) -> Hypothesis:
        """The best pathway's hypothesis on a frame that waits."""
        at = [frame.time for frame in self.now.waiting].index(time)
        return self.now.waiting[at].hypotheses[self.now.pathways[0].lineage[at]]

    def flush(self) -> None:
        """Hand out every frame that waits, along the best pathway: there is no more to come."""
        if self.now.pathways:
            self._hand_out_along(self.now.pathways[0], len(self.now.waiting))

    def _hand_out_settled(self, time: int, hypotheses: Mapping[int, Hypothesis]) -> None:
        leaves, waiting = self.now.leaves(), len(self.now.waiting)
        known = self.log.rank_at(time)
        if known is not None:
            # This frame was handed out by an earlier pass and nothing before it has changed: the same mask again.
            along, count = next((leaf for leaf in leaves if leaf.rank == known), leaves[0]), waiting
        else:
            self.log.truncate(time)
            online = self.config.emit == "online"
            along = leaves[0]
            count = waiting if online else tree.settled([leaf.lineage for leaf in leaves], self.config.max_lag)
        self.latest = hypotheses[along.node]
        self._hand_out_along(along, count)

    def _hand_out_along(self, pathway: Pathway, count: int) -> None:
        for node, frame in zip(pathway.lineage[:count], self.now.waiting, strict=False):
            self._hand_out(frame.time, frame.hypotheses[node])
        self.now = self.now.handed_out(count)

    def _hand_out(self, time: int, hypothesis: Hypothesis) -> None:
        assert hypothesis.report is not None  # it has been tracked
        self.now = replace(self.now, last_rank=hypothesis.report.rank)
        self.log.write(hypothesis.report)
        self.ready.append((time, hypothesis))

    def ready_until(self, end: int) -> int:
        """How many frames are ready, not counting those later than `end`."""
        return sum(time <= end for time, _ in self.ready)

    def offload(self, outgoing: Outgoing, out: int) -> None:
        """Send masks that have to wait to the host, and let go of those that have arrived there.

        Args:
            outgoing: takes them with the next frame's numbers.
            out: this many of the ready frames are handed out at once and stay where they are.
        """
        waiting = tuple(
            WaitingFrame(frame.time, {node: one.leaving(outgoing) for node, one in frame.hypotheses.items()})
            for frame in self.now.waiting
        )
        self.now = replace(self.now, waiting=waiting)
        self.ready = deque(
            (time, hypothesis if i < out else hypothesis.leaving(outgoing))
            for i, (time, hypothesis) in enumerate(self.ready)
        )


def step(
    model: Batched,
    tracks: Sequence[Track],
    time: int,
    seen: Callable[[Window | None], FrameFeatures],
    while_waiting: Callable[[], None] | None = None,
    outgoing: Outgoing | None = None,
    redraw: Callable[[Window | None, Tensor], Tensor] | None = None,
) -> None:
    """Take every track over one frame. Afterwards `track.ready` holds what has settled.

    All unique pathways of all tracks that look at the same part of the frame go through the network as one batch; the
    decoder's numbers reach the CPU in one transfer, and every decision after it is plain Python.

    Args:
        seen: features of a part of the frame; of None, of the whole.
        while_waiting, outgoing: as for `Batched.propose`.
        redraw: the best masks of a part of the frame, [N, 1, 4h, 4w] logits, drawn once more before they are
            remembered; None: they stay as they are.
    """
    running: dict[Window | None, list[Track]] = {}
    for track in tracks:
        if time in track.prompts:
            track.restart(time)
        elif track.now.pathways:
            running.setdefault(track.now.view, []).append(track)
        else:
            track.skip(time)
    for view, alike in running.items():
        _step_alike(model, alike, time, seen(view), while_waiting, outgoing, redraw)


def _step_alike(
    model: Batched,
    running: Sequence[Track],
    time: int,
    features: FrameFeatures,
    while_waiting: Callable[[], None] | None,
    outgoing: Outgoing | None,
    redraw: Callable[[Window | None, Tensor], Tensor] | None,
) -> None:
    """`step` for tracks that look at the same part of the frame."""
    readings = [track.readings(time) for track in running]
    every = [each for own in readings for each in own]
    in_window = running[0].now.view is not None  # what is seen in the whole picture stays there
    proposals = model.propose(features, every, running[0].rules.num_pointers, while_waiting, outgoing, in_window)
    rows: list[slice] = []
    start = 0  # of each track, where its leaves stand among all
    for leaves in readings:
        rows.append(slice(start, start := start + len(leaves)))
    decisions = [track.decide(proposals.verdicts[own]) for track, own in zip(running, rows, strict=True)]
    kept = [
        (own.start + one.parent, one.mask)
        for own, decision in zip(rows, decisions, strict=True)
        for one in decision.unique()
    ]
    best, in_one = [], []  # (row, k) of each track whose object is there
    for track, own, decision in zip(running, rows, decisions, strict=True):
        candidate = own.start + decision.kept[0].parent, decision.kept[0].mask
        if proposals.verdicts[candidate[0]].object_logit > 0:
            best.append(candidate)
            if in_window and not any(prompt.scattered for prompt in track.prompts.values()):
                in_one.append(candidate)
    _better(proposals, in_one, in_one_place)
    if redraw is not None:
        _better(proposals, best, partial(redraw, running[0].now.view))
    remembered = dict(zip(kept, model.remember(features, proposals, kept), strict=True))
    for track, own, decision, its_readings in zip(running, rows, decisions, readings, strict=True):
        new = {(row - own.start, k): one for (row, k), one in remembered.items() if own.start <= row < own.stop}
        track.grow(
            time, decision, its_readings, proposals.verdicts[own], new, proposals.kept_tokens[own], proposals.boxes[own]
        )


def _better(proposals: Proposals, candidates: Sequence[tuple[int, int]], how: Callable[[Tensor], Tensor]) -> None:
    """Replace the masks of some (row, k) by better ones, in place. how: of [N, 1, 4h, 4w] logits."""
    if candidates:
        at = proposals.at(candidates)
        proposals.masks[at] = how(proposals.masks[at].unsqueeze(1)).squeeze(1)
