"""Paired bootstrap over videos: is the difference of two runs more than the choice of videos?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
FEW_VIDEOS = 10


class Difference(NamedTuple):
    """Mean over objects, B minus A, with a 95 % interval and a two-sided p from the resamples."""

    mean: float
    low: float
    high: float
    p: float
    videos: int
    objects: int

    def __str__(self) -> str:
        few = "; too few videos for the interval to mean much" if self.videos < FEW_VIDEOS else ""
        return (
            f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}] (95 %, p = {self.p:.4f}, {self.videos} videos, "
            f"{self.objects} objects{few})"
        )


def paired(a: dict[tuple[str, str], float], b: dict[tuple[str, str], float], seed: int = 0) -> Difference:
    """a, b: scores by (video, object). Videos are drawn with replacement, both runs the same ones; objects weigh
    equally.

    Only objects that both have count; at least one is needed."""
    common = sorted(set(a) & set(b))
    if not common:
        raise ValueError("the two runs have no object in common; compare runs on the same data set and protocol")
    videos = sorted({v for v, _ in common})
    index = {v: i for i, v in enumerate(videos)}
    sums, counts = np.zeros(len(videos)), np.zeros(len(videos))
    for key in common:
        sums[index[key[0]]] += b[key] - a[key]
        counts[index[key[0]]] += 1
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(videos), (RESAMPLES, len(videos)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    mean = float(sums.sum() / counts.sum())
    low, high = (float(q) for q in np.percentile(means, (2.5, 97.5)))
    against = float((means <= 0).mean() if mean > 0 else (means >= 0).mean())
    p = min(1.0, max(2 * against, 1 / RESAMPLES))
    return Difference(mean, low, high, p, len(videos), len(common))
