"""DAVIS 2017 (and 2016), and VOST: objects are 1..K of the first frame, scored on every frame but the first and last.

Source: evaluation.md 1.2, 1.3, 1.8; figures equal davis2017-evaluation ac7c43f and VOST fe27457.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from eval import pngs
from eval.metrics import masks
from eval.metrics.statistics import statistics
from eval.protocols import base
from eval.protocols.base import ObjectResult, Options, Scores
from eval.protocols.frames import Frame, Unit, score_all
from sam2long.errors import DataError

LAST_QUARTER = 0.75  # J_tr (J_last): the frames from here on


def _resolution_folder(root: Path) -> Path:
    """The folder of video folders inside a data set, or `root` itself if it is that already."""
    for name in ("Annotations/480p", "Annotations/Full-Resolution", "Annotations"):
        if (root / name).is_dir() and pngs.subfolders(root / name):
            return root / name
    return root


def _list_file(root: Path, year: str, set_name: str) -> Path:
    nested = root / "ImageSets" / year / f"{set_name}.txt"
    return nested if nested.exists() else root / "ImageSets" / f"{set_name}.txt"


def _find_videos(gt: Path, annotations: Path, year: str, options: Options) -> list[str]:
    have = pngs.subfolders(annotations)
    if options.videos is None and (gt / "ImageSets").is_dir():
        file = _list_file(gt, year, options.set_name)
        videos = pngs.read_list(file)
        if absent := [v for v in videos if v not in have]:
            raise DataError(
                f"{file} lists videos without ground truth in {annotations}: {pngs.some(absent)}; download the "
                "annotations"
            )
        return base.chosen_videos(videos, replace(options, videos=None), annotations)
    return base.chosen_videos(have, options, annotations)


def _first_frame_objects(path: Path, binary: bool) -> int:
    """K: the highest id of the first frame, 255 not counted."""
    ids = [i for i in masks.ids_in(pngs.read_ids(path)) if i != pngs.VOID or binary]
    return (1 if binary else max(ids)) if ids else 0


def _plan(
    gt: Path, pred: Path, options: Options, *, year: str, above_highest: str, binary: bool, every_image: bool
) -> list[Unit]:
    annotations = _resolution_folder(gt)
    videos = _find_videos(gt, annotations, year, options)
    pred = base.unwrap_predictions(pred, videos)
    base.require_videos(pred, videos)
    units = []
    for video in videos:
        names = pngs.png_stems(annotations / video)
        if every_image:
            _require_annotated(gt, annotations, video, names)
        scored = base.inner(names)
        if not scored:
            raise DataError(
                f"{annotations / video} holds {len(names)} frames; expected at least 3 PNG masks, because the "
                "first and "
                "the last are not scored: check --gt"
            )
        base.require_frames(pred / video, video, scored)
        highest = _first_frame_objects(annotations / video / f"{names[0]}.png", binary)
        ids = tuple(range(1, highest + 1))
        units.append(
            Unit(
                video=video,
                frames=tuple(
                    Frame(n, annotations / video / f"{n}.png", pred / video / f"{n}.png", ids) for n in scored
                ),
                binary_ids=binary,
                void_to_background=not binary,
                highest_id=highest,
                above_highest=above_highest,
            )
        )
    return units


def _require_annotated(gt: Path, annotations: Path, video: str, names: list[str]) -> None:
    """Every image of the data set has its mask: one that is lost would be a frame less, without a word."""
    images = gt / "JPEGImages" / annotations.relative_to(gt).name / video if annotations != gt else gt / "-"
    if not images.is_dir():
        images = gt / "JPEGImages" / video
    if not images.is_dir():
        return
    have = set(names)
    if missing := sorted(p.stem for p in images.iterdir() if p.suffix in pngs.JPEG_SUFFIXES and p.stem not in have):
        raise DataError(
            f"{len(missing)} frames of video {video} have an image and no ground truth in {annotations / video}: "
            f"{pngs.some(f'{n}.png' for n in missing)}; download the annotations again"
        )


def _object_results(units: list[Unit], options: Options, measures: tuple[str, ...], notes: list[str]):
    for unit, frames in zip(units, score_all(units, options.processes), strict=True):
        if extra := sorted({i for frame in frames for i in frame.extra_ids}):
            notes.append(f"{unit.video}: predicted ids {pngs.some(extra)} are above the highest given id; cut off")
        for obj in range(1, (unit.highest_id or 0) + 1):
            rows = [frame.scores[obj] for frame in frames]
            lists = {"J": [r.J for r in rows], "F": [r.F for r in rows]}
            if "J_last" in measures:
                lists["J_last"] = lists["J"][int(LAST_QUARTER * len(rows)) :]
            values = {}
            stats = {m: statistics(lists[m], options.compat_decay) for m in measures}
            for kind in ("mean", "recall", "decay"):
                for m in measures:
                    values[f"{m}-{kind.title()}"] = getattr(stats[m], kind)
            yield ObjectResult(
                video=unit.video,
                obj=str(obj),
                key=f"{unit.video}_{obj}",
                values=values,
                per_frame={m: lists[m] for m in measures},
                frame_names=tuple(f.name for f in unit.frames),
                areas=tuple((r.gt_area, r.pred_area) for r in rows),
            )


def _evaluate(gt: Path, pred: Path, options: Options, *, protocol: str) -> Scores:
    vost, binary = protocol == "vost", protocol == "davis2016"
    base.refuse(protocol, options, strict=True, skip_first_and_last=True, gt255_to_0=False, meta=None, unseen=None)
    measures = ("J", "J_last") if vost else ("J", "F")
    units = _plan(
        gt,
        pred,
        options,
        year="2016" if binary else "2017",
        above_highest="cut" if vost else "ignore" if binary else "error",
        binary=binary,
        every_image=not vost,  # VOST annotates some of its frames only
    )
    notes: list[str] = []
    objects = list(_object_results(units, options, measures, notes))
    if not objects:
        raise DataError(f"no first ground truth frame in {gt} holds an object; nothing can be scored: check --gt")
    summary = {
        f"{m}-{kind}": base.mean([o.values[f"{m}-{kind}"] for o in objects])
        for m in measures
        for kind in ("Mean", "Recall", "Decay")
    }
    if not vost:
        summary = {"J&F-Mean": (summary["J-Mean"] + summary["F-Mean"]) / 2} | summary
    if not options.compat_decay and any(len(u.frames) > 255 for u in units):
        notes.append("videos of more than 255 scored frames: decay is the correct one; --compat-decay gives the tool's")
    return Scores(
        protocol=protocol,
        unit="fraction",
        summary=summary,
        objects=objects,
        rounded=base.fraction,
        reported_columns=tuple(f"{m}-Mean" for m in measures),
        nested=False,
        notes=notes,
    )


def _protocol(name: str):
    return lambda gt, pred, options: _evaluate(gt, pred, options, protocol=name)


PROTOCOLS = {name: _protocol(name) for name in ("davis", "davis2016", "vost")}
