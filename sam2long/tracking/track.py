"""What is known of one object in one direction of time: its pathways, the masks that wait, the masks that are ready."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sam2long.config import Sam2LongConfig
from sam2long.method import memory, tree
from sam2long.method.memory import BankRules, FrameMemory, Reading
from sam2long.network.devices import HOST, moved, moved_once
from sam2long.network.tracker_model import Remembered
from sam2long.tracking.report import FrameReport, TrackLog

Node = tuple[int, int]  # a candidate as the network gave it: row, k


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pathway:
    """One hypothesis about the video so far. A step builds new ones; twins are the same object."""

    node: int  # the leaf; unique within a track
    parent: int | None  # the node it grew from
    slot: int  # the leaf's place among the unique nodes of its frame, best first
    score: float  # sum of log(iou + eps) since the last prompt; higher is better
    memories: tuple[FrameMemory, ...] = ()  # oldest first
    lineage: tuple[int, ...] = ()  # nodes of the frames that wait, oldest first, the leaf last


@dataclass(frozen=True, slots=True, eq=False)
class Hypothesis:
    """One node's mask while it waits for the pathways to agree, and later on its way out."""

    mask: Tensor | None  # [1, 1, 4h, 4w] float32 logits; None: absent, every logit is NO_OBJ_SCORE
    report: FrameReport | None  # None: the object has not been prompted yet

    def on_host(self) -> Hypothesis:
        """The same with the mask on the CPU; the copy is complete once the device has been synchronised."""
        if self.mask is None or self.mask.device.type == "cpu":
            return self
        return replace(self, mask=moved(self.mask, HOST))


EMPTY = Hypothesis(None, None)


@dataclass(frozen=True, slots=True, eq=False)
class Prompted:
    """A prompted frame as the tracker sees it."""

    mask: Tensor  # [1, 1, 4h, 4w] float32 logits
    object_logit: float  # what the decoder thought; its memory counts as clearly visible all the same
    memory: FrameMemory
    seen_from_before: bool  # frames before it (in the direction of time) may attend to it
    starts_afresh: bool = False  # a correction that contradicts what was tracked: nothing older is read after it


@dataclass(frozen=True, slots=True, eq=False)
class Leads:
    """Where a track stood after a frame: all that later frames depend on."""

    head: int
    pathways: tuple[Pathway, ...]  # their lineages do not matter: the masks are out
    at_root: bool
    last_slot: int


@dataclass(eq=False)
class Track:
    """One object in one direction of time: its pathways, the masks that wait, the masks that are ready."""

    rules: BankRules
    config: Sam2LongConfig
    prompts: Mapping[int, Prompted] = field(default_factory=dict)
    pathways: tuple[Pathway, ...] = ()  # P of them (one while `at_root`), best first; empty: not prompted yet
    at_root: bool = False  # the last frame was a prompted one
    head: int | None = None  # the last frame that was stepped
    frames: deque[int] = field(default_factory=deque)  # the frames that wait, oldest first
    waiting: dict[int, Hypothesis] = field(default_factory=dict)  # by node
    ready: deque[tuple[int, Hypothesis]] = field(default_factory=deque)  # settled, in order
    log: TrackLog = field(default_factory=TrackLog)
    next_node: int = 0
    last_slot: int = 0  # slot of the mask handed out last
    storage: torch.device | None = None  # where spatial memories are kept; None: where they were computed
    latest: Hypothesis | None = None  # the best pathway's on the head; None: not known any more
    before: Leads | None = None  # the pathways as they were one step ago: a correction of the head starts there

    # ---- before the network --------------------------------------------------------------------------------

    def leaves(self) -> list[Pathway]:
        """The unique pathways: one network row each."""
        return list({pathway.node: pathway for pathway in self.pathways}.values())

    def readings(self, frame: int) -> list[Reading]:
        """What each unique pathway attends to on `frame`."""
        prompted = self.visible_prompts(frame)
        return [memory.read(frame, leaf.memories, prompted, self.rules) for leaf in self.leaves()]

    def visible_prompts(self, frame: int) -> dict[int, FrameMemory]:
        """Prompted frames that `frame` may attend to."""
        when = self.rules.direction
        afresh = [at for at, prompt in self.prompts.items() if prompt.starts_afresh and (frame - at) * when > 0]
        oldest = max(afresh, key=lambda at: at * when) if afresh else None
        return {
            at: prompt.memory
            for at, prompt in self.prompts.items()
            if (prompt.seen_from_before or (frame - at) * when >= 0) and (oldest is None or (at - oldest) * when >= 0)
        }

    # ---- after the network -----------------------------------------------------------------------------------

    def decide(self, verdicts: Sequence[tree.Verdict]) -> Decision:
        """Which candidates become the new pathways. verdicts: one for each of `leaves()`."""
        leaves = self.leaves()
        row_of = {leaf.node: row for row, leaf in enumerate(leaves)}
        config, width = self.config, self.config.num_pathways
        if self.at_root and config.twins == "keep":
            # The reference starts as P copies of the best mask, scored from the next frame on.
            ious = verdicts[0].ious
            best = max(range(len(ious)), key=ious.__getitem__)
            candidate = tree.Candidate(parent=0, mask=best, score=0.0, signed_iou=ious[best])
            return Decision([candidate] * width, rows=[0] * width, margin=float("inf"), certain=True)
        pathways = leaves if config.twins == "merge" else self.pathways
        rows = [row_of[pathway.node] for pathway in pathways]
        said = [verdicts[row] for row in rows]
        candidates = tree.expand([pathway.score for pathway in pathways], said)
        certain = tree.is_certain((verdict.object_logit for verdict in said), config.certainty_threshold)
        kept = tree.keep(candidates, width, certain)
        margin = tree.margin(candidates, kept, [pathway.node for pathway in pathways])
        return Decision(kept, [rows[candidate.parent] for candidate in kept], margin, certain)

    def grow(
        self,
        frame: int,
        decision: Decision,
        readings: Sequence[Reading],
        verdicts: Sequence[tree.Verdict],
        remembered: Mapping[tuple[int, int], Remembered],
        kept_tokens: Sequence[Tensor | None],
    ) -> None:
        """Replace the pathways by their kept children, and hand out what has settled."""
        self.before = self.leads()
        parents = self.leaves()
        unique = decision.unique()
        children: dict[tuple[int, int], Pathway] = {}
        fresh = [remembered[node].mask_features for node in unique]
        stored = moved_once(fresh, self.storage or fresh[0].device)
        for slot, (row, k) in enumerate(unique):
            parent, verdict, new = parents[row], verdicts[row], remembered[row, k]
            score = next(c.score for c, r in zip(decision.kept, decision.rows, strict=True) if (r, c.mask) == (row, k))
            entry = FrameMemory(
                frame=frame,
                mask_features=stored[slot],
                object_ptr=new.object_ptr,
                iou=verdict.ious[k],
                object_logit=verdict.object_logit,
            )
            node = self.next_node
            self.next_node += 1
            children[row, k] = Pathway(
                node=node,
                parent=parent.node,
                slot=slot,
                score=score,
                memories=memory.remember(memory.keep_tokens(parent.memories, kept_tokens[row]), entry, self.rules),
                lineage=(*parent.lineage, node),
            )
            report = FrameReport(
                frame=frame,
                slot=slot,
                iou=verdict.ious[k],
                object_logit=verdict.object_logit,
                certain=decision.certain,
                pathways=len(unique),
                margin=decision.margin,
                memory_frames=readings[row].frames,
            )
            self.waiting[node] = Hypothesis(new.mask if verdict.object_logit > 0 else None, report)
        self.pathways = tuple(
            children[row, candidate.mask] for candidate, row in zip(decision.kept, decision.rows, strict=True)
        )
        self.at_root = False
        self.head = frame
        self.latest = self.waiting[self.pathways[0].node]
        self.frames.append(frame)
        self._hand_out_settled(frame)

    def restart(self, frame: int) -> None:
        """Root a new tree on a prompted frame; the pathway that led here keeps its earlier memories usable."""
        prompt = self.prompts[frame]
        self.before = self.leads()
        leading = self.leading()
        self.flush()
        if self.log.slot_of(frame) is None:
            self.log.truncate(frame, self.rules.direction)
        parent, memories = (leading.node, leading.memories) if leading else (None, ())
        memories = () if prompt.starts_afresh else memories
        self.pathways = (Pathway(node=self.next_node, parent=parent, slot=0, score=0.0, memories=memories),)
        self.next_node += 1
        self.at_root = True
        self.head = frame
        report = FrameReport(
            frame=frame,
            slot=0,
            iou=float("nan"),
            object_logit=prompt.object_logit,
            certain=True,
            pathways=1,
            margin=float("inf"),
            memory_frames=(),
            prompted=True,
        )
        self.latest = Hypothesis(prompt.mask, report)
        self._hand_out(frame, self.latest)

    def skip(self, frame: int) -> None:
        """A frame before the object's first prompt: nothing is there yet."""
        self.head = frame
        self.ready.append((frame, EMPTY))

    def leading(self) -> Pathway | None:
        """The pathway whose mask was handed out last, or the best one while masks wait."""
        if not self.pathways:
            return None
        if self.frames:
            return self.pathways[0]
        return next((pathway for pathway in self.pathways if pathway.slot == self.last_slot), self.pathways[0])

    # ---- going back ------------------------------------------------------------------------------------------

    def leads(self) -> Leads | None:
        """Where the track stands now; None before its first prompt."""
        if not self.pathways:
            return None
        # While masks wait, the best pathway is the one that leads; its slot says so.
        slot = self.pathways[0].slot if self.frames else self.last_slot
        return Leads(self.head, self.pathways, self.at_root, slot)

    def rewind(self) -> None:
        """Undo the step onto the head, along the best pathway; the masks that waited before it still wait."""
        best, before, head = self.pathways[0], self.before, self.head
        if self.ready and self.ready[-1][0] == head:
            self.ready.pop()
        lineage = ()
        if self.frames and self.frames[-1] == head:
            self.frames.pop()
            lineage = best.lineage[:-1]
        self.waiting = {node: self.waiting[node] for node in lineage}
        self.log.truncate(head - self.rules.direction, self.rules.direction)
        self.latest = self.before = None
        if before is None:
            self.pathways, self.head, self.at_root = (), None, False
            return
        parent = next(pathway for pathway in before.pathways if pathway.node == best.parent)
        self.pathways = (replace(parent, lineage=lineage),)
        self.head, self.at_root, self.last_slot = before.head, before.at_root, parent.slot

    def copy(self) -> Track:
        """An independent track that stands in the same place; tensors are shared, they never change."""
        return replace(
            self,
            frames=deque(self.frames),
            waiting=dict(self.waiting),
            ready=deque(self.ready),
            log=self.log.copy(),
        )

    def best(self, frame: int) -> Hypothesis:
        """The best pathway's hypothesis on a frame that waits."""
        return self.waiting[self.pathways[0].lineage[self.frames.index(frame)]]

    def stand(self, leads: Leads | None) -> None:
        """Go back (or on) to where `leads` says; nothing waits there."""
        self.frames.clear()
        self.waiting.clear()
        self.ready.clear()
        self.latest = self.before = None
        if leads is None:
            self.pathways, self.head, self.at_root = (), None, False
            return
        bare = {pathway.node: replace(pathway, lineage=()) for pathway in leads.pathways}
        self.pathways = tuple(bare[pathway.node] for pathway in leads.pathways)
        self.head, self.at_root, self.last_slot = leads.head, leads.at_root, leads.last_slot
        self.next_node = max(self.next_node, 1 + max(bare))

    # ---- out -------------------------------------------------------------------------------------------------

    def _hand_out_settled(self, frame: int) -> None:
        known = self.log.slot_of(frame)
        if known is not None:
            # This frame was handed out by an earlier pass and nothing before it has changed: the same mask again.
            again = next((leaf for leaf in self.pathways if leaf.slot == known), self.pathways[0])
            self.latest = self.waiting[again.node]
            self._hand_out_along(again, len(self.frames))
            return
        self.log.truncate(frame, self.rules.direction)
        lineages = [leaf.lineage for leaf in self.leaves()]
        online = self.config.emit == "online"
        count = len(self.frames) if online else tree.settled(lineages, self.config.max_lag)
        self._hand_out_along(self.pathways[0], count)

    def flush(self) -> None:
        """Hand out every frame that waits, along the best pathway: there is no more to come."""
        if self.pathways:
            self._hand_out_along(self.pathways[0], len(self.frames))

    def _hand_out_along(self, pathway: Pathway, count: int) -> None:
        for node in pathway.lineage[:count]:
            self._hand_out(self.frames[0], self.waiting[node])
            self.frames.popleft()
        self._trim(count)

    def _hand_out(self, frame: int, hypothesis: Hypothesis) -> None:
        self.last_slot = hypothesis.report.slot
        self.log.write(hypothesis.report)
        self.ready.append((frame, hypothesis))

    def _trim(self, count: int) -> None:
        """Forget the oldest `count` waiting frames and every hypothesis that no pathway holds any more."""
        trimmed = {leaf.node: replace(leaf, lineage=leaf.lineage[count:]) for leaf in self.leaves()}
        self.pathways = tuple(trimmed[pathway.node] for pathway in self.pathways)
        alive = {node for leaf in trimmed.values() for node in leaf.lineage}
        self.waiting = {node: hypothesis for node, hypothesis in self.waiting.items() if node in alive}

    def ready_until(self, end: int, direction: int) -> int:
        """How many frames are ready, not counting those beyond `end`."""
        return sum((end - frame) * direction >= 0 for frame, _ in self.ready)

    def offload(self, leaving: int) -> None:
        """Move masks that have to wait to the host: the device holds no past frames.

        Args:
            leaving: this many of the ready frames leave at once and stay where they are.
        """
        self.waiting = {node: hypothesis.on_host() for node, hypothesis in self.waiting.items()}
        self.ready = deque(
            (frame, hypothesis if i < leaving else hypothesis.on_host())
            for i, (frame, hypothesis) in enumerate(self.ready)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """The kept candidates of one track on one frame, best first."""

    kept: list[tree.Candidate]
    rows: list[int]  # the track's network row of each kept candidate's parent
    margin: float
    certain: bool

    def unique(self) -> list[Node]:
        """(row, k) of each different kept node, best first."""
        return list(dict.fromkeys((row, c.mask) for c, row in zip(self.kept, self.rows, strict=True)))
