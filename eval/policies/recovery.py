"""Recovery: an object that no pathway has been sure of for a while is looked for over the whole frame.

A grid of clicks goes through the decoder as one batch. What comes of it is checked backwards: the memory of a proposal
alone must find the prompted mask on the prompted frame (the cycle of tracking there and back, as in Wang et al.,
"Learning Correspondence from the Cycle-Consistency of Time", CVPR 2019). The best that does becomes one more pathway,
which wins or goes by its scores like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from eval.policies.geometry import mask_iou
from sam2long.method import memory, tree
from sam2long.method.memory import FrameMemory
from sam2long.network.tracker_model import Proposals
from sam2long.tracking.track import Hypothesis, Pathway


@dataclass(frozen=True)
class Rules:
    after: int = 10  # frames without a pathway that is sure of presence
    every: int = 10  # frames between two looks
    grid: int = 8  # clicks per side
    checked: int = 8  # proposals that are checked
    overlap: float = 0.7  # IoU above which two proposals are one
    smallest: float = 0.001  # share of the frame
    largest: float = 0.5
    cycle: float = 0.5  # IoU with the prompted mask


def click_places(grid: int, side: int) -> np.ndarray:
    """Centres of a grid's cells, [grid * grid, 2] x, y in model pixels."""
    at = (np.arange(grid) + 0.5) * side / grid
    return np.stack(np.meshgrid(at, at), -1).reshape(-1, 2).astype(np.float32)


def different(masks: Sequence[np.ndarray], ious: Sequence[float], rules: Rules) -> list[int]:
    """Which proposals are worth a check, best predicted IoU first; of overlapping ones the best."""
    kept: list[int] = []
    for at in sorted(range(len(masks)), key=lambda i: -ious[i]):
        share = masks[at].mean()
        if len(kept) == rules.checked:
            break
        if rules.smallest <= share <= rules.largest and all(
            mask_iou(masks[at], masks[other]) < rules.overlap for other in kept
        ):
            kept.append(at)
    return kept


def clicked(model, features, grid: int) -> Proposals:
    """What one click at each place of a grid gives, without any memory. model: a `Sam2Model`."""
    net = model.model
    places = torch.from_numpy(click_places(grid, model.image_size)).to(model.device)[:, None]  # [n, 1, 2]
    count = len(places)
    labels = torch.ones(count, 1, dtype=torch.int32, device=model.device)
    sparse, dense = net.sam_prompt_encoder(points=(places, labels), boxes=None, masks=None)
    blank = (features.levels[-1] + net.no_mem_embed).permute(1, 2, 0).unflatten(2, features.sizes[-1])
    masks, ious, tokens, logits = net.sam_mask_decoder(
        image_embeddings=blank.expand(count, -1, -1, -1),
        image_pe=net.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=False,
        high_res_features=features.fine_maps(count) or None,
    )
    pairs = zip(ious.tolist(), logits[:, 0].tolist(), strict=True)
    verdicts = [tree.Verdict(tuple(own), logit) for own, logit in pairs]
    return Proposals(masks.float(), tokens, logits, list(range(count)), verdicts, [None] * count)


class Recovering:
    """A `Track` that looks for its object when it is lost; `after_frame` is called once per frame."""

    Rules = Rules
    recovery_rules: Rules

    def __init__(self, **fields):
        super().__init__(**fields)
        self._unsure = 0
        self._home = None  # the prompted frame: its features and its mask

    def restart(self, frame):
        super().restart(frame)
        self._unsure, self._home = 0, None

    def after_frame(self, model, features, frame: int) -> None:
        """Count, and look when it is time. To be called in `model.running()`."""
        rules = self.recovery_rules
        if frame in self.prompts:
            self._home = frame, features, (self.prompts[frame].mask[0, 0] > 0).cpu().numpy()
            return
        if self._home is None:
            return
        sure = any(leaf.memories[-1].object_logit > self.config.certainty_threshold for leaf in self.leaves())
        self._unsure = 0 if sure else self._unsure + 1
        late = self._unsure - rules.after
        if late >= 0 and late % rules.every == 0:
            self._search(model, features, frame)

    def _search(self, model, features, frame: int) -> None:
        rules, (prompted, home, truth) = self.recovery_rules, self._home
        proposals = clicked(model, features, rules.grid)
        nodes = [(row, k) for row, said in enumerate(proposals.verdicts) for k in range(len(said.ious))]
        masks = (proposals.masks > 0).flatten(0, 1).cpu().numpy()  # [n * K, 4h, 4w]
        ious = [proposals.verdicts[row].ious[k] for row, k in nodes]
        kept = [nodes[at] for at in different(masks, ious, rules)]
        if not kept:
            return
        entries = [
            FrameMemory(frame=frame, mask_features=new.mask_features, object_ptr=new.object_ptr,
                        iou=proposals.verdicts[row].ious[k], object_logit=proposals.verdicts[row].object_logit)
            for (row, k), new in zip(kept, model.remember(features, proposals, kept), strict=True)
        ]  # fmt: skip
        back = model.propose(home, [self._alone(entry, prompted) for entry in entries], self.rules.num_pointers)
        cycles = []
        for row, verdict in enumerate(back.verdicts):
            best = max(range(len(verdict.ious)), key=verdict.ious.__getitem__)
            found = (back.masks[back.places[row], best] > 0).cpu().numpy()
            cycles.append(mask_iou(found, truth) if verdict.object_logit > 0 else 0.0)
        best = max(range(len(cycles)), key=cycles.__getitem__)
        if cycles[best] >= rules.cycle:
            row, k = kept[best]
            self._adopt(frame, entries[best], proposals.masks[row, k][None, None], cycles[best])

    def _alone(self, entry: FrameMemory, prompted: int):
        """A reading of nothing but one proposal's memory."""
        reading = memory.read(prompted, (), {entry.frame: entry}, replace(self.rules, pointers_from_past_only=False))
        return self.weighted(reading)

    def _adopt(self, frame: int, entry: FrameMemory, mask, cycle: float) -> None:
        """One more child of the best pathway's parent."""
        leader = self.pathways[0]
        node, slot = self.next_node, 1 + max(leaf.slot for leaf in self.leaves())
        self.next_node += 1
        waits = bool(leader.lineage)
        child = Pathway(
            node=node,
            parent=leader.parent,
            slot=slot,
            score=leader.score + math.log(cycle),
            memories=(*leader.memories[:-1], replace(entry, object_logit=max(entry.object_logit, 1e-3))),
            lineage=(*leader.lineage[:-1], node) if waits else (),
        )
        if waits:
            report = self.waiting[leader.node].report
            report = replace(report, slot=slot, iou=entry.iou, object_logit=entry.object_logit)
            self.waiting[node] = Hypothesis(mask, report)
        self.pathways = (*self.pathways, child)
