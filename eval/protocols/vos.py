"""SA-V's evaluator and vos-benchmark: ids as they occur, an object counts from where it is first seen or predicted.

Source: evaluation.md 0.5-0.8, 1.1; figures equal sav_evaluator 2b90b9f and vos-benchmark acb4733.
"""

from __future__ import annotations

from pathlib import Path

from eval import pngs
from eval.protocols import base
from eval.protocols.base import ObjectResult, Options, Scores
from eval.protocols.frames import Frame, FrameResult, Unit, score_all
from sam2long.errors import DataError

_GT_FOLDERS = (
    "Annotations_6fps",
    "sav_val/Annotations_6fps",
    "sav_test/Annotations_6fps",
    "Annotations/480p",
    "Annotations",
)


def _gt_folder(gt: Path) -> Path:
    for name in _GT_FOLDERS:
        if pngs.subfolders(gt / name):
            return gt / name
    return gt


def _videos(gt: Path, pred: Path, options: Options, notes: list[str]) -> tuple[Path, list[str]]:
    videos = base.chosen_videos(pngs.subfolders(gt), options, gt)
    pred = base.unwrap_predictions(pred, videos)
    absent = base.missing_videos(pred, videos)
    if options.strict:
        base.require_videos(pred, videos, "predict them all, or score the rest with --non-strict")
        extra = sorted(set(pngs.subfolders(pred)) - set(videos))
        if extra and options.videos is None:
            raise DataError(
                f"{pred} holds videos that {gt} does not: {pngs.some(extra)}; remove them, or score the common ones "
                "with --non-strict"
            )
    elif absent:
        notes.append(f"NOT STRICT: {len(absent)} of {len(videos)} videos are left out: {pngs.some(absent)}")
    videos = [v for v in videos if v not in absent]
    if not videos:
        raise DataError(f"{pred} and {gt} have no video in common; check --gt and --pred")
    return pred, videos


def _scored(names: list[str], folder: Path, options: Options) -> list[str]:
    scored = base.inner(names, options.skip_first_and_last)
    if not scored:
        raise DataError(
            f"{folder} holds {len(names)} frames and none is left to score; expected at least 3 PNG masks (the "
            "first and "
            "the last are not scored), or --all-frames"
        )
    return scored


def _plan(gt: Path, pred: Path, videos: list[str], options: Options) -> list[Unit]:
    per_object = any(pngs.subfolders(gt / v) for v in videos)
    units = []
    for video in videos:
        folders = pngs.subfolders(gt / video) if per_object else [""]
        if not folders:
            raise DataError(f"{gt / video} holds no object folder, while other videos do; download its annotations")
        if absent := [f for f in folders if per_object and not (pred / video / f).is_dir()]:
            raise DataError(
                f"{len(absent)} objects of video {video} have no prediction in {pred / video}: {pngs.some(absent)}; "
                "save one folder of PNGs per object"
            )
        for folder in folders:
            gt_folder, pred_folder = gt / video / folder, pred / video / folder
            names = _scored(pngs.png_stems(gt_folder), gt_folder, options)
            base.require_frames(pred_folder, f"{video}, object {folder}" if folder else video, names)
            units.append(
                Unit(
                    video=video,
                    folder=folder,
                    frames=tuple(Frame(n, gt_folder / f"{n}.png", pred_folder / f"{n}.png") for n in names),
                    binary=per_object,
                    void_to_background=options.gt255_to_0 and not per_object,
                )
            )
    return units


def _objects_of(unit: Unit, frames: list[FrameResult]) -> list[ObjectResult]:
    """Objects of the ground truth's scored frames, each from the first frame with its id in either mask."""
    first: dict[int, int] = {}
    in_gt = set()
    for t, frame in enumerate(frames):
        for obj, score in frame.scores.items():
            first.setdefault(obj, t)
            if score.gt_area:
                in_gt.add(obj)
    results = []
    for obj in sorted(in_gt):
        start = first[obj]
        rows = [frame.scores.get(obj, base.ABSENT) for frame in frames[start:]]
        j, f = [r.J for r in rows], [r.F for r in rows]
        j_mean, f_mean = base.mean(j) * 100, base.mean(f) * 100
        name = unit.folder or str(obj)
        results.append(
            ObjectResult(
                video=unit.video,
                obj=name,
                key=f"{unit.video}_{name}",
                values={"J&F": (j_mean + f_mean) / 2, "J": j_mean, "F": f_mean},
                per_frame={"J": j, "F": f},
                frame_names=tuple(fr.name for fr in unit.frames[start:]),
                areas=tuple((r.gt_area, r.pred_area) for r in rows),
            )
        )
    return results


def _evaluate(gt: Path, pred: Path, options: Options, *, protocol: str) -> Scores:
    base.refuse(protocol, options, meta=None, unseen=None, compat_decay=False)
    gt = _gt_folder(gt)
    notes: list[str] = []
    pred, videos = _videos(gt, pred, options, notes)
    units = _plan(gt, pred, videos, options)
    objects: list[ObjectResult] = []
    never_seen = []
    for unit, frames in zip(units, score_all(units, options.processes), strict=True):
        found = _objects_of(unit, frames)
        if unit.folder and not found:
            never_seen.append(f"{unit.video}/{unit.folder}")
        objects += found
    if never_seen:
        message = f"{len(never_seen)} objects are in no scored ground truth frame: {pngs.some(never_seen)}"
        if options.strict:
            raise DataError(
                f"{message}; SA-V's evaluator stops at that: use --all-frames, or drop them with --non-strict"
            )
        notes.append(f"NOT STRICT: {message}; left out")
    if not objects:
        raise DataError(f"no scored ground truth frame in {gt} holds an object; nothing can be scored: check --gt")
    j, f = base.mean([o.values["J"] for o in objects]), base.mean([o.values["F"] for o in objects])
    return Scores(
        protocol=protocol,
        unit="percent",
        summary={"J&F": (j + f) / 2, "J": j, "F": f},
        objects=objects,
        rounded=base.percent,
        reported_columns=("J&F", "J", "F"),
        nested=True,
        notes=notes,
    )


def _protocol(name: str):
    return lambda gt, pred, options: _evaluate(gt, pred, options, protocol=name)


PROTOCOLS = {name: _protocol(name) for name in ("sav", "vos-benchmark")}
