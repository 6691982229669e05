"""Mean, recall and decay over the frames of one object (DAVIS), and LVOS's V."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RECALL_ABOVE = 0.5
DECAY_BINS = 4


class Statistics(NamedTuple):
    mean: float
    recall: float
    decay: float


def mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of what is a number; nan when nothing is."""
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def recall(values: Sequence[float] | np.ndarray) -> float:
    """Share of all frames above 0.5; a frame without a number counts as not above."""
    values = np.asarray(values, dtype=np.float64)
    return float(np.mean(values > RECALL_ABOVE)) if values.size else float("nan")


def _bin_edges(n: int) -> np.ndarray:
    return np.round(np.linspace(1, n, DECAY_BINS + 1) + 1e-10).astype(np.int64) - 1


def decay(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the first quarter of the frames minus mean of the last; neighbouring quarters share a frame."""
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return float("nan")
    edges = _bin_edges(len(values))
    return mean(values[edges[0] : edges[1] + 1]) - mean(values[edges[3] : edges[4] + 1])


def decay_compat(values: Sequence[float] | np.ndarray) -> float:
    """`decay` as the DAVIS code gives it under numpy 2: its frame indices are uint8 and wrap from 256 frames on.

    Up to 255 frames this equals `decay`; above, the bins are wrong or empty (nan)."""
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return float("nan")
    edges = _bin_edges(len(values)).astype(np.uint8)
    last = (edges[1:] + np.uint8(1)).astype(np.uint8)  # the wrap at exactly 256 frames
    return mean(values[int(edges[0]) : int(last[0])]) - mean(values[int(edges[3]) : int(last[3])])


def statistics(values: Sequence[float] | np.ndarray, compat_decay: bool = False) -> Statistics:
    return Statistics(mean(values), recall(values), (decay_compat if compat_decay else decay)(values))


def lvos_v(j: Sequence[float] | np.ndarray, f: Sequence[float] | np.ndarray) -> float:
    """LVOS's V: standard deviation of J&F over the frames, from a variance rounded to four decimals."""
    jf = (np.asarray(j, dtype=np.float64) + np.asarray(f, dtype=np.float64)) / 2
    if not jf.size:
        return float("nan")
    return float(np.sqrt(np.round(np.sum((jf.mean() - jf) ** 2) / jf.size, 4)))
