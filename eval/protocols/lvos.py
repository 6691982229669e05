"""LVOS's own evaluator: frame ranges from the meta file, seen and unseen videos averaged apart.

Source: evaluation.md 0.4, 1.7, 2.3; figures equal lvos-evaluation 25cb02d (its Python boundary, never the Cython one).
`lvos-2023` is the tool before May 2024: the first and last frame of an object count too, and fewer videos are unseen.
"""

from __future__ import annotations

import json
from pathlib import Path

from eval import pngs
from eval.metrics.statistics import lvos_v
from eval.protocols import base
from eval.protocols.base import ObjectResult, Options, Scores
from eval.protocols.frames import Frame, Unit, score_all
from sam2long.errors import DataError

FRAME_STEP = 5  # the annotated 6 fps of a 30 fps source
_HERE = Path(__file__).parent
_UNSEEN_LISTS = {"lvos": _HERE / "lvos_unseen.txt", "lvos-2023": _HERE / "lvos_unseen_2023.txt"}


def find_meta(gt: Path, set_name: str = "val") -> Path:
    """<split>_meta.json, in the split's folder or beside it; the tool calls the split "valid", the data set "val"."""
    names = {"val": ("valid", "val"), "valid": ("valid", "val")}.get(set_name, (set_name,))
    looked = [folder / f"{n}_meta.json" for folder in (gt, gt / set_name, gt.parent) for n in names]
    for path in looked:
        if path.exists():
            return path
    raise DataError(
        f"no {names[0]}_meta.json was found in {gt} or beside it; it comes with LVOS's annotations: check --gt"
    )


def read_meta(path: Path) -> dict:
    """The "videos" of a meta JSON."""
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; expected the data set's meta JSON") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError(
            f'{path} is not a meta file; expected JSON with "videos" at its top: download it again'
        ) from None
    if not isinstance(videos, dict) or not videos:
        raise DataError(f'{path} lists no videos; expected {{"videos": {{name: ...}}}}: download it again')
    return videos


def object_range(video: str, obj: str, entry: dict, meta: Path) -> tuple[list[str], int]:
    """(frame names of the object, its frame_nums). `end` is exclusive; numbers may be strings."""
    try:
        r = entry["frame_range"]
        start, end, count = int(r["start"]), int(r["end"]), int(r["frame_nums"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{meta}, video {video}, object {obj}: frame_range is {entry!r}; expected start, end and frame_nums "
            "as integers"
        ) from None
    names = [f"{i:08d}" for i in range(start, end, FRAME_STEP)]
    if len(names) > count:
        raise DataError(
            f"{meta}, video {video}, object {obj}: frame_nums is {count}, but start {start} to end {end} in steps of "
            f"{FRAME_STEP} are {len(names)} frames; correct frame_nums"
        )
    return names, count


def _unseen(gt: Path, options: Options, protocol: str) -> set[str]:
    if options.unseen:
        return set(pngs.read_list(options.unseen))
    for folder in (gt, gt.parent) if protocol == "lvos" else ():  # data sets come with today's list
        if (folder / "unseen_videos.txt").exists():
            return set(pngs.read_list(folder / "unseen_videos.txt"))
    return set(pngs.read_list(_UNSEEN_LISTS[protocol]))


def _plan(gt: Path, pred: Path, videos: list[str], meta: dict, meta_path: Path, skip: bool):
    """Units of every video, and per video the objects: (position in the meta file, id, scored names, length of the
    mean)."""
    units, tables = [], []
    for video in videos:
        annotations, table, wanted = gt / "Annotations" / video, [], {}
        entries = meta[video].get("objects") if isinstance(meta[video], dict) else None
        if not isinstance(entries, dict) or not entries:
            raise DataError(
                f"{meta_path} names no object of video {video}; expected its objects with a frame_range each"
            )
        if odd := [obj for obj in entries if not obj.isdecimal()]:
            raise DataError(f"{meta_path}, video {video}, has an object {odd[0]!r}; expected ids as numbers")
        for position, (obj, entry) in enumerate(entries.items(), start=1):
            names, count = object_range(video, obj, entry, meta_path)
            scored = [n for i, n in enumerate(names) if not skip or i not in (0, count - 1)]
            length = count - 2 if skip else count
            if length <= 0:
                raise DataError(
                    f"{meta_path}, video {video}, object {obj}: frame_nums is {count}, which leaves no frame to score; "
                    "expected at least 3"
                )
            table.append((position, int(obj), scored, length))
            for name in scored:
                wanted.setdefault(name, []).append(int(obj))
        have = set(pngs.png_stems(annotations))
        if missing := sorted(n for n in wanted if n not in have):
            raise DataError(
                f"{len(missing)} frames of video {video} that {meta_path.name} lists have no ground truth in "
                f"{annotations}: "
                f"{pngs.some(f'{n}.png' for n in missing)}; download the full annotations"
            )
        base.require_frames(pred / video, video, sorted(wanted))
        tables.append(table)
        units.append(
            Unit(
                video=video,
                frames=tuple(
                    Frame(n, annotations / f"{n}.png", pred / video / f"{n}.png", tuple(wanted[n]))
                    for n in sorted(wanted)
                ),
            )
        )
    return units, tables


def _group_means(objects: list[ObjectResult], measure: str) -> tuple[float, float]:
    of = {g: [o.values[f"{measure}-Mean"] for o in objects if o.group == g] for g in ("seen", "unseen")}
    return base.mean(of["seen"]), base.mean(of["unseen"])


def summarise(objects: list[ObjectResult]) -> dict[str, float]:
    """Half the mean over seen objects plus half the mean over unseen ones; nan when either group is empty."""
    (js, ju), (fs, fu), (vs, vu) = (_group_means(objects, m) for m in "JFV")
    return {
        "J&F-Mean": (js + ju + fs + fu) / 4,
        "J-Mean": (js + ju) / 2,
        "J-seen-Mean": js,
        "J-unseen-Mean": ju,
        "F-Mean": (fs + fu) / 2,
        "F-seen-Mean": fs,
        "F-unseen-Mean": fu,
        "V-Mean": (vs + vu) / 2,
        "V-seen-Mean": vs,
        "V-unseen-Mean": vu,
    }


def _evaluate(gt: Path, pred: Path, options: Options, *, protocol: str) -> Scores:
    base.refuse(protocol, options, strict=True, skip_first_and_last=True, gt255_to_0=False, compat_decay=False)
    if not (gt / "Annotations").is_dir() and (gt / options.set_name / "Annotations").is_dir():
        gt = gt / options.set_name
    meta_path = options.meta or find_meta(gt, options.set_name)
    meta = read_meta(meta_path)
    videos = sorted(base.chosen_videos(list(meta), options, meta_path))
    unseen = _unseen(gt, options, protocol)
    pred = base.unwrap_predictions(pred, videos)
    base.require_videos(pred, videos)
    units, tables = _plan(gt, pred, videos, meta, meta_path, skip=protocol == "lvos")
    objects, notes = [], []
    for unit, table, frames in zip(units, tables, score_all(units, options.processes), strict=True):
        by_name = {frame.name: result for frame, result in zip(unit.frames, frames, strict=True)}
        for position, obj, names, length in table:
            rows = [by_name[n].scores[obj] for n in names]
            padding = [0.0] * (length - len(rows))
            if padding:
                notes.append(
                    f"{unit.video}, object {obj}: frame_nums exceeds the range; the tool counts {len(padding)} zeros"
                )
            j, f = [r.J for r in rows] + padding, [r.F for r in rows] + padding
            objects.append(
                ObjectResult(
                    video=unit.video,
                    obj=str(obj),
                    key=f"{unit.video}_{position}",
                    values={"J-Mean": base.mean(j), "F-Mean": base.mean(f), "V-Mean": lvos_v(j, f)},
                    per_frame={"J": j, "F": f},
                    frame_names=tuple(names),
                    areas=tuple((r.gt_area, r.pred_area) for r in rows),
                    group="unseen" if unit.video in unseen else "seen",
                )
            )
    for group in ("seen", "unseen"):
        if not any(o.group == group for o in objects):
            notes.append(
                f"no {group} video: the overall means are not numbers, as in the official tool; read J-, F-{group}"
            )
    return Scores(
        protocol=protocol,
        unit="fraction",
        summary=summarise(objects),
        objects=objects,
        rounded=base.fraction,
        reported_columns=("J-Mean", "F-Mean", "V-Mean"),
        nested=False,
        notes=notes,
    )


def _protocol(name: str):
    return lambda gt, pred, options: _evaluate(gt, pred, options, protocol=name)


PROTOCOLS = {name: _protocol(name) for name in ("lvos", "lvos-2023")}
