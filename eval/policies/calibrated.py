"""Calibration: predicted IoUs and object logits are brought to what they turned out to be, before the tree uses them.

scripts/calibrate.py fits the four numbers of a model. A logit keeps its sign, since the masks were made with it.
Source: temperature scaling, Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017, arXiv 1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sam2long.method.tree import Verdict

EDGE = 1e-4  # of IoUs, where the logit is taken
SIGNED = 1e-3  # least size of a logit that keeps its sign


@dataclass(frozen=True)
class Rules:
    iou_temperature: float = 1.0
    iou_offset: float = 0.0  # subtracted from the IoU's logit before the division
    object_temperature: float = 1.0
    object_offset: float = 0.0


def scaled(probability: float, temperature: float, offset: float) -> float:
    """A probability with temperature and offset."""
    p = min(max(probability, EDGE), 1 - EDGE)
    return 1 / (1 + math.exp(-(math.log(p / (1 - p)) - offset) / temperature))


def calibrate(verdict: Verdict, rules: Rules) -> Verdict:
    logit = (verdict.object_logit - rules.object_offset) / rules.object_temperature
    sign = 1 if verdict.object_logit > 0 else -1
    return Verdict(
        tuple(scaled(iou, rules.iou_temperature, rules.iou_offset) for iou in verdict.ious),
        sign * max(sign * logit, SIGNED),
    )


class Calibrated:
    """A `Track` that hears calibrated verdicts."""

    Rules = Rules
    calibrated_rules: Rules

    def _heard(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        return [calibrate(verdict, self.calibrated_rules) for verdict in verdicts]

    def decide(self, verdicts, look=None):
        return super().decide(self._heard(verdicts), look)

    def grow(self, frame, decision, readings, verdicts, *rest):
        super().grow(frame, decision, readings, self._heard(verdicts), *rest)
