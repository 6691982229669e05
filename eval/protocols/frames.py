"""From pairs of PNG files to per-frame scores of every object, in parallel over pieces of videos.

Nothing here knows a protocol: a `Unit` says which files to compare and which ids count. Kept free of pandas and torch,
because worker processes import it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from eval import pngs
from eval.metrics import masks, mosev2
from sam2long.errors import DataError

PIECE = 24  # frames that a worker takes at a time


class Frame(NamedTuple):
    """One frame to score. `ids` None: whatever occurs in it."""

    name: str
    gt: Path
    pred: Path
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """What is scored together: a video, or one object's folder of a video (`folder`)."""

    video: str
    frames: tuple[Frame, ...]
    folder: str = ""
    binary: bool = False  # PNGs of one object each: anything above 0 is id 1
    binary_ids: bool = False  # DAVIS 2016: as `binary`, without asking for two values
    void_to_background: bool = False  # 255 in the ground truth becomes 0
    highest_id: int | None = None  # predicted ids above it ...
    above_highest: str = "ignore"  # ... "ignore", "cut" (and tell) or "error"
    smooth: bool = False  # MOSEv2's measures instead of DAVIS's


class ObjectScore(NamedTuple):
    """One id in one frame. `F_dot` is None outside MOSEv2."""

    J: float
    F: float
    F_dot: float | None
    gt_area: int
    pred_area: int


class FrameResult(NamedTuple):
    scores: dict[int, ObjectScore]
    extra_ids: tuple[int, ...]  # predicted ids above `highest_id`


def _read(unit: Unit, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    read = pngs.read_binary if unit.binary else pngs.read_ids
    gt, pred = read(frame.gt), read(frame.pred)
    if gt.shape != pred.shape:
        raise DataError(
            f"{frame.pred} is {pred.shape[1]}x{pred.shape[0]} pixels, its ground truth {frame.gt} "
            f"{gt.shape[1]}x{gt.shape[0]}; expected equal sizes: save masks at the size of the video"
        )
    if unit.void_to_background and cv2.minMaxLoc(gt)[1] == pngs.VOID:
        gt[gt == pngs.VOID] = 0
    if unit.binary_ids:
        gt, pred = np.minimum(gt, 1), np.minimum(pred, 1)
    return gt, pred


def score_frame(unit: Unit, frame: Frame) -> FrameResult:
    gt, pred = _read(unit, frame)
    shape = gt.shape
    gt, pred = masks.content(gt, pred)
    gt_ids, pred_ids = masks.ids_in(gt), masks.ids_in(pred)
    extra = tuple(i for i in pred_ids if unit.highest_id is not None and i > unit.highest_id)
    if extra and unit.above_highest == "error":
        raise DataError(
            f"{frame.pred} holds id {extra[-1]}, above the highest id {unit.highest_id} of the video's first ground "
            "truth frame; the DAVIS tool stops at that: predict the given objects only"
        )
    present = set(gt_ids) | set(pred_ids)
    scores = {}
    radius = masks.davis_radius(shape)
    for obj in sorted(present) if frame.ids is None else frame.ids:
        if obj not in present:
            scores[obj] = ObjectScore(1.0, 1.0, 1.0 if unit.smooth else None, 0, 0)
            continue
        gt_obj, pred_obj = gt == obj, pred == obj
        if unit.smooth:
            j, f, f_dot = mosev2.scores(gt_obj, pred_obj, shape)
        else:
            c = masks.counts(gt_obj, pred_obj, radius)
            j, f, f_dot = c.j, c.f, None
        areas = (int(np.count_nonzero(gt_obj)), int(np.count_nonzero(pred_obj)))
        scores[obj] = ObjectScore(j, f, f_dot, *areas)
    return FrameResult(scores, extra)


def _score_piece(piece: tuple[Unit, int, int]) -> list[FrameResult]:
    unit, start, stop = piece
    return [score_frame(unit, frame) for frame in unit.frames[start:stop]]


def _start_worker() -> None:
    cv2.setNumThreads(1)


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def score_all(units: list[Unit], processes: int | None = None) -> Iterator[list[FrameResult]]:
    """The frame results of each unit, in the given order, whatever the number of processes (None: all cores)."""
    pieces = [(s, a, a + PIECE) for s in units for a in range(0, len(s.frames), PIECE)]
    processes = min(available_cores() if processes is None else processes, len(pieces))
    if processes <= 1:
        results = map(_score_piece, pieces)
        yield from _regroup(units, results)
        return
    # forking is quick, but not once torch has started threads in this process
    can_fork = "fork" in multiprocessing.get_all_start_methods() and "torch" not in sys.modules
    context = multiprocessing.get_context("fork" if can_fork else "spawn")
    with context.Pool(processes, initializer=_start_worker) as pool:
        yield from _regroup(units, pool.imap(_score_piece, pieces))


def _regroup(units: list[Unit], results: Iterator[list[FrameResult]]) -> Iterator[list[FrameResult]]:
    for unit in units:
        frames: list[FrameResult] = []
        while len(frames) < len(unit.frames):
            frames += next(results)
        yield frames
