"""Fusion: on an uncertain frame the mask handed out is an average of the pathways', by their scores.

Memories stay each pathway's own, so tracking itself is that of SAM2Long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rules:
    temperature: float = 1.0  # of the scores, in log IoU; lower: the best pathway weighs more


def fused(masks: Sequence[Tensor | None], scores: Sequence[float], temperature: float) -> Tensor | None:
    """The logits of the average probability, [1, 1, h, w]; None where no pathway sees the object.

    Args:
        masks: logits of each pathway's mask, None: absent. scores: cumulative.
    """
    there = next((mask for mask in masks if mask is not None), None)
    if there is None:
        return None
    weights = torch.softmax(torch.tensor(scores, dtype=torch.float64) / temperature, 0).tolist()
    share = sum(w * mask.sigmoid() for mask, w in zip(masks, weights, strict=True) if mask is not None)
    return share.logit(eps=1e-6)


class Fused:
    """A `Track` that hands out fused masks."""

    Rules = Rules
    fusion_rules: Rules

    def grow(self, frame, decision, *rest):
        super().grow(frame, decision, *rest)
        leaves = [leaf for leaf in self.leaves() if leaf.node in self.waiting]
        if decision.certain or len(leaves) < 2:
            return
        mask = fused([self.waiting[leaf.node].mask for leaf in leaves], [leaf.score for leaf in leaves],
                     self.fusion_rules.temperature)  # fmt: skip
        for leaf in leaves:
            self.waiting[leaf.node] = replace(self.waiting[leaf.node], mask=mask)
