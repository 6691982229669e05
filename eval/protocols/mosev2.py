"""MOSEv2's scorer: smoothed J, F-dot, and scores of the clips in which an object is gone or back.

Source: evaluation.md 1.6, 2.4; figures equal MOSE-api 241977a score.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval import pngs
from eval.metrics.clips import clip_mean, find_clips
from eval.protocols import base
from eval.protocols.base import ObjectResult, Options, Scores
from eval.protocols.frames import Frame, Unit, score_all
from eval.protocols.lvos import read_meta
from sam2long.errors import DataError

_COPY_PASTE = ("J&F_new", "J", "F_new", "disappear_J&F_new", "reappear_J&F_new", "F", "J&F")


def _rounded(value: float | None) -> float | None:
    """Two decimals the way numpy rounds, as the scorer does on its numpy floats: 2.675 becomes 2.68."""
    return None if value is None else float(np.round(value, 2))


def _object_ids(video: str, entry: dict, meta: Path) -> tuple[int, ...]:
    try:
        ids = tuple(int(i) for i in entry["objects"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{meta} names no objects of video {video}; expected a list of ids or an object per id"
        ) from None
    if not ids or min(ids) < 1:
        raise DataError(f"{meta} names no objects of video {video}; expected a list of ids from 1, or an object per id")
    return ids


def _int_sorted(names: list[str], folder: Path) -> list[str]:
    if odd := [n for n in names if pngs.frame_number(n) is None]:
        raise DataError(f"{folder} holds {pngs.some(f'{n}.png' for n in odd)}; expected frame numbers as names")
    return sorted(names, key=lambda n: (pngs.frame_number(n), n))


def _frames(annotations: Path, pred: Path, video: str, length: object, meta: Path) -> list[str]:
    """Names of the frames 1 to L-2. The official tool counts frames in the prediction folder, so that a missing one
    moves its window without a word; here every ground truth frame but the last, which nothing reads, must be there."""
    names = _int_sorted(pngs.png_stems(annotations / video), annotations / video)
    if length is not None and str(length) != str(len(names)):
        raise DataError(
            f"{annotations / video} holds {len(names)} PNGs, {meta.name} says length {length}; expected equal numbers: "
            "check --gt and the meta file"
        )
    base.require_frames(pred / video, video, names[:-1])
    last = pngs.frame_number(names[-1]) if names else 0
    between = [n for n in pngs.png_stems(pred / video) if n not in names and (pngs.frame_number(n) or 0) <= last]
    if between:
        raise DataError(
            f"{pred / video} holds frames that the ground truth does not: {pngs.some(f'{n}.png' for n in between)}; "
            "they move the tool's window of scored frames: remove them"
        )
    if len(names) < 3:
        raise DataError(f"{annotations / video} holds {len(names)} frames; expected at least 3: check --gt")
    return names[1:-1]


def _object_result(unit: Unit, obj: int, rows: list) -> ObjectResult:
    j, f, dot = [r.J for r in rows], [r.F for r in rows], [r.F_dot for r in rows]
    empty = [r.gt_area == 0 for r in rows]
    clips = find_clips(empty)
    fractions = {"J": base.mean(j), "F_new": base.mean(dot), "F": base.mean(f)}
    values = _percent_means(fractions)
    for kind, ranges in zip(("disappear", "reappear"), clips, strict=True):
        parts = clip_mean(j, ranges), clip_mean(dot, ranges)
        fractions |= {f"{kind}_J": parts[0], f"{kind}_F": parts[1]}
        values[f"{kind}_J&F_new"] = None if parts[0] is None else (parts[0] + parts[1]) / 2 * 100
    return ObjectResult(
        video=unit.video,
        obj=str(obj),
        key=f"{unit.video}_{obj}",
        values={k: values[k] for k in _COPY_PASTE},
        fractions=fractions,
        per_frame={"J": j, "F": f, "F_new": dot, "empty_gt": empty},
        frame_names=tuple(fr.name for fr in unit.frames),
        areas=tuple((r.gt_area, r.pred_area) for r in rows),
    )


def _percent_means(fractions: dict[str, float]) -> dict[str, float | None]:
    j, dot, f = fractions["J"], fractions["F_new"], fractions["F"]
    return {"J&F_new": (j + dot) / 2 * 100, "J": j * 100, "F_new": dot * 100, "F": f * 100, "J&F": (j + f) / 2 * 100}


def _absent_object(video: str, obj: int) -> ObjectResult:
    fractions = {"J": 0.0, "F_new": 0.0, "F": 0.0}
    values = _percent_means(fractions) | {"disappear_J&F_new": None, "reappear_J&F_new": None}
    return ObjectResult(
        video=video,
        obj=str(obj),
        key=f"{video}_{obj}",
        values={k: values[k] for k in _COPY_PASTE},
        fractions=fractions,
        per_frame={},
    )


def summarise(objects: list[ObjectResult]) -> dict[str, float]:
    def over(name: str) -> float:
        return base.mean([o.fractions[name] for o in objects if o.fractions.get(name) is not None])

    summary = _percent_means({name: over(name) for name in ("J", "F_new", "F")})
    for kind in ("disappear", "reappear"):  # only objects that have such clips count
        summary[f"{kind}_J&F_new"] = (over(f"{kind}_J") + over(f"{kind}_F")) / 2 * 100
    return {k: summary[k] for k in _COPY_PASTE}


def _copy_paste(rounded: dict) -> dict:
    return {"Copy-Paste": ",".join(f"{rounded[k]:.1f}" for k in _COPY_PASTE)}


def _evaluate(gt: Path, pred: Path, options: Options) -> Scores:
    base.refuse("mosev2", options, skip_first_and_last=True, gt255_to_0=False, compat_decay=False, unseen=None)
    annotations = gt / "Annotations" if (gt / "Annotations").is_dir() else gt
    meta_path = options.meta or next(
        (p for p in (gt / "meta.json", annotations.parent / "meta.json") if p.exists()), gt / "meta.json"
    )
    meta = read_meta(meta_path)
    videos = base.chosen_videos(list(meta), options, meta_path)
    if options.videos is None and (unlisted := sorted(set(pngs.subfolders(annotations)) - set(meta))):
        raise DataError(
            f"{annotations} holds videos that {meta_path} does not list: {pngs.some(unlisted)}; check --gt and --meta"
        )
    if absent := [v for v in videos if not (annotations / v).is_dir()]:
        raise DataError(
            f"{meta_path} lists videos without ground truth in {annotations}: {pngs.some(absent)}; check --gt"
        )
    pred = base.unwrap_predictions(pred, videos)
    absent = base.missing_videos(pred, videos)
    notes = []
    if options.strict:
        base.require_videos(pred, videos, "predict them all, or let their objects score 0 with --non-strict")
    elif absent:
        notes.append(f"NOT STRICT: {len(absent)} of {len(videos)} videos score 0: {pngs.some(absent)}")
    units = []
    for video in (v for v in videos if v not in absent):
        ids = _object_ids(video, meta[video], meta_path)
        names = _frames(annotations, pred, video, meta[video].get("length"), meta_path)
        frames = tuple(Frame(n, annotations / video / f"{n}.png", pred / video / f"{n}.png", ids) for n in names)
        units.append(Unit(video=video, frames=frames, smooth=True))
    objects = []
    for unit, frames in zip(units, score_all(units, options.processes), strict=True):
        for obj in unit.frames[0].ids:
            objects.append(_object_result(unit, obj, [frame.scores[obj] for frame in frames]))
    objects += [_absent_object(v, i) for v in absent for i in _object_ids(v, meta[v], meta_path)]
    return Scores(
        protocol="mosev2",
        unit="percent",
        summary=summarise(objects),
        objects=objects,
        rounded=_rounded,
        reported_columns=_COPY_PASTE,
        nested=False,
        notes=notes,
        reported_extra=_copy_paste,
    )


PROTOCOLS = {"mosev2": _evaluate}
