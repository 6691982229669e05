"""MOSEv2's disappearance and reappearance clips of one object."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np


class Clips(NamedTuple):
    """Half-open frame ranges, counted from the first scored frame."""

    disappear: list[tuple[int, int]]
    reappear: list[tuple[int, int]]


def find_clips(gt_is_empty: Sequence[bool]) -> Clips:
    """Runs of frames without the object, but not one that starts at the first scored frame (it never was there);
    and runs with the object that follow a run without it, that one included."""
    clips, start = Clips([], []), 0
    for empty, run in groupby(bool(e) for e in gt_is_empty):
        stop = start + len(list(run))
        if start > 0:
            (clips.disappear if empty else clips.reappear).append((start, stop))
        start = stop
    return clips


def clip_mean(values: Sequence[float], ranges: Sequence[tuple[int, int]]) -> float | None:
    """Mean over the clips of the mean inside each clip; None without a clip."""
    if not ranges:
        return None
    return float(np.mean([np.mean(values[start:stop]) for start, stop in ranges]))
