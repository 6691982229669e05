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


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    videos: int


def interval(values: dict[tuple[str, str], float], groups: dict[tuple[str, str], str], seed: int = 0) -> Interval:
    """The mean of objects' values, or of the means of groups of videos, when other videos had been drawn.

    Args:
        values: by (video, object).
        groups: of the same keys; all objects of a video are in one group. Videos are drawn within their groups.
    """
    rng, drawn, exact = np.random.default_rng(seed), [], []
    for group in sorted(set(groups.values())):
        members = [key for key in sorted(values) if groups[key] == group]
        index = {video: i for i, video in enumerate(dict.fromkeys(video for video, _ in members))}
        sums, counts = np.zeros(len(index)), np.zeros(len(index))
        for key in members:
            sums[index[key[0]]] += values[key]
            counts[index[key[0]]] += 1
        chosen = rng.integers(0, len(index), (RESAMPLES, len(index)))
        drawn.append(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1))
        exact.append(sums.sum() / counts.sum())
    low, high = (float(q) for q in np.percentile(np.mean(drawn, axis=0), (2.5, 97.5)))
    return Interval(float(np.mean(exact)), low, high, len({video for video, _ in values}))


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
