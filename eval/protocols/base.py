"""What every protocol shares: its options, its result, and finding videos and frames strictly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eval import pngs
from eval.protocols.frames import ObjectScore
from sam2long.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Switches of the scorer. A protocol refuses those that it has no meaning for."""

    strict: bool = True
    skip_first_and_last: bool = True
    gt255_to_0: bool = False
    compat_decay: bool = False
    set_name: str = "val"
    videos: Path | tuple[str, ...] | None = None  # names, or a list file, instead of the data set's own
    meta: Path | None = None  # meta JSON (lvos, mosev2), instead of the one in the data set
    unseen: Path | None = None  # lvos: list of unseen videos
    processes: int | None = None


def percent(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.1f}")


def fraction(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3f}")


@dataclass(frozen=True, kw_only=True)
class ObjectResult:
    """One object of one video. `key` is the row name of the official table, where that is not the id."""

    video: str
    obj: str
    key: str
    values: dict[str, float | None]  # exact, in the protocol's unit
    fractions: dict[str, float | None] = field(
        default_factory=dict
    )  # what the summary is made from, where not `values`
    per_frame: dict[str, list]  # the official tool's own lists, fractions
    frame_names: tuple[str, ...] = ()
    areas: tuple[tuple[int, int], ...] = ()  # (ground truth, prediction) pixels of each frame
    group: str = ""  # "seen" or "unseen" (lvos)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Result of an evaluation. `exact` values have all digits; `reported` are rounded as the official tool prints
    them."""

    protocol: str
    unit: str  # "fraction" or "percent"
    summary: dict[str, float | None]
    objects: list[ObjectResult]
    rounded: Callable[[float | None], float | None]
    reported_columns: tuple[str, ...]  # per-object columns that the official tool writes
    nested: bool  # official rows are video -> object (True) or "<video>_<object>" (False)
    notes: list[str] = field(default_factory=list)
    reported_extra: Callable[[dict], dict] | None = None  # further official summary lines, made from the rounded ones

    def _by_object(self, objects: list[ObjectResult], value: Callable[[ObjectResult], object]) -> dict:
        table: dict = {}
        for o in objects:
            if self.nested:
                table.setdefault(o.video, {})[o.obj] = value(o)
            else:
                table[o.key] = value(o)
        return table

    def reported(self) -> dict:
        summary = {k: self.rounded(v) for k, v in self.summary.items()}
        if self.reported_extra:
            summary |= self.reported_extra(summary)
        rows = self._by_object(self.objects, lambda o: {k: self.rounded(o.values[k]) for k in self.reported_columns})
        return {"global": summary, "per_object": rows}

    def exact(self) -> dict:
        return {
            "global": self.summary,
            "per_object": self._by_object(self.objects, lambda o: o.values),
            "per_frame": self._by_object([o for o in self.objects if o.per_frame], lambda o: o.per_frame),
        }


def mean(values: Sequence[float]) -> float:
    """Mean of numbers; nan of nothing, as the official tools give it."""
    return float(np.mean(values)) if len(values) else float("nan")


def refuse(protocol: str, options: Options, **allowed_defaults: object) -> None:
    """Raise for options that were set and that this protocol has no meaning for."""
    for name, default in allowed_defaults.items():
        if getattr(options, name) != default:
            flag = "--non-strict" if name == "strict" else "--" + name.replace("_", "-")
            raise DataError(f"protocol {protocol} has no option {flag}; leave it out or choose another protocol")


def chosen_videos(all_videos: list[str], options: Options, where: Path) -> list[str]:
    """The videos to score: those of --videos, if given, else all."""
    if options.videos is None:
        videos = all_videos
    else:
        videos = list(options.videos) if isinstance(options.videos, tuple) else pngs.read_list(options.videos)
        if unknown := sorted(set(videos) - set(all_videos)):
            raise DataError(f"videos to score have no ground truth in {where}: {pngs.some(unknown)}; check --videos")
    if not videos:
        raise DataError(f"no video was found in {where}; expected one folder of masks per video: check --gt")
    return list(dict.fromkeys(videos))  # a name that a list repeats counts once


def unwrap_predictions(pred: Path, videos: list[str]) -> Path:
    """The folder that holds the video folders: `pred`, or the single folder inside it that wraps them."""
    if not pred.is_dir():
        raise DataError(f"{pred} is not a folder; expected predictions in one folder per video: check --pred")
    inside = pngs.subfolders(pred)
    if len(inside) == 1 and inside[0] not in videos and set(pngs.subfolders(pred / inside[0])) & set(videos):
        return pred / inside[0]
    return pred


def missing_videos(pred: Path, videos: list[str]) -> list[str]:
    have = set(pngs.subfolders(pred))
    return [v for v in videos if v not in have]


def require_videos(pred: Path, videos: list[str], remedy: str = "predict them all") -> None:
    if missing := missing_videos(pred, videos):
        raise DataError(
            f"{len(missing)} of {len(videos)} videos have no prediction in {pred}: {pngs.some(missing)}; {remedy}"
        )


def require_frames(pred: Path, video: str, names: Sequence[str]) -> None:
    """Raise naming the frames of a video that have no PNG in `pred`."""
    have = set(pngs.png_stems(pred))
    if missing := [n for n in names if n not in have]:
        raise DataError(
            f"{len(missing)} of {len(names)} frames of video {video} have no prediction in {pred}: "
            f"{pngs.some(f'{n}.png' for n in missing)}; predict every frame"
        )


def inner(names: Sequence[str], skip: bool = True) -> Sequence[str]:
    """Without the first and the last, which hold the prompt and, by habit, the end."""
    return names[1:-1] if skip else names


ABSENT = ObjectScore(1.0, 1.0, None, 0, 0)  # in neither mask
