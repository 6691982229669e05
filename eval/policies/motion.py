"""SAMURAI's selection: one pathway, which takes the mask that fits both the decoder's estimate and the object's motion.

Source: Yang et al., "SAMURAI: Adapting Segment Anything Model for Zero-Shot Visual Tracking with Motion-Aware Memory"
(arXiv 2411.11922): a Kalman filter on the box, a weighted sum of its IoU and the predicted IoU, and a memory of frames
whose mask, object and motion scores are above thresholds. The noise of the filter is that of SORT-like trackers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.policies.geometry import Box, box_iou, box_of
from sam2long.errors import ConfigError
from sam2long.method import tree
from sam2long.tracking.track import Decision

POSITION, VELOCITY = 1 / 20, 1 / 160  # standard deviations, as shares of the box's height


@dataclass(frozen=True)
class Rules:
    weight: float = 0.15  # of the motion in the sum
    steady_for: int = 15  # frames in a row with a good mask, before motion counts
    steady_iou: float = 0.3
    memory_motion: float = 0.0  # a memory's motion score is above this


class BoxFilter:
    """A Kalman filter of constant velocity on a box: centre, width and height."""

    def __init__(self, box: Box) -> None:
        self.mean = np.concatenate([_state(box), np.zeros(4)])
        size = self.mean[3]
        self.covariance = np.diag(np.r_[np.full(4, 2 * POSITION * size), np.full(4, 10 * VELOCITY * size)] ** 2)
        self._step = np.eye(8) + np.eye(8, k=4)

    def predict(self) -> Box:
        """Where the box should be one frame on."""
        size = max(self.mean[3], 1.0)
        noise = np.diag(np.r_[np.full(4, POSITION * size), np.full(4, VELOCITY * size)] ** 2)
        self.mean = self._step @ self.mean
        self.covariance = self._step @ self.covariance @ self._step.T + noise
        x, y, width, height = self.mean[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def update(self, box: Box) -> None:
        """Where it was."""
        noise = np.eye(4) * (POSITION * max(self.mean[3], 1.0)) ** 2
        gain = np.linalg.solve(self.covariance[:4, :4] + noise, self.covariance[:4]).T
        self.mean = self.mean + gain @ (_state(box) - self.mean[:4])
        self.covariance = self.covariance - gain @ self.covariance[:4]


def _state(box: Box) -> np.ndarray:
    x0, y0, x1, y1 = box
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])


def select(ious: Sequence[float], motion: Sequence[float] | None, weight: float) -> int:
    """The best candidate; motion: IoU of each one's box with the predicted one, None: not to be trusted yet."""
    scores = ious if motion is None else [weight * m + (1 - weight) * iou for iou, m in zip(ious, motion, strict=True)]
    return max(range(len(scores)), key=scores.__getitem__)


class MotionAware:
    """A `Track` of one pathway that follows SAMURAI's rules."""

    Rules = Rules
    motion_rules: Rules

    def __init__(self, **fields):
        super().__init__(**fields)
        if self.config.num_pathways != 1:
            raise ConfigError(f"the policy motion takes num_pathways 1; it is {self.config.num_pathways}")
        self._filter: BoxFilter | None = None
        self._steady, self._fits = 0, True

    def restart(self, frame):
        super().restart(frame)
        box = box_of((self.prompts[frame].mask[0, 0] > 0).cpu().numpy())
        self._filter, self._steady = None if box is None else BoxFilter(box), 0

    def decide(self, verdicts, look=None):
        (verdict,) = verdicts
        rules, there = self.motion_rules, verdict.object_logit > 0
        boxes = [box_of((look(0, k) > 0).cpu().numpy()) if there else None for k in range(len(verdict.ious))]
        motion = None
        if self._filter is not None:
            predicted = self._filter.predict()
            if self._steady >= rules.steady_for:
                motion = [0.0 if box is None else box_iou(box, predicted) for box in boxes]
        k = select(verdict.ious, motion, rules.weight)
        if boxes[k] is not None and verdict.ious[k] > rules.steady_iou:
            self._steady += 1
            self._filter = self._filter or BoxFilter(boxes[k])
            self._filter.update(boxes[k])
        else:
            self._steady = 0
        self._fits = motion is None or motion[k] > rules.memory_motion
        certain = tree.is_certain([verdict.object_logit], self.config.certainty_threshold)
        score = self.pathways[0].score + math.log(max(verdict.ious[k], 0.0) + tree.SCORE_EPSILON)
        taken = tree.Candidate(parent=0, mask=k, score=score, signed_iou=verdict.ious[k] * (1 if there else -1))
        return Decision([taken], rows=[0], margin=math.inf, certain=certain)

    def grow(self, frame, decision, readings, verdicts, *rest):
        if not self._fits:  # no memory: its IoU counts as none
            verdicts = [tree.Verdict((0.0,) * len(verdicts[0].ious), verdicts[0].object_logit)]
        super().grow(frame, decision, readings, verdicts, *rest)
