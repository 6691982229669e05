"""Box tracking: AUC, precision and normalised precision (LaSOT), AO and success rates (GOT-10k).

Ground truth: <video>/groundtruth.txt (with LaSOT's full_occlusion.txt and out_of_view.txt where there are any) or
<video>.txt. Predictions: <video>.txt, <video>/groundtruth.txt, or a folder of PNG masks per video. A line is x,y,w,h.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval import pngs
from eval.metrics import boxes
from eval.protocols import base
from eval.protocols.base import ObjectResult, Options, Scores
from sam2long.errors import DataError

_COLUMNS = ("AUC", "P", "P_norm", "AO", "SR50", "SR75")


def read_boxes(path: Path) -> np.ndarray:
    """[frames, 4] from lines of four numbers, separated by commas, tabs or spaces."""
    rows = []
    for number, line in enumerate(pngs.read_list(path), start=1):
        try:
            row = [float(v) for v in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 4:
            raise DataError(f"{path}, line {number}, is {line!r}; expected four numbers: x, y, width, height")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} is empty; expected one box per frame: x, y, width, height")
    return np.array(rows)


def _flags(path: Path) -> np.ndarray:
    """LaSOT's 0/1 lists: one line with commas, or one number per line."""
    values = [v for line in pngs.read_list(path) for v in line.replace(",", " ").split()]
    if odd := [v for v in values if v not in ("0", "1")]:
        raise DataError(f"{path} holds {odd[0]!r}; expected 0 or 1 for each frame: download it again")
    return np.array(values, dtype=int)


def _gt_file(gt: Path, video: str) -> Path:
    nested = gt / video / "groundtruth.txt"
    return nested if nested.exists() else gt / f"{video}.txt"


def _gt_videos(gt: Path) -> list[str]:
    folders = pngs.subfolders(gt)
    nested = [v for v in folders if (gt / v / "groundtruth.txt").exists()]
    if nested and (without := [v for v in folders if v not in nested]):
        raise DataError(f"{gt} holds videos without groundtruth.txt: {pngs.some(without)}; download it or remove them")
    return nested or sorted(p.stem for p in gt.glob("*.txt"))


def _predicted(pred: Path, video: str) -> np.ndarray | None:
    for path in (pred / f"{video}.txt", pred / video / "groundtruth.txt"):
        if path.exists():
            return read_boxes(path)
    names = sorted(pngs.png_stems(pred / video), key=lambda n: (pngs.frame_number(n) or 0, n))
    if names:
        return np.array([boxes.mask_to_box(pngs.read_ids(pred / video / f"{n}.png")) for n in names], dtype=np.float64)
    return None


def _visible(gt: Path, video: str, frames: int) -> np.ndarray | None:
    visible = None
    for name in ("full_occlusion.txt", "out_of_view.txt"):
        path = gt / video / name
        if path.exists():
            flags = _flags(path)
            if len(flags) != frames:
                raise DataError(f"{path} holds {len(flags)} flags; expected one per frame, {frames}: download it again")
            visible = (flags == 0) if visible is None else visible & (flags == 0)
    return visible


def _evaluate(gt: Path, pred: Path, options: Options) -> Scores:
    base.refuse(
        "box",
        options,
        strict=True,
        skip_first_and_last=True,
        gt255_to_0=False,
        compat_decay=False,
        meta=None,
        unseen=None,
    )
    videos = base.chosen_videos(_gt_videos(gt), options, gt)
    predictions = {v: _predicted(pred, v) for v in videos}
    if missing := [v for v, p in predictions.items() if p is None]:
        raise DataError(
            f"{len(missing)} of {len(videos)} videos have no prediction in {pred}: {pngs.some(missing)}; expected "
            "<video>.txt with one box per frame, or a folder of PNG masks"
        )
    objects, curves, tracked = [], [], []
    for video in videos:
        truth, boxes_of = read_boxes(_gt_file(gt, video)), predictions[video]
        if len(truth) != len(boxes_of):
            raise DataError(
                f"video {video} has {len(boxes_of)} predicted boxes, its ground truth {len(truth)}; expected "
                "one per frame"
            )
        if not np.isfinite(boxes_of).all() or (boxes_of[:, 2:] < 0).any():
            raise DataError(
                f"the predicted boxes of video {video} have values that are no numbers, or negative sizes; expected "
                "x, y, width, height in pixels, width and height 0 where nothing is seen"
            )
        s = boxes.score(truth, boxes_of, _visible(gt, video, len(truth)))
        curves.append(s.success)
        tracked.append(s.tracked)
        values = (float(np.mean(s.success)), s.precision, s.norm_precision, *boxes.overlap_rates(s.tracked))
        objects.append(
            ObjectResult(
                video=video,
                obj="1",
                key=video,
                values={c: v * 100 for c, v in zip(_COLUMNS, values, strict=True)},
                per_frame={"iou": s.iou.tolist()},
                frame_names=tuple(str(i) for i in range(len(truth))),
            )
        )
    summary = {"AUC": float(np.mean(np.mean(curves, axis=0))) * 100}
    summary |= {c: base.mean([o.values[c] for o in objects]) for c in ("P", "P_norm")}
    pooled = boxes.overlap_rates(np.concatenate(tracked))  # GOT-10k's toolkit pools the frames of all videos
    summary |= {c: 100 * value for c, value in zip(("AO", "SR50", "SR75"), pooled, strict=True)}
    return Scores(
        protocol="box",
        unit="percent",
        summary=summary,
        objects=objects,
        rounded=lambda v: None if v is None else float(f"{v:.2f}"),
        reported_columns=_COLUMNS,
        nested=False,
    )


PROTOCOLS = {"box": _evaluate}
